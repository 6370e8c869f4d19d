"""`dsclora models prune`: files in the caches that no command will use again, and their removal. No torch.

`find_prunable` only looks. `remove_files` removes what the user has seen.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from dsclora_cli import hub
from dsclora_cli.inference import openvino
from dsclora_cli.inference.native.weights import is_of_older_layout
from dsclora_cli.paths import downloads_dir, engines_dir, found_in, is_abandoned, is_folder, is_link
from dsclora_cli.weights.catalog import Catalog, WeightEntry, load_catalog
from dsclora_cli.weights.download import hub_file, path_of
from dsclora_cli.weights.hub_models import list_trusted
from dsclora_cli.weights.spandrel_records import is_old_record
from dsclora_cli.weights.verification import FileState, verify_models

_RESTING_SECONDS = 120
"""Seconds without a change after which an unfinished download of the Hub belongs to a killed process."""

_PARTS = ".dsclora-*.part"
"""Glob for the temporary files of `paths.atomic_write`."""


class PruneReason(StrEnum):
    """Why a file can go."""

    PARTIAL = "half-downloaded"
    """A download that was killed; the next download starts again."""

    DAMAGED = "damaged"
    """A download with another sha256 than expected: every command refuses the file."""

    UNKNOWN = "no-catalogue-entry"
    """A download of a model that is in no catalog any more."""

    OUTDATED = "outdated"
    """A network converted for another version of an engine, or facts on a network for another version of spandrel."""

    DOWNLOADED = "downloaded"
    """An intact download; only with `--all`."""

    CONVERTED = "converted"
    """A network converted for an engine of this installation, which converts again; only with `--all`."""


@dataclass(frozen=True)
class PrunableFile:
    """A file or folder that `dsclora models prune` removes; the field names are keys of the JSON output."""

    path: Path

    size: int
    """Bytes that the removal gives free."""

    reason: PruneReason

    name: str = ""
    """Model that the file belongs to; empty where no model is known."""

    removed: bool = False
    """Whether the file is gone."""

    error: str = ""
    """Why the file could not be removed."""


def find_prunable(everything: bool = False) -> tuple[PrunableFile, ...]:
    """Return what can go, without removing anything and without accessing the internet.

    `everything` adds intact downloads and converted networks: files that can be fetched or made again. Weights inside
    the package, weights next to the user's own catalog, and files of other programs in the Hub's cache always stay.
    """
    catalog = load_catalog()
    found = [
        *_partial_files(catalog),
        *_downloads(catalog, everything),
        *_unknown_downloads(catalog),
        *_converted_files(everything),
    ]
    # Two models may share a repository, and an adapter and its base a file.
    return tuple({each.path: each for each in found}.values())


def remove_files(files: Iterable[PrunableFile]) -> Iterator[PrunableFile]:
    """Remove files, and yield each with the outcome."""
    on_hub = _hub_files(load_catalog())
    for file in files:
        try:
            yield replace(file, removed=_remove(file, on_hub.get(file.name)))
        except OSError as error:
            yield replace(file, error=error.strerror or str(error))


def _remove(file: PrunableFile, on_hub: hub.HubFile | None) -> bool:
    """Remove a file or folder; return False for a temporary file that a process writes. Raises OSError."""
    if file.path.match(_PARTS):
        with suppress(FileNotFoundError):  # removed by another process since the look
            return is_abandoned(file.path, remove=True)
        return True
    if on_hub is not None and file.reason is not PruneReason.PARTIAL:
        hub.drop_copy(on_hub, file.path)
    elif is_folder(file.path) and not is_link(file.path):
        shutil.rmtree(file.path)
    else:
        file.path.unlink(missing_ok=True)
    return True


def _hub_files(catalog: Catalog) -> dict[str, hub.HubFile]:
    """Return the files on the Hub that the catalog, or an earlier use of a reference, names; by name or reference."""
    named = {entry.name: hub_file(entry, entry.repo) for entry in catalog.entries.values() if entry.repo is not None}
    return named | {trusted.reference: trusted.wanted for trusted in list_trusted()}


def _partial_files(catalog: Catalog) -> Iterator[PrunableFile]:
    """Yield unfinished downloads and conversions that nobody works on any more."""
    for name, file in _hub_files(catalog).items():
        yield from _partial(hub.list_partial(file), name, _is_resting)
    for entry in _from_the_web(catalog):
        yield from _partial(found_in(path_of(entry).parent, _PARTS), entry.name, is_abandoned)
    yield from _partial(found_in(engines_dir(), _PARTS), "", is_abandoned)


def _partial(paths: Iterable[Path], name: str, has_no_writer: Callable[[Path], bool]) -> Iterator[PrunableFile]:
    for path in paths:
        with suppress(OSError):  # finished or removed at this moment
            if has_no_writer(path):
                yield PrunableFile(path, _size(path), PruneReason.PARTIAL, name)


def _is_resting(path: Path) -> bool:
    """Return whether a download of the Hub, whose claim is no lock, has not grown for some time. Raises OSError."""
    return time.time() - path.lstat().st_mtime > _RESTING_SECONDS


def _has_writer(folder: Path) -> bool:
    """Return whether a process writes a file in a folder at this moment."""
    for part in found_in(folder, f"**/{_PARTS}"):
        with suppress(OSError):  # finished or removed at this moment
            if not is_abandoned(part):
                return True
    return False


def _downloads(catalog: Catalog, everything: bool) -> Iterator[PrunableFile]:
    """Yield damaged downloads, and with `everything` intact downloads too.

    The stored sha256 next to a trusted download stays: the user trusted those bytes, and no others.
    """
    reasons = {FileState.DAMAGED: PruneReason.DAMAGED, FileState.UNTRUSTED: PruneReason.DAMAGED}
    if everything:
        reasons[FileState.INTACT] = PruneReason.DOWNLOADED
    names = [*_hub_files(catalog), *(entry.name for entry in _from_the_web(catalog))]
    for file in verify_models(names) if names else ():
        if file.path is not None and file.state in reasons:
            yield PrunableFile(file.path, file.size, reasons[file.state], file.name)


def _from_the_web(catalog: Catalog) -> Iterator[WeightEntry]:
    return (entry for entry in catalog.entries.values() if entry.url is not None)


def _unknown_downloads(catalog: Catalog) -> Iterator[PrunableFile]:
    """Yield folders of downloads whose model is in no catalog any more."""
    known = {path_of(entry).parent for entry in _from_the_web(catalog)}
    for folder in found_in(downloads_dir()):
        if folder not in known and not _has_writer(folder):
            yield PrunableFile(folder, _size(folder), PruneReason.UNKNOWN)


def _converted_files(everything: bool) -> Iterator[PrunableFile]:
    for path in found_in(engines_dir(), "[!.]*"):
        if openvino.is_outdated(path.name) or is_of_older_layout(path.name) or is_old_record(path.name):
            yield PrunableFile(path, _size(path), PruneReason.OUTDATED)
        elif everything:
            yield PrunableFile(path, _size(path), PruneReason.CONVERTED)


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links count as links."""
    files = [path, *found_in(path, "**/*")] if is_folder(path) and not is_link(path) else [path]
    return sum(file.lstat().st_size for file in files if is_link(file) or not is_folder(file))
