"""Upscale what arrives in folders, as soon as a file is completely written.

The package watchfiles (extra `watch`) waits for changes without reading the folders again and again. Records of results
say what is done, so a watch that is started again begins where the last one ended.

The system watches a folder itself, not the path of the folder. Where a folder is removed, moved or unmounted, the
system reports nothing of another folder that gets the path. So the paths are compared with the watched folders at every
wake-up.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from stat import S_ISDIR
from threading import Event
from time import monotonic, time
from typing import TYPE_CHECKING

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.paths import is_allowed, is_folder
from dsclora_cli.storage.places import RemotePlace, parse_place
from dsclora_cli.upscaling.batch import BatchRun
from dsclora_cli.upscaling.engines import list_devices
from dsclora_cli.upscaling.inputs import find_inputs
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.upscaling.types import FileResult, FoundInputs, InputFile, UpscaleCallbacks, path_key

if TYPE_CHECKING:
    from watchfiles.main import FileChange

SETTLE_SECONDS = 2.0
"""A file without a change for this time is completely written."""

_LOOK_SECONDS = 0.5  # longest time between two looks at files that may still be written

_Stamp = tuple[int, int, bool]  # bytes, nanoseconds of the last change, and whether the file can be read
_Identity = tuple[str, int, int]  # absolute path, device and inode of a folder


def watch_files(
    folders: Iterable[str], options: UpscaleOptions, callbacks: UpscaleCallbacks, stop: Event
) -> Generator[FileResult, None, None]:
    """Upscale the pictures in folders, and wait for more, also in folders that go and come back.

    Args:
        folders: Folders to watch; subfolders with `options.batch.recursive`.
        options: All options of the run.
        callbacks: Called in the iterating thread.
        stop: Ends the watch when set, after the pictures at work.

    Yields:
        A result for every picture that was there or has arrived. A picture that changes later is upscaled again, and
        the old result is kept unless `options.batch.overwrite` is set.

    Raises:
        KeyboardInterrupt: Ctrl-C while pictures are at work. Ctrl-C while waiting ends the watch without an exception.
        UsageError: An input is no folder, watchfiles is not installed, or options contradict each other.
        WeightsError: Weights cannot be read or downloaded.
        DscloraError: The system refuses to watch so many folders.
    """
    paths = _check_folders(folders)
    callbacks.note_once("waiting for pictures; Ctrl-C ends")
    waves = _Waves([str(path) for path in paths], options)
    changes = _changes(paths, options.batch.recursive, callbacks, stop)
    # Opened engines serve all waves; several devices cannot share them. Made late: choosing a device may import torch.
    is_shared = len(list_devices(options.engine)) == 1
    upscaler: PictureUpscaler | None = None
    while not stop.is_set():
        try:
            must_look = next(changes, None)
        except KeyboardInterrupt:
            return
        if callbacks.stop_requests():
            return
        if must_look or waves.unsettled:
            ready = waves.take()
            if ready.inputs and is_shared:
                upscaler = upscaler or PictureUpscaler(options)
            if ready.inputs or ready.left_out:
                keys = {file.name: file.key for file in ready.inputs}
                with closing(BatchRun(ready, options, callbacks, upscaler).results()) as results:
                    for result in results:
                        waves.remember(result, keys.get(result.input))
                        yield result


def _check_folders(folders: Iterable[str]) -> list[Path]:
    places = [parse_place(folder) for folder in folders]
    for place in places:
        if isinstance(place, RemotePlace):
            raise UsageError(f"--watch takes folders of this machine, not {place}", "run again from time to time")
    paths = [place for place in places if isinstance(place, Path)]
    for path in paths:
        if not is_folder(path):
            raise UsageError(f"--watch takes folders, and {path} is not a folder", "name a folder")
        if not _is_readable(path):
            raise UsageError(f"the folder {path} cannot be read", "check the permissions")
    try:
        import watchfiles  # noqa: F401
    except ImportError as error:
        raise UsageError("--watch needs watchfiles", 'pip install "dsclora[watch]"') from error
    return paths


def _changes(
    paths: list[Path], recursive: bool, callbacks: UpscaleCallbacks, stop: Event
) -> Generator[bool, None, None]:
    """Yield whether the folders must be looked at, at least every `_LOOK_SECONDS`; end with `stop`.

    The folders must be looked at where something has changed, at first, and where a folder is there again or is
    another one. A note tells of a folder that has gone, once each time.
    """
    absent: set[Path] = set()
    while not stop.is_set():
        identities = {path: _identity(path) for path in paths}
        absent_before, absent = absent, {path for path, identity in identities.items() if identity is None}
        for path in sorted(absent - absent_before):
            # Not `note_once`: a folder may go again, months later.
            callbacks.on_note(_words_for_absent(path))
        try:
            yield from _changes_in_same_folders(identities, recursive, stop)
        except FileNotFoundError:  # a folder, or a folder inside, has gone while the watch began
            stop.wait(_LOOK_SECONDS)
        except (OSError, RuntimeError) as error:  # RuntimeError: the base class of the errors of watchfiles
            # Linux limits the number of folders and of watches for each user.
            step = "name fewer folders, raise fs.inotify.max_user_watches, or set WATCHFILES_FORCE_POLLING=1"
            raise DscloraError(f"the system watches no more folders ({_reason(error)})", step) from error


def _reason(error: OSError | RuntimeError) -> str:
    """Return the first sentence of an error of watchfiles, without the paths that follow."""
    return str(error.args[0]).partition(" about [")[0].rstrip(".")


def _changes_in_same_folders(
    identities: Mapping[Path, _Identity | None], recursive: bool, stop: Event
) -> Generator[bool, None, None]:
    """Yield as `_changes` does, and end where a folder goes, is there again, is another one or can be read at last.

    Raises FileNotFoundError for a folder that goes while the watch begins, and OSError or RuntimeError where the system
    refuses a watch.
    """
    from watchfiles import watch

    folders = [path for path, identity in identities.items() if identity is not None]
    listed = _listed_folders(folders) if recursive else None
    events = watch(
        *(listed or folders),
        watch_filter=None,
        recursive=recursive and listed is None,
        stop_event=stop,
        debounce=200,
        rust_timeout=round(_LOOK_SECONDS * 1000),
        yield_on_timeout=True,
        raise_interrupt=True,
    )
    with closing(events):
        # The watch begins before the first look: a file that arrives in between is seen by one of the two.
        must_look = True
        for changes in events:
            others = _are_others(identities, changes)
            if listed:  # a folder that is new, or that can be read at last
                others |= any(is_folder(Path(path)) for _, path in changes)
            if must_look or not others:
                yield must_look or bool(changes)
            if others:
                return
            must_look = False


def _are_others(identities: Mapping[Path, _Identity | None], changes: set[FileChange]) -> bool:
    """Return whether a folder has gone, is there again or is another one than at the beginning of the watch."""
    from watchfiles import Change

    if any(_identity(path) != identity for path, identity in identities.items()):
        return True
    # A new folder often gets the inode of the folder that was removed just before.
    watched = {identity[0] for identity in identities.values() if identity is not None}
    return any(change == Change.deleted and os.path.normpath(path) in watched for change, path in changes)


def _identity(path: Path) -> _Identity | None:
    """Return what tells a folder from another one at the same path; None for a folder that is absent or unreadable."""
    # Path.absolute raises FileNotFoundError where the folder of the process has gone: a relative path means nothing.
    with suppress(OSError):
        absolute = path.absolute()
        status = absolute.stat()
        if S_ISDIR(status.st_mode) and _is_readable(absolute):
            return os.path.normpath(absolute), status.st_dev, status.st_ino
    return None


def _listed_folders(folders: Iterable[Path]) -> list[Path] | None:
    """Return the folders and all folders inside but those that cannot be read; None where all can be read.

    watchfiles cannot watch a tree that holds an unreadable folder, so each other folder is watched by itself.
    """
    errors: list[OSError] = []
    found = [Path(path) for folder in folders for path, _, _ in os.walk(folder, onerror=errors.append)]
    listed = [folder for folder in found if _is_readable(folder)]
    return listed if errors or len(listed) < len(found) else None


def _is_readable(folder: Path) -> bool:
    return is_allowed(folder, os.R_OK | os.X_OK)


def _words_for_absent(path: Path) -> str:
    if is_folder(path) and not _is_readable(path):
        return f"the folder {path} cannot be read; waiting until the folder can be read"
    return f"the folder {path} has gone; waiting until the folder is there again"


class _Waves:
    """The files seen so far, and which of them are completely written and not taken yet."""

    def __init__(self, folders: list[str], options: UpscaleOptions) -> None:
        self._folders, self._batch = folders, options.batch
        self._seen: dict[str, tuple[_Stamp, float]] = {}  # stamp, and the time when it was first seen
        self._taken: dict[str, _Stamp] = {}
        self._told: set[str] = set()
        self._made: dict[str, str] = {}  # keys of results, with the key of the input
        self.unsettled = False
        """Whether a file may still be written."""

    def take(self) -> FoundInputs:
        """Return the inputs that are complete and new or changed, and the files that are newly left out."""
        # A folder that has gone is waited for, and is no input that fails.
        there = [folder for folder in self._folders if _identity(Path(folder)) is not None]
        found, now = find_inputs(there, self._batch), monotonic()
        self._forget_gone(found)
        ready, self.unsettled = [], False
        for file in found.inputs:
            stamp = _stamp(file)
            if stamp is None or self._taken.get(file.key) == stamp:
                continue
            known = self._seen.get(file.key)
            if known is None or known[0] != stamp:
                # A file that was there long before the watch is complete.
                known = self._seen[file.key] = stamp, now - _age(stamp)
            if now - known[1] < SETTLE_SECONDS:
                self.unsettled = True
                continue
            self._taken[file.key] = stamp
            ready.append(file)
        left_out = tuple(each for each in found.left_out if each.name not in self._told)
        self._told.update(each.name for each in left_out)
        keys = {file.key for file in ready}
        others = (*found.others, *(file for file in found.inputs if file.key not in keys))
        made = dict(self._made)
        return replace(found, inputs=tuple(ready), left_out=left_out, many=True, others=others, made=made)

    def remember(self, result: FileResult, key: str | None) -> None:
        """Keep the name of a result for the input with the key: no other input gets it, also without any record."""
        if key is not None and result.output is not None:
            self._made[path_key(parse_place(result.output))] = key

    def _forget_gone(self, found: FoundInputs) -> None:
        """Forget the files that are there no more: a watch may run for months, and files may come and go."""
        there = {file.key for file in found.inputs}
        for known in (self._seen, self._taken):
            for key in known.keys() - there:
                del known[key]
        self._made = {place: key for place, key in self._made.items() if key in there}
        # A watched folder that is empty again and again is told of once.
        self._told &= {*(each.name for each in found.left_out), *self._folders}


def _stamp(file: InputFile) -> _Stamp | None:
    """Return size, time of change and whether the file can be read; None for a file that has gone."""
    path = Path(str(file.source))
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns, is_allowed(path, os.R_OK)
    return None


def _age(stamp: _Stamp) -> float:
    """Return the seconds since the last change, at least 0: clocks of other machines may be ahead."""
    return max(0.0, time() - stamp[1] / 1e9)
