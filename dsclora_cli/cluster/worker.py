"""Upscale the files of a task with the functions of a local run, in a process of Ray on a machine of a cluster."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from threading import Lock
from time import monotonic, perf_counter

from dsclora_cli import __version__
from dsclora_cli.cluster.listing import FileGroup
from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import DscloraError
from dsclora_cli.upscaling.batch import BatchRun
from dsclora_cli.upscaling.inputs import find_listed
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.upscaling.types import FileResult, FoundInputs, InputFile, LeftOut, UpscaleCallbacks
from dsclora_cli.weights.resolve import find_weights


@dataclass(frozen=True)
class WorkerFacts:
    """Machine and version of a worker."""

    host: str
    version: str
    """Version of dsclora."""


@dataclass(frozen=True)
class TaskReport:
    """Results and notes of a worker for the files of a task."""

    results: tuple[FileResult, ...]
    """A result for each file."""
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    """Sentences about the whole run."""
    seconds: float
    error: DscloraError | None = None
    """Error that concerns all pictures, such as missing weights."""


class UpscaleWorker:
    """Worker of a cluster; opens the engine once.

    Two threads of Ray call the methods: a thread calls `upscale` for one task after another, and another thread calls
    `stop` and `idle_seconds` meanwhile.

    Args:
        options: all options of the run, with absolute paths.
        state: folder of records of results and of claims; None for the folder of the machine's user.
    """

    def __init__(self, options: UpscaleOptions, state: str | None) -> None:
        if state is not None:
            os.environ["DSCLORA_STATE_DIR"] = state
        self._options = options
        self._upscaler: PictureUpscaler | None = None
        # Without internet, asking the Hub takes seconds, so once in the life of the worker.
        self._find = cache(find_weights)
        self._lock = Lock()
        """Lock around the two fields below."""
        self._run: BatchRun | None = None
        self._is_stopped = False
        self._moved = monotonic()
        """Time of the last step forward; written by the thread of the task, and read by the other thread."""

    def describe(self) -> WorkerFacts:
        """Return machine and version; the call also tells the driver that the worker has started."""
        return WorkerFacts(platform.node(), __version__)

    def upscale(self, files: FileGroup) -> TaskReport:
        """Upscale files. Whatever happens becomes a part of the report, except the end of the process."""
        self._move()
        started, notes = perf_counter(), _TaskCallbacks(self._move)
        found, results, failure = FoundInputs((), many=True), list[FileResult](), None
        try:
            found = find_listed(files, self._options.batch)
            for result in self._start(found, notes).results():
                results.append(result)
                self._move()
        except DscloraError as error:  # as on one machine, such as results in a bucket that does not exist
            failure = error
        finally:
            with self._lock:
                self._run = None
        seconds = perf_counter() - started
        return TaskReport(tuple(results), found.left_out, tuple(dict.fromkeys(notes.notes)), seconds, failure)

    def _start(self, found: FoundInputs, callbacks: UpscaleCallbacks) -> BatchRun:
        """Return a run over the inputs; `stop` can end the run."""
        self._upscaler = self._upscaler or PictureUpscaler(self._options)
        run = BatchRun(found, self._options, callbacks, self._upscaler, self._find)
        with self._lock:
            self._run = run
            if self._is_stopped:
                run.stop()
        return run

    def _move(self) -> None:
        self._moved = monotonic()

    def idle_seconds(self) -> float:
        """Return the time since the last step forward: a task has begun, or a tile or a picture was finished."""
        return monotonic() - self._moved

    def stop(self) -> None:
        """Finish the pictures behind the network, and begin no others."""
        with self._lock:
            self._is_stopped = True
            run = self._run
        if run is not None:
            with suppress(RuntimeError):  # threads that are just being started
                run.stop()


class _TaskCallbacks(UpscaleCallbacks):
    """Callbacks of a task: keep the notes for the driver, and call `on_step` for every tile.

    Args:
        on_step: called for every step forward.
    """

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step
        self.notes: list[str] = []

    def on_start(self, file: InputFile) -> None:  # noqa: ARG002 - as in the base class
        """Count the start of a picture as a step: opening the engine and decoding are over."""
        self._on_step()

    def on_progress(self, file: InputFile, share: float) -> None:  # noqa: ARG002
        """Count a finished tile as a step."""
        self._on_step()

    def on_note(self, note: str) -> None:
        """Keep the note."""
        self.notes.append(note)
