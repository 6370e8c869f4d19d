"""Which bytes on disk belong to a catalogue entry. No torch."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from dsclora_cli import hub
from dsclora_cli.errors import WeightsError
from dsclora_cli.paths import sha256_of
from dsclora_cli.weights import release
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
        return Place.CACHED if hub.cached(_hub_file(entry, entry.repo)) else Place.HUB
    if (released := _release_file(entry)) is not None:
        return Place.CACHED if release.cached(released) else Place.RELEASE
    path = _local_path(entry)
    if not path.is_file() or sha256_of(path) != entry.sha256:
        return Place.MISSING
    return Place.EMBEDDED if entry.folder == EMBEDDED else Place.LOCAL


def obtain(
    entry: WeightEntry, offline: bool = False, trust: bool = False, on_bytes: release.OnBytes | None = None
) -> Path:
    """The entry's file, its sha256 verified: from disk, else from the Hub, else from its address.

    Raises WeightsError as `hub.fetch` and `release.fetch` do; `trust` and `on_bytes` are for the latter.
    """
    if entry.repo is not None:
        return hub.fetch(_hub_file(entry, entry.repo), offline)
    if (released := _release_file(entry)) is not None:
        path = release.cached(released)
        if path is None and (offline or hub.is_offline()):
            raise WeightsError(f"{entry.name} is not here, and the network may not be asked", "leave --offline out")
        return path or release.fetch(released, trust, on_bytes)
    path = _local_path(entry)
    if not path.is_file():
        raise WeightsError(f"the file of {entry.name} is missing: {path}", _mend(entry))
    if sha256_of(path) != entry.sha256:
        raise WeightsError(f"{path} does not have the sha256 pinned for {entry.name}: {entry.sha256}", _mend(entry))
    return path


def sha256_pinned(entry: WeightEntry) -> str:
    """The pin of an entry whose file is here; of one without, that of the file that was trusted."""
    released = _release_file(entry)
    return entry.sha256 if released is None else release.known_sha256(released) or ""


def _release_file(entry: WeightEntry) -> release.ReleaseFile | None:
    return None if entry.url is None else release.ReleaseFile(entry.name, entry.url, entry.sha256 or None)


def _hub_file(entry: WeightEntry, repo: str) -> hub.HubFile:
    return hub.HubFile(repo, entry.file, entry.size, entry.sha256, entry.revision)


def _local_path(entry: WeightEntry) -> Path:
    return entry.folder / Path(entry.file).expanduser()


def _mend(entry: WeightEntry) -> str:
    return "install dsclora again" if entry.folder == EMBEDDED else "put the file back or correct its table"
