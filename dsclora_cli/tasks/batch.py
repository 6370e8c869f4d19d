"""Many pictures: decoding, network and encoding overlap, memory stays bounded, and one bad file stops nothing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from queue import SimpleQueue
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.imaging.picture import AnyFrame, BandedFrame, Frame
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.writer import fit_format
from dsclora_cli.tasks.channel import Channel, ClosedError, WaitedError, Worker
from dsclora_cli.tasks.footprint import budget
from dsclora_cli.tasks.inputs import find_inputs
from dsclora_cli.tasks.jobs import JobPlanner
from dsclora_cli.tasks.observer import Observer
from dsclora_cli.tasks.results import FileResult
from dsclora_cli.tasks.saving import save_result
from dsclora_cli.tasks.sizes import AlreadyLargeEnough
from dsclora_cli.tasks.source import Found, Input
from dsclora_cli.tasks.stages import FILE_ERRORS, NETWORK_ERRORS, Incoming, Pictures, Work, described, send

if TYPE_CHECKING:
    from dsclora_cli.tasks.upscale import PictureEngine

__all__ = ["FileResult", "Observer", "upscale_files"]

T = TypeVar("T")

_DEFAULTS = UpscaleOptions()


def upscale_files(
    inputs: Iterable[str | os.PathLike[str]],
    options: UpscaleOptions = _DEFAULTS,
    observer: Observer | None = None,
    *,
    engine: PictureEngine | None = None,
) -> Generator[FileResult, None, None]:
    """Upscale files, folders, globs and lists, as docs/files.md describes, yielding each result as it is finished.

    A picture that fails is a result with an `error`; the others are still done. `engine`, made with the same options,
    is used again where a caller has one. Raises UsageError and WeightsError, which concern every picture. On
    KeyboardInterrupt, and when the iterator is closed early, finished pictures are kept and nothing half-written is.
    """
    found = find_inputs(inputs, options.batch)
    return _Batch(found, options, observer or Observer(), engine).results()


class _Batch:
    """One run: a thread that decodes, this thread for the network, a thread that encodes."""

    def __init__(self, found: Found, options: UpscaleOptions, observer: Observer, engine: PictureEngine | None) -> None:
        self._found = found
        self._options = options
        self._observer = observer
        self._engine = engine
        self._planner = JobPlanner(found, options)
        self._decoded: Pictures = Channel(budget(options.max_memory))
        self._upscaled: Pictures = Channel(budget(options.max_memory))
        self._results: SimpleQueue[FileResult] = SimpleQueue()
        self._unseen: deque[FileResult] = deque()
        self._noted: set[str] = set()
        self._failed = False
        self._reader = Worker("decode", self._read_all)
        self._writer = Worker("encode", self._write_all)

    def results(self) -> Generator[FileResult, None, None]:
        """Run, yielding results; only once."""
        self._observer.on_found(self._found)
        self._note(self._found.notes)
        self._reader.start()
        self._writer.start()
        try:
            yield from self._drive()
        except KeyboardInterrupt:
            self._stop()
            yield from self._finished()
            raise
        finally:
            self._stop()
            self._collect()

    def _drive(self) -> Iterator[FileResult]:
        while not (self._failed and self._options.batch.fail_fast):
            yield from self._finished()
            try:
                work = self._decoded.get(patient=False)
                assert isinstance(work, Work)
                self._upscale(work)
            except WaitedError:
                continue
            except ClosedError:
                break
        self._stop()
        yield from self._finished()
        self._reader.wait()
        self._writer.wait()

    def _stop(self) -> None:
        """Take in no more, and let the writer finish the pictures it has whole.

        Nobody waits for the reader: in the middle of a file or a download, it leaves nothing half-done behind.
        """
        self._decoded.abort()
        self._upscaled.close()
        try:
            self._writer.rest()
        except KeyboardInterrupt:
            self._upscaled.abort()
            self._writer.rest()
            raise

    def _finished(self) -> Iterator[FileResult]:
        self._collect()
        while self._unseen:
            yield self._unseen.popleft()

    def _collect(self) -> None:
        while not self._results.empty():
            result = self._results.get()
            self._unseen.append(result)
            self._observer.on_done(result)

    def _note(self, notes: Iterable[str]) -> None:
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                self._observer.on_note(note)

    def _read_all(self) -> None:
        try:
            for source in self._found.inputs:
                if not self._read(source) and self._options.batch.fail_fast:
                    break
        finally:
            self._decoded.close()

    def _read(self, source: Input) -> bool:
        """Decode one picture; False where that is impossible."""
        started = perf_counter()
        try:
            if source.problem:
                raise source.problem
            with open_picture(source.source) as picture:
                job = self._planner.job(source, picture.header)
                settled = self._planner.settled(job)
                if settled:
                    self._results.put(settled)
                    return True
                work = Work(job, decode=perf_counter() - started)
                frames = _timed(islice(picture.frames(), job.frames), work.add_decoding)
                # Most broken files break here, before a network is loaded for them.
                send(self._decoded, work, chain([next(frames)], frames))
        except AlreadyLargeEnough as error:
            self._results.put(FileResult(source.name, "skipped", warnings=(error.message,)))
        except FILE_ERRORS as error:
            message, hint = described(error)
            self._results.put(FileResult(source.name, "failed", error=message, hint=hint))
            return False
        return True

    def _upscale(self, work: Work) -> None:
        with Incoming(self._decoded) as frames:
            try:
                plan = self._open_engine().plan(work.job.header, work.job.banded)
            except NETWORK_ERRORS as error:
                self._fail(work, error)
                return
            work.plan = plan
            work.warnings.extend(plan.info.notes)
            self._note(plan.info.notes)
            self._observer.on_start(work.job)
            send(self._upscaled, work, (self._network(work, frame, index) for index, frame in enumerate(frames)))

    def _network(self, work: Work, frame: AnyFrame, index: int) -> BandedFrame:
        def on_progress(share: float) -> None:
            self._collect()
            self._observer.on_progress((index + share) / work.job.frames)

        assert work.plan is not None and isinstance(frame, Frame)  # decoders give no bands
        banded = self._open_engine().banded(frame, work.plan, on_progress, work.warnings.append)
        return BandedFrame(banded.shape, _timed(banded.bands(), work.add_network), banded.duration_ms)

    def _open_engine(self) -> PictureEngine:
        """The engine, and with it torch, only once there is something to upscale."""
        if self._engine is None:
            from dsclora_cli.tasks.upscale import PictureEngine

            self._engine = PictureEngine(self._options, self._planner.weights)
        return self._engine

    def _write_all(self) -> None:
        try:
            while True:
                work = self._upscaled.get()
                assert isinstance(work, Work)
                self._write(work)
        finally:
            self._upscaled.close()

    def _write(self, work: Work) -> None:
        assert work.plan is not None
        job, save, started = work.job, self._options.save, perf_counter()
        with suppress(ClosedError), Incoming(self._upscaled) as frames:
            try:
                header, _ = fit_format(work.plan.header, job.format, save.strict)
                recipe = replace(job.recipe, weights_sha256=work.plan.info.weights_sha256)
                work.warnings.extend(save_result(job.target, header, frames, save, recipe))
            except FILE_ERRORS as error:
                work.abandoned = True
                self._fail(work, error)
                return
            work.encode = perf_counter() - started - frames.waited
            self._results.put(work.result("done"))
            return
        self._results.put(work.result("interrupted"))

    def _fail(self, work: Work, error: Exception) -> None:
        self._failed = True
        self._results.put(work.result("failed", error))


def _timed(items: Iterator[T], on_time: Callable[[float], None]) -> Iterator[T]:
    """The items; `on_time` hears how many seconds each took to make."""
    while True:
        started = perf_counter()
        item = next(items, None)
        on_time(perf_counter() - started)
        if item is None:
            return
        yield item
