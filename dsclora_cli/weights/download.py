"""Which bytes on disk belong to a catalogue entry. No torch.

Weights at a plain address, as GitHub's releases have them. Without a pin, the user says once that it is trusted.

What was trusted is remembered by its sha256 beside the file; from then on other bytes are refused. No torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from dsclora_cli import hub
from dsclora_cli.errors import WeightsError
from dsclora_cli.paths import atomic_write, cache_dir, sha256_of
from dsclora_cli.weights.catalog import EMBEDDED, WeightEntry


class Place(StrEnum):
    """Where the bytes of an entry are."""

    EMBEDDED = "embedded"
    LOCAL = "local"
    CACHED = "cached"
    HUB = "on the Hub"
    RELEASE = "on the web"
    MISSING = "missing"


def place_of(entry: WeightEntry) -> Place:
    """Where the entry's bytes are now, without any request; a file with another sha256 counts as missing."""
    if entry.repo is not None:
        return Place.CACHED if hub.find_cached(_hub_file(entry, entry.repo)) else Place.HUB
    if (released := _release_file(entry)) is not None:
        return Place.CACHED if cached(released) else Place.RELEASE
    path = _local_path(entry)
    if not path.is_file() or sha256_of(path) != entry.sha256:
        return Place.MISSING
    return Place.EMBEDDED if entry.folder == EMBEDDED else Place.LOCAL


def obtain(entry: WeightEntry, offline: bool = False, trust: bool = False, on_bytes: OnBytes | None = None) -> Path:
    """The entry's file, its sha256 verified: from disk, else from the Hub, else from its address.

    Raises WeightsError as `hub.fetch_file` and `release.fetch` do; `trust` and `on_bytes` are for the latter.
    """
    if entry.repo is not None:
        return hub.fetch_file(_hub_file(entry, entry.repo), offline)
    if (released := _release_file(entry)) is not None:
        path = cached(released)
        if path is None and (offline or hub.is_offline()):
            raise WeightsError(f"{entry.name} is not here, and the network may not be asked", "leave --offline out")
        return path or fetch(released, trust, on_bytes)
    path = _local_path(entry)
    if not path.is_file():
        raise WeightsError(f"the file of {entry.name} is missing: {path}", _mend(entry))
    if sha256_of(path) != entry.sha256:
        raise WeightsError(f"{path} does not have the sha256 pinned for {entry.name}: {entry.sha256}", _mend(entry))
    return path


def sha256_pinned(entry: WeightEntry) -> str:
    """The pin of an entry whose file is here; of one without, that of the file that was trusted."""
    released = _release_file(entry)
    return entry.sha256 if released is None else known_sha256(released) or ""


def _release_file(entry: WeightEntry) -> ReleaseFile | None:
    return None if entry.url is None else ReleaseFile(entry.name, entry.url, entry.sha256 or None)


def _hub_file(entry: WeightEntry, repo: str) -> hub.HubFile:
    return hub.HubFile(repo, entry.file, entry.size, entry.sha256, entry.revision)


def _local_path(entry: WeightEntry) -> Path:
    return entry.folder / Path(entry.file).expanduser()


def _mend(entry: WeightEntry) -> str:
    return "install dsclora again" if entry.folder == EMBEDDED else "put the file back or correct its table"


OnBytes = Callable[[int, int | None], None]
"""Told how many bytes are there, and how many there will be where that is known."""

_SECONDS = 30.0
_BLOCK = 1 << 18


@dataclass(frozen=True)
class ReleaseFile:
    """A file at an address, for the entry `name`; `sha256` is the pin, None where nobody has stated one."""

    name: str
    url: str
    sha256: str | None

    @property
    def path(self) -> Path:
        """Where it lies once it is here."""
        return cache_dir() / "weights" / self.name / Path(urlsplit(self.url).path).name


def known_sha256(wanted: ReleaseFile) -> str | None:
    """The pin, or that of the file that was trusted when it was fetched; None where there is neither."""
    if wanted.sha256 is not None:
        return wanted.sha256
    try:
        return _note(wanted).read_text(encoding="ascii").strip()
    except OSError:
        return None


def cached(wanted: ReleaseFile) -> Path | None:
    """The file, if it is here and has the known sha256."""
    known = known_sha256(wanted)
    return wanted.path if known and wanted.path.is_file() and sha256_of(wanted.path) == known else None


def fetch(wanted: ReleaseFile, trust: bool, on_bytes: OnBytes | None = None) -> Path:
    """The file, from the cache, else from its address. Without a pin, `trust` says that any bytes will do, once.

    Raises WeightsError: not trusted, out of reach, another sha256, or a folder that cannot be written.
    """
    if (path := cached(wanted)) is not None:
        return path
    known = known_sha256(wanted)
    if known is None and not trust:
        raise WeightsError(
            f"nobody has stated the sha256 of {wanted.name}, at {wanted.url}",
            f"if you trust that address, `dsclora models fetch {wanted.name} --trust-unpinned`, once",
        )
    try:
        wanted.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(wanted.path) as temporary:
            found = _download(wanted.url, temporary, on_bytes or (lambda done, total: None))
            if known is not None and found != known:
                again = f"; if you know why, remove {wanted.path.parent} and fetch it again"
                raise WeightsError(
                    f"{wanted.url} has the sha256 {found}, not that of {wanted.name}, {known}",
                    f"the file was refused{'' if wanted.sha256 else again}",
                )
        if wanted.sha256 is None:
            _note(wanted).write_text(f"{found}\n", encoding="ascii")
    except OSError as error:  # URLError is one, and so are time-outs
        status = getattr(error, "code", None)  # of an HTTPError
        reason = f"HTTP {status}" if status else getattr(error, "reason", None) or error.strerror or error
        raise WeightsError(
            f"{wanted.name} cannot be fetched from {wanted.url}: {reason}", "try again later, or give --weights FILE"
        ) from error
    return wanted.path


def _note(wanted: ReleaseFile) -> Path:
    return wanted.path.with_name(f"{wanted.path.name}.sha256")


def _download(url: str, target: Path, on_bytes: OnBytes) -> str:
    """The sha256 of what came. Raises OSError."""
    import urllib.request  # not for those who have their files

    digest, done = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "dsclora"})  # noqa: S310 - the catalogue allows no files
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer, target.open("wb") as file:  # noqa: S310
        length = answer.headers.get("Content-Length")
        total = int(length) if length else None
        while block := answer.read(_BLOCK):
            file.write(block)
            digest.update(block)
            done += len(block)
            on_bytes(done, total)
    if total is not None and done != total:
        raise OSError(f"the connection broke after {done} of {total} bytes")
    return digest.hexdigest()
