"""Decode, upscale and encode pictures at the same time: the threads of a device.

`batch.py` starts a `DevicePipeline` per device; `picture.py` does the work of the network thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import ErrorCode
from dsclora_cli.imaging.reader import PictureReader
from dsclora_cli.imaging.types import AnyFrame, Frame, Pixels, StreamedFrame
from dsclora_cli.imaging.writer import can_stream
from dsclora_cli.paths import remove_abandoned_files
from dsclora_cli.storage.places import Place, RemotePlace
from dsclora_cli.upscaling.bounded_queue import BoundedQueue, ByteBudget, CancelledError, ClosedError, Worker
from dsclora_cli.upscaling.faithfulness import FaithfulnessMeter
from dsclora_cli.upscaling.inputs import open_input
from dsclora_cli.upscaling.jobs import Job, JobPlanner, WeightsFinder
from dsclora_cli.upscaling.manifest import ResultClaim, save_result
from dsclora_cli.upscaling.memory import pixel_budget
from dsclora_cli.upscaling.sizes import AlreadyLargeEnough
from dsclora_cli.upscaling.types import (
    RUN_ERRORS,
    FileResult,
    FileStatus,
    FoundInputs,
    InputFile,
    StageSeconds,
    Stopwatch,
    UpscaleCallbacks,
    describe_error,
)

if TYPE_CHECKING:
    from dsclora_cli.upscaling.picture import PicturePlan, PictureUpscaler

T = TypeVar("T", AnyFrame, Pixels)

_AHEAD = 3
"""Largest number of pictures waiting before a stage. More would leave nothing for another device to do."""

Event = Callable[[UpscaleCallbacks], None]
"""Call of a callback, made in the thread of the caller."""


class DevicePipeline:
    """Decode, network and encode threads, for the pictures of a batch on a device.

    Rules of ownership, for all threads and objects of the module:

    - Inputs and jobs: a decode thread holds `BatchState.planning` while taking an input and planning the job, so the
      decode threads of several devices do both in turns. The lock covers both steps because an output name depends on
      the names given before. Names are therefore numbered in input order, however many devices there are. `JobPlanner`
      has no other lock.
    - `PictureInFlight`: a picture passes from stage to stage. The decode thread makes the object and fills `decoded`;
      the network thread sets `plan`, adds warnings and fills `upscaled`; the encode thread reports the result. A
      thread only works on the stopwatch of the own stage. Any thread may call `cancel`.
    - `BoundedQueue` and `ByteBudget`: only these two may be changed by two threads at the same time. The lock of the
      budget protects both. A queue has a single thread for `put` and a single thread for reading.
    - Engine: belongs to the network thread. The thread opens the engine for the first picture to be upscaled, so a run
      with nothing to do never loads torch.
    - Claims on results: a decode thread claims, and the thread that ends the work on a picture releases. `BatchRun`
      releases what is left at the end of the run, whoever holds the picture.
    - `BatchState.accepting` and `BatchState.upscaling`: any thread may change True to False, never back. The other
      threads may see the change a picture later.
    - Callbacks and results: pass through `BatchState.events`. Only the thread of the caller reads the events.
    """

    def __init__(self, state: BatchState, options: UpscaleOptions, upscaler: PictureUpscaler | None = None) -> None:
        self._state = state
        self._options = options
        self._upscaler = upscaler
        limit = pixel_budget(options.max_memory)
        self._before_network = ByteBudget(limit)
        self._after_network = ByteBudget(limit)
        self._decoded: BoundedQueue[PictureInFlight] = BoundedQueue(self._before_network, _AHEAD)
        self._upscaled: BoundedQueue[PictureInFlight] = BoundedQueue(self._after_network, _AHEAD)
        self._decode_thread = Worker("decode", self._decode_all)
        self._network_thread = Worker("network", self._upscale_all)
        self._encode_thread = Worker("encode", self._encode_all)

    def start(self) -> None:
        """Start the threads."""
        for thread in (self._decode_thread, self._network_thread, self._encode_thread):
            thread.start()

    def wait(self, while_waiting: Callable[[], None]) -> None:
        """Wait until the threads have ended, and raise the error of a thread.

        Args:
            while_waiting: called several times a second: after a failure with `fail_fast`, a download may still hang.
        """
        for thread in (self._encode_thread, self._network_thread, self._decode_thread):
            thread.wait(while_waiting)

    def stop(self, is_given_up: Callable[[], bool] = lambda: False) -> None:
        """Take no more pictures, and finish the pictures with all upscaled pixels waiting for the encoder.

        The decode thread is not waited for: in the middle of a file or a download, the thread leaves nothing half-done.

        Args:
            is_given_up: asked several times a second; True gives up the pictures that wait for the encoder as well.
        """
        # Closed queues do not end a thread that finds broken or finished pictures only, and puts none of them.
        self._state.accepting = False
        self._before_network.abort()
        self._after_network.close()

        def give_up_if_asked() -> None:
            if is_given_up():
                self._after_network.abort()

        try:
            self._encode_thread.rest(give_up_if_asked)
            self._network_thread.rest(give_up_if_asked)
        except KeyboardInterrupt:
            # Ctrl-C where nobody counts requests to stop.
            self._after_network.abort()
            self._encode_thread.rest()
            raise

    def _decode_all(self) -> None:
        try:
            while self._decode_next():
                pass
        finally:
            # After a bug as well: the network thread must not wait for frames that never come.
            self._before_network.close()

    def _decode_next(self) -> bool:
        """Plan and decode the next input; return False where no input is left."""
        file = None
        try:
            with ExitStack() as opened:
                with self._state.planning:
                    file = next(self._state.inputs, None) if self._state.accepting else None
                    if file is None:
                        return False
                    if file.problem:
                        raise file.problem
                    watch = Stopwatch()
                    watch.switch(is_work=True)  # with the lock held: waiting for another device is not decoding
                    if known := self._state.planner.find_done(file):
                        self._state.report(known)
                        return True
                    copied, reader = open_input(file, self._options.read, not self._options.wrap, opened)
                    job = self._state.planner.plan(copied, reader.header)
                    watch.switch(is_work=False)
                picture = PictureInFlight(job, BoundedQueue(self._before_network), BoundedQueue(self._after_network))
                picture.watches["decode"] = watch
                self._decode(reader, picture)
        except AlreadyLargeEnough as error:
            assert file is not None
            self._state.report(FileResult(file.name, "skipped", warnings=(error.message,)))
        except (*RUN_ERRORS, ClosedError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a picture raises ends the work on that picture only
            assert file is not None
            self._state.report_failure(file, FileResult(file.name, "failed", error=describe_error(error)), error)
        return True

    def _decode(self, reader: PictureReader, picture: PictureInFlight) -> None:
        # For a place at a URL, each look costs a request, and the look under the claim is enough.
        if not isinstance(picture.job.target, RemotePlace) and self._report_existing(picture):
            return
        if picture.job.target is not None:
            picture.claim = self._state.claim(picture.job.target)
            if not picture.claim.taken:
                picture.warnings.append("another process or thread is upscaling this picture; call or run again later")
                self._state.report(picture.report("skipped"))
                return
            # Once more: another process may have finished the result just before.
            if self._report_existing(picture):
                return
        frames = _timed(_noted(reader, picture), picture.watches["decode"])
        # Most broken files fail at the first frame: before the picture waits, and before a network is loaded.
        try:
            all_frames = chain([next(frames)], frames)
        except BaseException:
            picture.release()
            raise
        self._decoded.put(picture)
        _send(all_frames, picture.decoded)

    def _report_existing(self, picture: PictureInFlight) -> bool:
        """Report the result of a picture that exists already; return whether there is such a result."""
        existing = self._state.planner.existing_result(picture.job)
        if existing is None:
            return False
        # A process that was killed while it wrote may have been followed by another one, which made the result.
        if isinstance(picture.job.target, Path):
            remove_abandoned_files(picture.job.target.parent)
        picture.release()
        self._state.report(existing)
        return True

    def _upscale_all(self) -> None:
        try:
            for picture in self._decoded:
                if not self._state.upscaling:
                    break
                self._upscale(picture)
        finally:
            # After a bug as well: the other two threads must not wait for the network thread.
            self._before_network.abort()
            self._after_network.close()

    def _upscale(self, picture: PictureInFlight) -> None:
        # Imports torch where the engine needs torch, so not before a picture comes this far.
        from dsclora_cli.upscaling.picture import PictureUpscaler

        state, job = self._state, picture.job
        try:
            if self._upscaler is None:
                self._upscaler = PictureUpscaler(self._options)
            picture.plan = self._upscaler.plan(job, can_stream(job.result))
            # The values of floating-point pictures have no fixed range, so no decibels.
            if self._options.measure and job.source.dtype.kind == "u":
                picture.meter = FaithfulnessMeter()
        except RUN_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - as in `_decode_next`
            self._fail(picture, error)
            return
        for note in job.notes:
            picture.warnings.append(note)
            state.events.put(partial(UpscaleCallbacks.note_once, note=note))
        state.events.put(lambda callbacks: callbacks.on_start(job.file))
        # The encoder starts with the first band, while the network works on the next one.
        self._upscaled.put(picture)
        # Time in the network is time spent on making frames, without the time spent on waiting for decoded frames.
        decoded = _timed(picture.decoded, picture.watches["network"], is_work=False)
        frames = self._upscale_frames(self._upscaler, picture, picture.plan, decoded)
        _send(_timed(frames, picture.watches["network"]), picture.upscaled)
        # After an error of the network, the frames that still come are of no use.
        picture.decoded.cancel()

    def _upscale_frames(
        self, upscaler: PictureUpscaler, picture: PictureInFlight, plan: PicturePlan, frames: Iterator[AnyFrame]
    ) -> Iterator[AnyFrame]:
        job = picture.job
        for index, frame in enumerate(frames):

            def on_progress(share: float, index: int = index) -> None:
                done = (index + share) / job.result.frames
                self._state.events.put(lambda callbacks: callbacks.on_progress(job.file, done))
                # After a stop, the encoder takes no more bands: the other tiles of the band would be for nothing.
                if self._after_network.closed:
                    raise ClosedError

            upscale = partial(upscaler.upscale, plan=plan, on_progress=on_progress, on_warning=picture.warnings.append)
            yield picture.meter.upscale(frame, upscale) if picture.meter else upscale(frame)
            del frame  # else the pixels would stay in memory while the next frame is decoded

    def _encode_all(self) -> None:
        try:
            for picture in self._upscaled:
                self._encode(picture)
        finally:
            self._after_network.close()
            self._state.events.put(self)

    def _encode(self, picture: PictureInFlight) -> None:
        try:
            picture.warnings.extend(self._save(picture))
        except ClosedError:
            # The run was stopped before the last band; the hidden file is gone.
            picture.release()
            self._state.report(picture.report("interrupted"))
        except RUN_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - as in `_decode_next`
            self._fail(picture, error)
        else:
            picture.release()
            self._state.report(picture.report("done"))
        finally:
            # The last band still counts as in use where the encoder did not ask for another band.
            picture.cancel()

    def _save(self, picture: PictureInFlight) -> tuple[str, ...]:
        """Write the result, and return the warnings. Raises as `save_result` does."""
        job, watch = picture.job, picture.watches["encode"]
        frames = _timed(picture.upscaled, watch, is_work=False)
        watch.switch(is_work=True)
        try:
            return save_result(job.target, job.result, frames, self._options.save, job.key, job.source_facts)
        finally:
            watch.switch(is_work=False)

    def _fail(self, picture: PictureInFlight, error: Exception) -> None:
        """Report an error of the network or of the encoder, and stop all other work on the picture."""
        picture.cancel()
        if self._options.batch.fail_fast:
            self._state.upscaling = False
        self._state.report_failure(picture.job.file, picture.report("failed", error), error)


@dataclass
class PictureInFlight:
    """Picture between the stages; `DevicePipeline` documents the ownership of the fields."""

    job: Job
    decoded: BoundedQueue[AnyFrame]
    """Frames from the decode thread to the network thread."""
    upscaled: BoundedQueue[AnyFrame]
    """Frames from the network thread to the encode thread."""
    claim: ResultClaim | None = None
    """None until the decode thread has found no result, and for standard output."""
    plan: PicturePlan | None = None
    """None until the network starts."""
    meter: FaithfulnessMeter | None = None
    """None until the network starts, and where nothing is measured."""
    warnings: list[str] = field(default_factory=list)
    watches: dict[str, Stopwatch] = field(
        default_factory=lambda: {stage: Stopwatch() for stage in ("decode", "network", "encode")}
    )
    """Seconds of work, by stage."""

    def cancel(self) -> None:
        """Drop all waiting pixels, and stop all work on the picture in the other threads."""
        self.decoded.cancel()
        self.upscaled.cancel()
        self.release()

    def release(self) -> None:
        """Let other processes work on the picture. Called before a report: the caller may then start another run."""
        if self.claim is not None:
            self.claim.release()

    def report(self, status: FileStatus, error: Exception | None = None) -> FileResult:
        """Return the result of the picture."""
        known = self.job.report(status, *dict.fromkeys(self.warnings))
        seconds = StageSeconds(**{stage: round(watch.seconds, 3) for stage, watch in self.watches.items()})
        known = replace(known, seconds=seconds, error=describe_error(error) if error else None)
        # The job names the target; the file exists only after the whole picture was written.
        if status != "done":
            known = replace(known, output=None)
        if self.plan is None:
            return known
        engine, faithfulness = self.plan.engine, None
        if self.meter is not None and status == "done":
            faithfulness = self.meter.decibels
        known = replace(known, device=engine.device, dtype=engine.dtype, engine=engine.name, tile=self.plan.tile)
        return replace(known, faithfulness=faithfulness)


class BatchState:
    """State shared by all pipelines of a batch."""

    def __init__(self, found: FoundInputs, options: UpscaleOptions, find: WeightsFinder) -> None:
        self.planner = JobPlanner(found, options, find)
        self.planning = Lock()
        """Lock around taking an input and planning, so that output names are numbered in input order."""
        self.inputs = iter(found.inputs)
        """Inputs not yet taken by a device; read with `planning` held."""
        self.events: SimpleQueue[FileResult | Event | DevicePipeline] = SimpleQueue()
        """Results, calls of callbacks, and ended pipelines."""
        self.accepting = True
        """Whether more inputs are decoded; False after a stop, and after the first failure with `fail_fast`."""
        self.upscaling = True
        """Whether decoded pictures are upscaled; False after a failure in the network or encoder with `fail_fast`."""
        self._fail_fast = options.batch.fail_fast
        # Claims that a thread still holds: a picture without references needs no release, `FileLock` sees to that.
        self._claims: WeakSet[ResultClaim] | None = WeakSet()
        self._claiming = Lock()

    def claim(self, target: Place) -> ResultClaim:
        """Claim a result, at most until the end of the run."""
        claim = ResultClaim(target)
        with self._claiming:
            if self._claims is None:
                claim.release()
            else:
                self._claims.add(claim)
        return claim

    def end(self) -> None:
        """Release the claims on pictures that were not finished: another run of the same process may be next."""
        with self._claiming:
            claims, self._claims = self._claims or (), None
        for claim in claims:
            claim.release()

    def report_failure(self, file: InputFile, result: FileResult, error: Exception) -> None:
        """Hand the result of a picture that failed to the caller, after the exception if the exception is a bug."""
        if result.error is not None and result.error.code is ErrorCode.BUG:
            self.events.put(lambda callbacks: callbacks.on_bug(file, error))
        else:
            _forget_traceback(error)
        self.report(result)

    def report(self, result: FileResult) -> None:
        """Hand a result to the caller."""
        if result.status == "failed" and self._fail_fast:
            self.accepting = False
        self.events.put(result)


def _forget_traceback(error: BaseException) -> None:
    """Remove the tracebacks of an exception and of all causes.

    A traceback refers to functions, and a function may refer to an object that holds the exception: the input, the
    queue of the picture, or since Python 3.13 a function of `contextlib`. Such a cycle would keep engines of hundreds
    of megabytes until Python looks for cycles.
    """
    known: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        # `find_object` raises the cause of an exception while handling the exception: then each is behind the other.
        if each is not None and id(each) not in known:
            known.add(id(each))
            each.__traceback__ = None
            waiting += [each.__cause__, each.__context__]


def _send(frames: Iterable[AnyFrame], queue: BoundedQueue[AnyFrame]) -> None:
    """Put the frames of a picture, `(H, W, C)` whole or `(h, W, C)` band by band, into the queue of the picture.

    The reading thread receives the exception of a picture. Sending ends early where the picture is cancelled. Raises
    ClosedError.
    """
    try:
        for frame in frames:
            if isinstance(frame, Frame):
                queue.put(frame, frame.pixels.nbytes)
            else:
                bands: BoundedQueue[Pixels] = queue.branch()
                queue.put(StreamedFrame(frame.shape, bands, frame.duration_ms))
                for band in frame.bands():
                    bands.put(band, band.nbytes)
                    del band  # else the pixels would stay in memory while the next band is made
                bands.close()
            del frame
        queue.close()
    except CancelledError:
        return
    except (*RUN_ERRORS, ClosedError):
        raise
    except Exception as error:  # noqa: BLE001 - as in `DevicePipeline._decode_next`
        queue.fail(error)


def _noted(reader: PictureReader, picture: PictureInFlight) -> Iterator[AnyFrame]:
    """Yield the frames to upscale; losses found while decoding become warnings of the picture."""
    for frame in islice(reader.frames(), picture.job.result.frames):
        if isinstance(frame, Frame) and frame.note:
            picture.warnings.append(frame.note)
        yield frame
        del frame  # else the pixels would stay in memory while the next frame is decoded


def _timed(items: Iterator[T], watch: Stopwatch, is_work: bool = True) -> Iterator[T]:
    """Yield frames, or the bands of a frame; count the time spent on every item, also on one that fails.

    Without `is_work`, the time is spent on another stage, and is left out of the work around it.
    """
    while True:
        before = watch.switch(is_work)
        try:
            item = next(items, None)
        finally:
            watch.switch(before)
        if item is None:
            return
        if isinstance(item, StreamedFrame):
            item = StreamedFrame(item.shape, _timed(item.bands(), watch, is_work), item.duration_ms)  # type: ignore[assignment]
        yield item
        del item  # else the pixels would stay in memory while the next item is made
