"""`dsclora models verify`: hash every weight file on this machine, and compare with the catalog. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from dsclora_cli import hub
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.catalog import WeightEntry, load_catalog
from dsclora_cli.weights.download import fetch_step, hub_file, known_sha256, mend_local, path_of


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
    """Name of the model in the catalog."""

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


def verify_models(names: Sequence[str] = ()) -> Iterator[VerifiedFile]:
    """Yield the state of every file of some models, or of all models, without accessing the internet.

    Raises UsageError for an unknown name, before the first file is hashed.
    """
    catalog = load_catalog()
    entries = [catalog.entry(name) for name in names] if names else list(catalog.entries.values())
    for entry in entries:
        yield from _verify_entry(entry)


def _verify_entry(entry: WeightEntry) -> Iterator[VerifiedFile]:
    """Yield the state of every copy of the file of an entry; the Hub's cache may hold several copies."""
    if entry.repo is not None:
        copies = hub.list_copies(hub_file(entry, entry.repo))
    else:
        copies = tuple(path for path in (path_of(entry),) if path.is_file())
    verified = [_hash_file(entry, path) for path in copies]
    # Another program may have fetched another revision of the file: a blob whose own sha256 is its name is in order.
    verified = [each for each in verified if each.state is FileState.INTACT or each.found != _blob_name(each)]
    if verified:
        yield from verified
    elif entry.repo is None and entry.url is None:
        yield VerifiedFile(entry.name, FileState.MISSING, path_of(entry), 0, entry.sha256, "", mend_local(entry))
    else:
        yield VerifiedFile(entry.name, FileState.NOT_HERE, None, 0, known_sha256(entry), "")


def _blob_name(verified: VerifiedFile) -> str:
    return verified.path.name if verified.path else ""


def _hash_file(entry: WeightEntry, path: Path) -> VerifiedFile:
    expected = known_sha256(entry)
    try:
        found, size = sha256_of(path), path.stat().st_size
    except OSError as error:
        hint = f"{error.strerror}: check the permissions of the file, and the disk"
        return VerifiedFile(entry.name, FileState.UNREADABLE, path, 0, expected, "", hint)
    if found == expected:
        return VerifiedFile(entry.name, FileState.INTACT, path, size, expected, found)
    state = FileState.DAMAGED if expected else FileState.UNTRUSTED
    return VerifiedFile(entry.name, state, path, size, expected, found, _mend(entry))


def _mend(entry: WeightEntry) -> str:
    """Return the next step for a file with other bytes than expected."""
    if entry.repo is None and entry.url is None:
        return mend_local(entry)
    return f"run `dsclora models prune`, then {fetch_step(entry.name, known_sha256(entry))}"
