"""Upscale what arrives in folders, as soon as a file is completely written.

The package watchfiles (extra `watch`) waits for changes without reading the folders again and again. Records of results
say what is done, so a watch that is started again begins where the last one ended.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import monotonic, time

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.storage.places import RemotePlace, parse_place
from dsclora_cli.upscaling.batch import BatchRun
from dsclora_cli.upscaling.engines import list_devices
from dsclora_cli.upscaling.inputs import find_inputs
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.upscaling.types import FileResult, FoundInputs, InputFile, UpscaleCallbacks

SETTLE_SECONDS = 2.0
"""A file without a change for this time is completely written."""

_LOOK_SECONDS = 0.5  # longest time between two looks at files that may still be written

_Stamp = tuple[int, int]  # bytes, and nanoseconds of the last change


def watch_files(
    folders: Iterable[str], options: UpscaleOptions, callbacks: UpscaleCallbacks, stop: Event
) -> Generator[FileResult, None, None]:
    """Upscale the pictures in folders, and wait for more.

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
    """
    paths = _check_folders(folders)
    callbacks.note_once("waiting for pictures; Ctrl-C ends")
    waves = _Waves([str(path) for path in paths], options)
    changes = _changes(paths, options.batch.recursive, stop)
    # Opened engines serve all waves; several devices cannot share them. Made late: choosing a device may import torch.
    is_shared = len(list_devices(options.engine)) == 1
    upscaler: PictureUpscaler | None = None
    # The watch begins before the first look: a file that arrives in between is seen by one of the two.
    must_look = True
    while not stop.is_set():
        try:
            changed = next(changes, None)
        except KeyboardInterrupt:
            return
        if callbacks.stop_requests():
            return
        if changed or must_look or waves.unsettled:
            must_look = False
            ready = waves.take()
            if ready.inputs and is_shared:
                upscaler = upscaler or PictureUpscaler(options)
            if ready.inputs or ready.left_out:
                yield from BatchRun(ready, options, callbacks, upscaler).results()


def _check_folders(folders: Iterable[str]) -> list[Path]:
    places = [parse_place(folder) for folder in folders]
    for place in places:
        if isinstance(place, RemotePlace):
            raise UsageError(f"--watch takes folders of this machine, not {place}", "run again from time to time")
    paths = [place for place in places if isinstance(place, Path)]
    for path in paths:
        if not path.is_dir():
            raise UsageError(f"--watch takes folders, and {path} is none", "name a folder")
    try:
        import watchfiles  # noqa: F401
    except ImportError as error:
        raise UsageError("--watch needs watchfiles", 'pip install "dsclora[watch]"') from error
    return paths


def _changes(paths: list[Path], recursive: bool, stop: Event) -> Iterator[bool]:
    """Yield whether something has changed in the folders, at least every `_LOOK_SECONDS`; end with `stop`."""
    from watchfiles import watch

    for changes in watch(
        *paths,
        watch_filter=None,
        recursive=recursive,
        stop_event=stop,
        debounce=200,
        rust_timeout=round(_LOOK_SECONDS * 1000),
        yield_on_timeout=True,
        raise_interrupt=True,
    ):
        yield bool(changes)


class _Waves:
    """The files seen so far, and which of them are completely written and not taken yet."""

    def __init__(self, folders: list[str], options: UpscaleOptions) -> None:
        self._folders, self._batch = folders, options.batch
        self._seen: dict[str, tuple[_Stamp, float]] = {}  # stamp, and the time when it was first seen
        self._taken: dict[str, _Stamp] = {}
        self._told: set[str] = set()
        self.unsettled = False
        """Whether a file may still be written."""

    def take(self) -> FoundInputs:
        """Return the inputs that are complete and new or changed, and the files that are newly left out."""
        found, now = find_inputs(self._folders, self._batch), monotonic()
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
        return replace(found, inputs=tuple(ready), left_out=left_out, many=True)

    def _forget_gone(self, found: FoundInputs) -> None:
        """Forget the files that are there no more: a watch may run for months, and files may come and go."""
        there = {file.key for file in found.inputs}
        for known in (self._seen, self._taken):
            for key in known.keys() - there:
                del known[key]
        # A watched folder that is empty again and again is told of once.
        self._told &= {*(each.name for each in found.left_out), *self._folders}


def _stamp(file: InputFile) -> _Stamp | None:
    """Return size and time of change; None for a file that has gone."""
    with suppress(OSError):
        status = Path(str(file.source)).stat()
        return status.st_size, status.st_mtime_ns
    return None


def _age(stamp: _Stamp) -> float:
    """Return the seconds since the last change, at least 0: clocks of other machines may be ahead."""
    return max(0.0, time() - stamp[1] / 1e9)
