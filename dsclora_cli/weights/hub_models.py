"""Weights of any repository on the Hub: `hf://USER/REPO/FILE[@REVISION]`, and `USER/REPO` with one file. No torch.

The first use of a reference stores the sha256 of the file: trust on first use. Later, other bytes are refused, also
where the owner of the repository replaces the file, and a file in the cache needs no request.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from dsclora_cli import hub
from dsclora_cli.errors import UsageError, WeightsError, list_some, next_step
from dsclora_cli.hub_client import HubUnavailable, online_step
from dsclora_cli.paths import atomic_write, found_in, is_inner_path, read_small, sha256_of, state_dir

WEIGHT_SUFFIXES = frozenset({".pth", ".pt", ".safetensors"})
"""Suffixes of weight files."""

NO_LICENCE = "not stated"
"""Licence of a file whose author states none, or whose author is unknown."""

_SCHEME = "hf://"
_PART = r"\w+(?:[.-]+\w+)*"
_REFERENCE = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:/(?P<file>[^@]+))?(?:@(?P<revision>[^@\s]+))?", re.ASCII)
_HINT = "write hf://USER/REPO/FILE or hf://USER/REPO/FILE@REVISION"


@dataclass(frozen=True)
class TrustedFile:
    """A file of a repository, as it was at the first use; the field names are keys of the stored record."""

    reference: str
    """The user's words: hf://USER/REPO/FILE@REVISION, USER/REPO."""
    repo: str
    file: str
    """Path inside the repository."""
    revision: str | None
    """Branch, tag or commit of the user's choice; None means the default branch."""
    size: int
    """Size in bytes."""
    sha256: str
    licence: str
    """Licence that the model card names."""

    @property
    def wanted(self) -> hub.HubFile:
        """Return the file, pinned, in the terms of the Hub."""
        return hub.HubFile(self.repo, self.file, self.size, self.sha256, self.revision)

    @property
    def name(self) -> str:
        """Return the name of the file without folders and suffix."""
        return PurePosixPath(self.file).stem


@dataclass(frozen=True)
class HubModel:
    """A trusted file on this machine."""

    path: Path
    trusted: TrustedFile
    note: str | None
    """Sentence for the user after the first use."""


def is_hub_reference(model: str) -> bool:
    """Return whether a model's name means a repository on the Hub: names in the catalog have no slash."""
    return "/" in model


def is_repo_name(text: str) -> bool:
    """Return whether a text is the plain name of a repository on the Hub, `USER/REPO`."""
    match = _REFERENCE.fullmatch(text)
    return match is not None and match["repo"] == text


def check_reference(reference: str) -> None:
    """Raise UsageError for a misspelled reference, and for a file that is no weight file; ask nobody."""
    _split(reference)


def _split(reference: str) -> tuple[str, str | None, str | None]:
    """Return repository, file and revision of a reference. Raises UsageError."""
    match = _REFERENCE.fullmatch(reference.removeprefix(_SCHEME))
    if match is None:
        if not reference.startswith(_SCHEME) and PurePosixPath(reference).suffix in WEIGHT_SUFFIXES:
            raise UsageError(f"there is no file {reference}", f"check the path; for a model on the Hub, {_HINT}")
        raise UsageError(f"{reference!r} is no model on the Hub", _HINT)
    repo, file, revision = match["repo"], match["file"], match["revision"]
    if file is not None and (not is_inner_path(file) or PurePosixPath(file).suffix not in WEIGHT_SUFFIXES):
        raise UsageError(f"{file} of {repo} is no weight file", f"expected {', '.join(sorted(WEIGHT_SUFFIXES))}")
    return repo, file, revision


def renew_trust(repo: str, file: str, size: int, sha256: str) -> None:
    """Trust new bytes of a file that was used here before, for all references without a revision.

    Raises WeightsError.
    """
    for trusted in list_trusted():
        if (trusted.repo, trusted.file, trusted.revision) == (repo, file, None) and trusted.sha256 != sha256:
            place = _place_of_record(trusted.reference, state_dir())
            _write_record(place, replace(trusted, size=size, sha256=sha256))
    _obtain.cache_clear()


def obtain_hub_model(reference: str, offline: bool = False) -> HubModel:
    """Return the file of a reference, downloaded if necessary; trust the file at the first use.

    Raises:
        UsageError: The reference is misspelled, or the repository has no weight file or several.
        HubUnavailable: The Hub cannot give the file.
        WeightsError: The file differs from the file of the first use.
    """
    return _obtain(reference, offline, hub.is_offline(), state_dir())


def list_trusted() -> tuple[TrustedFile, ...]:
    """Return the files of all references that were used before, by reference. Damaged records are left out.

    A damaged record ends the next use of the reference with an error, so no file is trusted again without a message.
    """
    found = []
    for place in found_in(state_dir() / "hub-models", "*.json"):
        with suppress(OSError, ValueError, TypeError, RecursionError):
            found.append(_as_trusted(read_small(place)))
    return tuple(sorted(found, key=lambda trusted: trusted.reference))


def find_trusted(reference: str) -> TrustedFile:
    """Return the file of a reference that was used before, without accessing the internet. Raises WeightsError."""
    trusted = _read_record(_place_of_record(reference, state_dir()), reference)
    if trusted is None:
        step = f"run `dsclora models fetch {reference}`, which trusts the file as it is now"
        raise WeightsError(f"{reference} was never used on this machine", step)
    return trusted


# The note about the first use must reach the user though the scale is asked for before the weights.
@lru_cache(maxsize=64)
def _obtain(reference: str, offline: bool, hub_offline: bool, state: Path) -> HubModel:
    place = _place_of_record(reference, state)
    trusted = _read_record(place, reference)
    if trusted is not None:
        return HubModel(_fetch_again(trusted, place, offline), trusted, None)
    path, trusted = _fetch_first(reference, offline, hub_offline)
    _write_record(place, trusted)
    note = (
        f"{reference}: {trusted.file} (licence {trusted.licence}) is used for the first time;"
        f" from now on only these bytes are accepted, sha256 {trusted.sha256}"
    )
    return HubModel(path, trusted, note)


def _place_of_record(reference: str, state: Path) -> Path:
    # An argument of a command may hold bytes that are no UTF-8.
    name = hashlib.sha256(reference.encode(errors="surrogateescape")).hexdigest()[:32]
    return state / "hub-models" / f"{name}.json"


def _fetch_again(trusted: TrustedFile, place: Path, offline: bool) -> Path:
    """Return the file of an earlier use. Raises WeightsError where the repository has other bytes now."""
    try:
        return hub.fetch_file(trusted.wanted, offline)
    except HubUnavailable as error:
        if error.reason != hub.GONE:
            raise
        raise WeightsError(
            f"{trusted.reference} was replaced since its first use: no file there has the sha256 {trusted.sha256}",
            f"if you trust the new file, remove {place} and run again",
        ) from error


def _fetch_first(reference: str, offline: bool, hub_offline: bool) -> tuple[Path, TrustedFile]:
    """Download the file of a reference that was never used before, and return the record to store."""
    repo, file, revision = _split(reference)
    about: Mapping[str, hub.ListedFile] = {}
    licence = NO_LICENCE
    if not (offline or hub_offline):
        described = hub.describe_repo(repo, revision)
        about, licence = described.files, described.licence or NO_LICENCE
    elif file is None:
        message = f"{reference} was never used before, and the program is offline"
        raise HubUnavailable("offline", message, online_step(offline, hub_offline))
    if file is None:
        file = _only_weight_file(repo, about)
    listed = about.get(file, hub.ListedFile(0, None))
    path = hub.fetch_file(hub.HubFile(repo, file, listed.size, listed.sha256, revision), offline)
    record = TrustedFile(reference, repo, file, revision, path.stat().st_size, sha256_of(path), licence)
    return path, record


def _only_weight_file(repo: str, files: Mapping[str, hub.ListedFile]) -> str:
    """Return the only weight file of a repository. Raises UsageError with the names where there are several."""
    weights = sorted(name for name in files if PurePosixPath(name).suffix in WEIGHT_SUFFIXES)
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise UsageError(f"{repo} holds no weight file", "choose another repository")
    message = f"{repo} holds {len(weights)} weight files: {list_some(weights, 8)}"
    raise UsageError(message, f"choose one: hf://{repo}/{weights[0]}")


def _read_record(place: Path, reference: str) -> TrustedFile | None:
    """Return the record of an earlier use; None for the first use. Raises WeightsError for a damaged record."""
    try:
        record = _as_trusted(read_small(place))
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"the record of {reference} cannot be read: {place} ({error.strerror})"
        raise WeightsError(message, "check the permissions") from error
    except (ValueError, TypeError, RecursionError) as error:
        # Trusting again without a message would accept any bytes.
        raise WeightsError(f"the record of {reference} cannot be read: {place}", "remove the file") from error
    if record.reference != reference:
        raise WeightsError(f"the record of {reference} is damaged: {place}", "remove the file")
    return record


def _as_trusted(text: str) -> TrustedFile:
    """Return the file that a record describes. Raises ValueError or TypeError for anything but a whole record."""
    record = TrustedFile(**json.loads(text))
    texts = (record.reference, record.repo, record.file, record.sha256, record.licence)
    if not all(isinstance(each, str) for each in (*texts, record.revision or "")) or not isinstance(record.size, int):
        raise TypeError("a field of another type")
    if not re.fullmatch("[0-9a-f]{64}", record.sha256) or not is_repo_name(record.repo) or record.size < 0:
        raise ValueError("no sha256, no repository or no size")
    return record


def _write_record(place: Path, trusted: TrustedFile) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(place) as temporary:
            temporary.write_text(json.dumps(asdict(trusted), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        message = f"the sha256 of {trusted.reference} cannot be stored: {place}: {error.strerror}"
        hint = next_step(error, "set DSCLORA_STATE_DIR to a folder that can be written")
        raise WeightsError(message, hint) from error
