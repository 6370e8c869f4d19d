"""One device's share of a batch: a thread that decodes, one for the network and one that encodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from dsclora_cli.imaging.picture import AnyFrame, BandedFrame, Frame
from dsclora_cli.imaging.reader import PictureReader, open_picture
from dsclora_cli.imaging.writer import fit_format
from dsclora_cli.tasks.channel import Channel, ClosedError, Worker
from dsclora_cli.tasks.footprint import budget
from dsclora_cli.tasks.results import FileResult
from dsclora_cli.tasks.saving import save_result
from dsclora_cli.tasks.shared import Ended, Shared
from dsclora_cli.tasks.sizes import AlreadyLargeEnough
from dsclora_cli.tasks.source import Input
from dsclora_cli.tasks.stages import FILE_ERRORS, NETWORK_ERRORS, Incoming, Pictures, Work, described, send

if TYPE_CHECKING:
    from dsclora_cli.tasks.upscale import PictureEngine

T = TypeVar("T")

_AHEAD = 4
"""Pictures that a line decodes ahead of its network at most, so that no other line is left without."""


class Line:
    """Takes pictures from a batch until there are none, with one engine, opened when a picture first needs it."""

    def __init__(self, shared: Shared, open_engine: Callable[[], PictureEngine]) -> None:
        self._shared, self._open_engine = shared, open_engine
        self._save = shared.options.save
        self._budget = budget(shared.options.max_memory)
        self._decoded: Pictures = Channel(self._budget)
        self._upscaled: Pictures = Channel(self._budget)
        self._workers = [
            Worker("decode", self._read_all),
            Worker("network", self._upscale_all),
            Worker("encode", self._write_all),
        ]

    def start(self) -> None:
        """Begin."""
        for worker in self._workers:
            worker.start()

    def wait(self) -> None:
        """Wait for its end, and raise what ended it early."""
        for worker in reversed(self._workers):
            worker.wait()

    def stop(self) -> None:
        """Take in no more, and finish the pictures that the writer has whole.

        Nobody waits for the reader: in the middle of a file or a download, it leaves nothing half-done behind.
        """
        self._decoded.abort()
        self._upscaled.close()
        _, network, writer = self._workers
        try:
            writer.rest()
            network.rest()
        except KeyboardInterrupt:
            self._upscaled.abort()
            writer.rest()
            raise

    def _read_all(self) -> None:
        try:
            while self._read():
                pass
        finally:
            self._decoded.close()

    def _read(self) -> bool:
        """Decode the next picture; False where there is none."""
        with ExitStack() as files:
            with self._shared.order:
                source = self._shared.next_input()
                if source is None:
                    return False
                planned = self._plan(source, files)
            if planned is not None:
                with self._telling(source):
                    self._decode(*planned)
        return True

    def _plan(self, source: Input, files: ExitStack) -> tuple[PictureReader, Work] | None:
        """The picture, opened and to be closed with `files`, and what is made of it; None where that is impossible."""
        started = perf_counter()
        with self._telling(source):
            if source.problem:
                raise source.problem
            picture = files.enter_context(open_picture(source.source))
            job = self._shared.planner.job(source, picture.header)
            return picture, Work(job, decode=perf_counter() - started)
        return None

    def _decode(self, picture: PictureReader, work: Work) -> None:
        settled = self._shared.planner.settled(work.job)
        if settled:
            self._shared.tell(settled)
            return
        frames = _timed_frames(islice(picture.frames(), work.job.frames), work.add_decoding)
        # Most broken files break here, before a network is loaded for them.
        send(self._decoded, work, chain([next(frames)], frames), self._budget // _AHEAD)

    @contextmanager
    def _telling(self, source: Input) -> Iterator[None]:
        """What concerns one picture alone is told as its result."""
        try:
            yield
        except AlreadyLargeEnough as error:
            self._shared.tell(FileResult(source.name, "skipped", warnings=(error.message,)))
        except FILE_ERRORS as error:
            message, hint = described(error)
            self._shared.tell(FileResult(source.name, "failed", error=message, hint=hint))

    def _upscale_all(self) -> None:
        try:
            while not self._shared.broken:
                work = self._decoded.get()
                assert isinstance(work, Work)
                self._upscale(work)
        finally:
            self._decoded.abort()
            self._upscaled.close()

    def _upscale(self, work: Work) -> None:
        with Incoming(self._decoded) as frames:
            try:
                engine = self._open_engine()
                work.plan = engine.plan(work.job.header, work.job.banded)
            except NETWORK_ERRORS as error:
                self._fail(work, error)
                return
            notes = work.plan.info.notes
            work.warnings.extend(notes)
            self._shared.note(notes)
            self._shared.told.put(lambda observer: observer.on_start(work.job))
            made = (self._network(engine, work, frame, index) for index, frame in enumerate(frames))
            send(self._upscaled, work, made)

    def _network(self, engine: PictureEngine, work: Work, frame: AnyFrame, index: int) -> BandedFrame:
        def on_progress(share: float) -> None:
            done = (index + share) / work.job.frames
            self._shared.told.put(lambda observer: observer.on_progress(work.job, done))

        assert work.plan is not None
        banded = engine.banded(frame, work.plan, on_progress, work.warnings.append)
        return BandedFrame(banded.shape, _timed(banded.bands(), work.add_network), banded.duration_ms)

    def _write_all(self) -> None:
        try:
            while True:
                work = self._upscaled.get()
                assert isinstance(work, Work)
                self._write(work)
        finally:
            self._upscaled.close()
            self._shared.told.put(Ended(self.wait))

    def _write(self, work: Work) -> None:
        assert work.plan is not None
        job, started = work.job, perf_counter()
        with suppress(ClosedError), Incoming(self._upscaled) as frames:
            try:
                header, _ = fit_format(work.plan.header, job.format, self._save.strict)
                recipe = replace(job.recipe, weights_sha256=work.plan.info.weights_sha256)
                work.warnings.extend(save_result(job.target, header, frames, self._save, recipe))
            except FILE_ERRORS as error:
                work.abandoned = True
                self._fail(work, error)
                return
            work.encode = perf_counter() - started - frames.waited
            self._shared.tell(work.result("done"))
            return
        self._shared.tell(work.result("interrupted"))

    def _fail(self, work: Work, error: Exception) -> None:
        self._shared.broken = self._shared.options.batch.fail_fast
        self._shared.tell(work.result("failed", error))


def _timed_frames(frames: Iterator[AnyFrame], on_time: Callable[[float], None]) -> Iterator[AnyFrame]:
    """The frames; `on_time` hears how long each of them and of their bands took to make."""
    for frame in _timed(frames, on_time):
        if isinstance(frame, Frame):
            yield frame
        else:
            yield BandedFrame(frame.shape, _timed(frame.bands(), on_time), frame.duration_ms)


def _timed(items: Iterator[T], on_time: Callable[[float], None]) -> Iterator[T]:
    """The items; `on_time` hears how many seconds each took to make."""
    while True:
        started = perf_counter()
        item = next(items, None)
        on_time(perf_counter() - started)
        if item is None:
            return
        yield item
