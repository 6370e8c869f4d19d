"""Which bytes on disk belong to a catalogue entry. No torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from dsclora_cli import hub
from dsclora_cli.errors import WeightsError
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights.catalog import EMBEDDED, WeightEntry


class Place(StrEnum):
    """Where the bytes of an entry are."""

    EMBEDDED = "embedded"
    LOCAL = "local"
    CACHED = "cached"
    HUB = "on the Hub"
    MISSING = "missing"


def place_of(entry: WeightEntry) -> Place:
    """Where the entry's bytes are now, without any request; a file with another sha256 counts as missing."""
    if entry.repo is not None:
        return Place.CACHED if hub.cached(_hub_file(entry, entry.repo)) else Place.HUB
    path = _local_path(entry)
    if not path.is_file() or sha256_of(path) != entry.sha256:
        return Place.MISSING
    return Place.EMBEDDED if entry.folder == EMBEDDED else Place.LOCAL


def obtain(entry: WeightEntry, offline: bool = False) -> Path:
    """The entry's file, its sha256 verified: from disk, else from the Hub. Raises WeightsError as `hub.fetch` does."""
    if entry.repo is not None:
        return hub.fetch(_hub_file(entry, entry.repo), offline)
    path = _local_path(entry)
    if not path.is_file():
        raise WeightsError(f"the file of {entry.name} is missing: {path}", _mend(entry))
    if sha256_of(path) != entry.sha256:
        raise WeightsError(f"{path} does not have the sha256 pinned for {entry.name}: {entry.sha256}", _mend(entry))
    return path


def _hub_file(entry: WeightEntry, repo: str) -> hub.HubFile:
    return hub.HubFile(repo, entry.file, entry.size, entry.sha256, entry.revision)


def _local_path(entry: WeightEntry) -> Path:
    return entry.folder / Path(entry.file).expanduser()


def _mend(entry: WeightEntry) -> str:
    return "install dsclora again" if entry.folder == EMBEDDED else "put the file back or correct its table"
