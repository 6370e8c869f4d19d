"""Many pictures: decoding, network and encoding overlap, memory stays bounded, and one bad file stops nothing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from queue import Empty
from typing import TYPE_CHECKING

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.upscaling.bounded_queue import POLL_SECONDS
from dsclora_cli.upscaling.engines import list_devices
from dsclora_cli.upscaling.inputs import find_inputs
from dsclora_cli.upscaling.jobs import WeightsFinder
from dsclora_cli.upscaling.pipeline import Ended, Event, Line, Shared
from dsclora_cli.upscaling.types import FileResult, FoundInputs, Observer

if TYPE_CHECKING:
    from dsclora_cli.upscaling.picture import PictureUpscaler

__all__ = ["FileResult", "Observer", "upscale_files"]

_DEFAULTS = UpscaleOptions()


def upscale_files(
    inputs: Iterable[str | os.PathLike[str]],
    options: UpscaleOptions = _DEFAULTS,
    observer: Observer | None = None,
    *,
    engine: PictureUpscaler | None = None,
) -> Generator[FileResult, None, None]:
    """Upscale files, folders, globs and lists, as docs/files.md describes, yielding each result as it is finished.

    With several devices each takes the next picture as soon as it can. A picture that fails is a result with an
    `error`; the others are still done. `engine`, made with the same options, is used again where a caller has one.
    Raises UsageError and WeightsError, which concern every picture. On KeyboardInterrupt, and when the iterator is
    closed early, finished pictures are kept and nothing half-written is.
    """
    return _Batch(find_inputs(inputs, options.batch), options, observer or Observer(), engine).results()


class _Batch:
    """One run: a line for each device, and this thread, in which the caller hears of what they do."""

    def __init__(
        self, found: FoundInputs, options: UpscaleOptions, observer: Observer, engine: PictureUpscaler | None
    ) -> None:
        self._found, self._observer = found, observer
        devices = list_devices(options.engine)
        options = _share(options, len(devices))
        self._shared = Shared(found, options)
        self._lines = [
            Line(self._shared, (lambda: engine) if engine else _opener(options, device, self._shared.planner.weights))
            for device in devices
        ]
        self._running = len(self._lines)
        self._ended: list[Ended] = []
        self._unseen: deque[FileResult] = deque()

    def results(self) -> Generator[FileResult, None, None]:
        """Run, yielding results; only once."""
        self._observer.on_found(self._found)
        self._shared.note(self._found.notes)
        try:
            for line in self._lines:
                line.start()
            while self._running:
                self._listen()
                yield from self._finished()
        except KeyboardInterrupt:
            self._stop()
            yield from self._finished()
            raise
        finally:
            self._stop()
            self._hear_rest()

    def _listen(self) -> None:
        """Hear what there is, or wait for it. Raises what ended a line early."""
        with suppress(Empty):
            self._hear(self._shared.told.get(timeout=POLL_SECONDS))
        self._hear_rest()
        while self._ended:
            self._running -= 1
            self._ended.pop().wait()

    def _hear_rest(self) -> None:
        while not self._shared.told.empty():
            self._hear(self._shared.told.get())

    def _hear(self, told: FileResult | Event | Ended) -> None:
        if isinstance(told, FileResult):
            self._unseen.append(told)
            self._observer.on_done(told)
        elif isinstance(told, Ended):
            self._ended.append(told)
        else:
            told(self._observer)

    def _finished(self) -> Iterator[FileResult]:
        self._hear_rest()
        while self._unseen:
            yield self._unseen.popleft()

    def _stop(self) -> None:
        for line in self._lines:
            line.stop()


def _share(options: UpscaleOptions, devices: int) -> UpscaleOptions:
    """The options of each of so many devices: what memory there may be is shared out."""
    return replace(options, max_memory=options.max_memory // devices) if options.max_memory else options


def _opener(options: UpscaleOptions, device: str, find: WeightsFinder) -> Callable[[], PictureUpscaler]:
    """What opens the engine of a device, once."""
    return cache(partial(_open, replace(options, engine=replace(options.engine, device=device)), find))


def _open(options: UpscaleOptions, find: WeightsFinder) -> PictureUpscaler:
    """An engine, and with it torch where that is needed."""
    from dsclora_cli.upscaling.picture import PictureUpscaler

    return PictureUpscaler(options, find)
