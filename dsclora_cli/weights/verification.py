"""`dsclora models verify`: hash every weight file on this machine, and compare with the catalog. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dsclora_cli import hub
from dsclora_cli.paths import is_file, sha256_of
from dsclora_cli.weights.catalog import WeightEntry, load_catalog
from dsclora_cli.weights.download import fetch_step, hub_file, known_sha256, mend_local, path_of
from dsclora_cli.weights.hub_models import TrustedFile, find_trusted, is_hub_reference, list_trusted


class FileState(StrEnum):
    """State of the file of a model."""

    INTACT = "intact"
    """The file has the expected sha256."""

    DAMAGED = "damaged"
    """The file has another sha256, so every command refuses the file."""

    UNREADABLE = "unreadable"
    """The file cannot be read: no permission, or a failing disk."""

    UNTRUSTED = "untrusted"
    """Neither the catalog nor an earlier download states a sha256, so every command refuses the file."""

    MISSING = "missing"
    """The catalog says that the file is on this machine, and the file is not there."""

    NOT_HERE = "not-here"
    """The file was never downloaded."""


BAD_STATES = frozenset({FileState.DAMAGED, FileState.UNREADABLE, FileState.UNTRUSTED, FileState.MISSING})
"""States in which a model cannot be used, although a file is here or should be here."""


@dataclass(frozen=True)
class VerifiedFile:
    """Result of `dsclora models verify` for a file; the field names are keys of the JSON output."""

    name: str
    """Name of the model in the catalog, or the reference to the Hub."""

    state: FileState

    path: Path | None
    """File that was hashed, or the place of a missing file; None for a model that was never downloaded."""

    size: int
    """Size of the hashed file in bytes; 0 without a file."""

    expected: str
    """sha256 in the catalog, or stored at the first download; empty for an unknown sha256."""

    found: str
    """sha256 of the bytes on this machine; empty without a readable file."""

    hint: str = ""
    """The next step for a file that cannot be used."""


@dataclass(frozen=True)
class _Expected:
    """A file that may be on this machine, and what the bytes should be."""

    name: str

    wanted: hub.HubFile | None
    """The file on the Hub; None for a file elsewhere."""

    path: Path
    """Place of a file that is not on the Hub; `.` for a file on the Hub."""

    sha256: str
    """Expected sha256; empty for an unknown one."""

    step: str
    """The next step for a file with other bytes."""

    can_be_absent: bool
    """Whether the file is a download, so that no file is no mistake."""


def verify_models(names: Sequence[str] = ()) -> Iterator[VerifiedFile]:
    """Yield the state of every file of some models, or of all models, without accessing the internet.

    A model is a name of the catalog, or a reference to the Hub that was used before. Raises UsageError for an unknown
    name, before the first file is hashed.
    """
    catalog = load_catalog()
    if names:
        known = {trusted.reference: trusted for trusted in list_trusted()}
        expected = [
            _of_reference(known.get(name) or find_trusted(name))
            if is_hub_reference(name)
            else _of_entry(catalog.entry(name))
            for name in names
        ]
    else:
        expected = [*map(_of_entry, catalog.entries.values()), *map(_of_reference, list_trusted())]
    for each in expected:
        yield from _verify(each)


def _of_reference(trusted: TrustedFile) -> _Expected:
    step = f"run `dsclora models prune`, then run `dsclora models fetch {trusted.reference}`"
    return _Expected(trusted.reference, trusted.wanted, Path(), trusted.sha256, step, can_be_absent=True)


def _of_entry(entry: WeightEntry) -> _Expected:
    sha256 = known_sha256(entry)
    if entry.repo is None and entry.url is None:
        return _Expected(entry.name, None, path_of(entry), sha256, mend_local(entry), can_be_absent=False)
    step = f"run `dsclora models prune`, then {fetch_step(entry.name, sha256)}"
    if entry.repo is not None:
        return _Expected(entry.name, hub_file(entry, entry.repo), Path(), sha256, step, can_be_absent=True)
    return _Expected(entry.name, None, path_of(entry), sha256, step, can_be_absent=True)


def _verify(expected: _Expected) -> Iterator[VerifiedFile]:
    """Yield the state of every copy of a file; the Hub's cache may hold several copies."""
    if expected.wanted is not None:
        copies = hub.list_copies(expected.wanted)
    else:
        copies = tuple(path for path in (expected.path,) if is_file(path))
    verified = [_hash_file(expected, path) for path in copies]
    # Another program may have fetched another revision of the file: a blob whose own sha256 is its name is in order.
    verified = [each for each in verified if each.state is FileState.INTACT or each.found != _blob_name(each)]
    if verified:
        yield from verified
    elif expected.can_be_absent:
        yield VerifiedFile(expected.name, FileState.NOT_HERE, None, 0, expected.sha256, "")
    else:
        yield VerifiedFile(expected.name, FileState.MISSING, expected.path, 0, expected.sha256, "", expected.step)


def _blob_name(verified: VerifiedFile) -> str:
    return verified.path.name if verified.path else ""


def _hash_file(expected: _Expected, path: Path) -> VerifiedFile:
    try:
        found, size = sha256_of(path), path.stat().st_size
    except OSError as error:
        hint = f"{error.strerror}: check the permissions of the file, and the disk"
        return VerifiedFile(expected.name, FileState.UNREADABLE, path, 0, expected.sha256, "", hint)
    if found == expected.sha256:
        return VerifiedFile(expected.name, FileState.INTACT, path, size, expected.sha256, found)
    state = FileState.DAMAGED if expected.sha256 else FileState.UNTRUSTED
    return VerifiedFile(expected.name, state, path, size, expected.sha256, found, expected.step)
