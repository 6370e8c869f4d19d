"""Upscale many pictures: `upscale_files` starts a pipeline per device and yields results.

Decoding, network and encoding overlap, memory stays bounded, and a broken file does not stop the other files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from queue import Empty
from typing import TYPE_CHECKING

from dsclora_cli.checked import check_argument
from dsclora_cli.config import UpscaleOptions
from dsclora_cli.host import return_freed_memory
from dsclora_cli.upscaling.bounded_queue import POLL_SECONDS
from dsclora_cli.upscaling.engines import list_devices
from dsclora_cli.upscaling.inputs import find_inputs
from dsclora_cli.upscaling.jobs import WeightsFinder
from dsclora_cli.upscaling.pipeline import BatchState, DevicePipeline, Event
from dsclora_cli.upscaling.types import RUN_ERRORS, Argument, FileResult, FoundInputs, UpscaleCallbacks, check_stop
from dsclora_cli.weights.resolve import find_weights

if TYPE_CHECKING:
    from dsclora_cli.upscaling.picture import PictureUpscaler

__all__ = ["FileResult", "UpscaleCallbacks", "upscale_files"]

_DEFAULTS = UpscaleOptions()


def upscale_files(
    inputs: Argument | Iterable[Argument],
    options: UpscaleOptions = _DEFAULTS,
    callbacks: UpscaleCallbacks | None = None,
    *,
    upscaler: PictureUpscaler | None = None,
) -> Generator[FileResult, None, None]:
    """Upscale files, folders, globs and lists; docs/files.md describes the inputs.

    With several devices, a device takes the next picture when the device is free.

    Args:
        inputs: one or several paths, globs, URLs, `@list.txt`, or `-` for standard input.
        options: all options of `dsclora upscale`.
        callbacks: called in the iterating thread.
        upscaler: an open PictureUpscaler with the same options, to be used instead of a new one.

    Yields:
        One result per input, when the input is finished. The result of a failed picture has an `error`. The files that
        are left out come first, and inputs that the run has not reached come last, also before a KeyboardInterrupt, a
        UsageError and a WeightsError. Any other exception, such as one of a callback, ends the results at once.
        On KeyboardInterrupt, also where `callbacks.stop_requests` causes it, the pictures that wait for the encoder
        are finished. On an early close of the iterator, finished pictures stay; a half-written file never remains.

    Raises:
        UsageError: contradicting options, or options in conflict with the inputs.
        WeightsError: weights cannot be read or downloaded.
    """
    options = check_argument("options", options, UpscaleOptions)
    return BatchRun(find_inputs(inputs, options.batch), options, callbacks or UpscaleCallbacks(), upscaler).results()


class BatchRun:
    """One run over all inputs: the pipelines, and the thread of the caller, where callbacks are called."""

    def __init__(
        self,
        found: FoundInputs,
        options: UpscaleOptions,
        callbacks: UpscaleCallbacks,
        upscaler: PictureUpscaler | None,
        find: WeightsFinder = find_weights,
    ) -> None:
        self._found, self._callbacks = found, callbacks
        self._state = BatchState(found, options, find)
        devices = list_devices(options.engine)
        # All devices share the memory of the host.
        memory = options.max_memory and options.max_memory // len(devices)
        self._pipelines = [
            DevicePipeline(
                self._state,
                replace(options, engine=replace(options.engine, device=device), max_memory=memory),
                upscaler,
            )
            for device in devices
        ]
        self._ended: list[DevicePipeline] = []
        self._reported: Counter[str] = Counter()
        """Results yielded so far, by name of the input."""

    def results(self) -> Generator[FileResult, None, None]:
        """Run once, and yield a result for every file seen, however the run ends."""
        # Not a generator, which an exception in the middle would end: the rest is yielded below.
        left_out = iter([FileResult(each.name, "left-out", warnings=(each.reason,)) for each in self._found.left_out])
        try:
            check_stop(self._callbacks)
            self._callbacks.on_inputs(self._found)
            for note in self._found.notes:
                self._callbacks.note_once(note)
            yield from left_out
            check_stop(self._callbacks)
            yield from self._run()
        except (KeyboardInterrupt, *RUN_ERRORS):
            # Pictures that wait for the encoder are finished first, and reported. One more request gives them up.
            with suppress(KeyboardInterrupt):
                self.stop(lambda: self._callbacks.stop_requests() > 1)
            yield from left_out
            yield from self._take_waiting()
            yield from self._not_reached()
            raise
        finally:
            try:
                self.stop()
            finally:  # after Ctrl-C during the stop too
                self._state.end()
            # An event that nobody takes any more, of a run that was given up, would hold its pipeline in a circle.
            with suppress(Empty):
                while True:
                    self._state.events.get_nowait()
            return_freed_memory()
        yield from self._not_reached()

    def _run(self) -> Iterator[FileResult]:
        """Start the pipelines, and yield results until all have ended.

        Raises the error of a pipeline, and KeyboardInterrupt where the callbacks request a stop.
        """
        running = len(self._pipelines)
        for pipeline in self._pipelines:
            pipeline.start()
        while running:
            # Without a timeout, Ctrl-C would not end the wait on Windows.
            with suppress(Empty):
                yield from self._take(self._state.events.get(timeout=POLL_SECONDS))
            # After each event: where the caller is slower than the pipelines, events always wait.
            check_stop(self._callbacks)
            while self._ended:
                running -= 1
                self._ended.pop().wait(lambda: check_stop(self._callbacks))
        # With `fail_fast`, a picture may fail in the decoder after the encoder has ended.
        yield from self._take_waiting()

    def _not_reached(self) -> Iterator[FileResult]:
        """Yield the inputs without a result: behind the first failure with `fail_fast`, or behind an interrupt."""
        for file in self._found.inputs:
            if not self._reported[file.name]:
                yield FileResult(file.name, "not-reached")
            self._reported[file.name] -= 1

    def _take_waiting(self) -> Iterator[FileResult]:
        """Call the waiting callbacks, and yield the waiting results."""
        with suppress(Empty):
            while True:
                yield from self._take(self._state.events.get_nowait())

    def _take(self, event: FileResult | Event | DevicePipeline) -> Iterator[FileResult]:
        """Yield a result, or call a callback."""
        if isinstance(event, FileResult):
            self._reported[event.input] += 1
            yield event
        elif isinstance(event, DevicePipeline):
            self._ended.append(event)
        else:
            event(self._callbacks)

    def stop(self, is_given_up: Callable[[], bool] = lambda: False) -> None:
        """End the run early, from any thread: pictures that wait for the encoder are finished, others not begun.

        When `is_given_up`, asked several times a second, returns True, the pictures that wait are given up as well.
        """
        for pipeline in self._pipelines:
            pipeline.stop(is_given_up)
