"""One device's share of a batch: a thread that decodes, one for the network and one that encodes.

What passes between the stages of a batch: for each picture its `Work`, its frames, and an end.

What the lines of a batch share: its inputs, and where they tell what they do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from queue import SimpleQueue
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import DscloraError, ErrorCode, ErrorInfo, ImageError, OutOfMemory
from dsclora_cli.imaging.reader import PictureReader, open_picture
from dsclora_cli.imaging.types import AnyFrame, Frame, Pixels, StreamedFrame
from dsclora_cli.imaging.writer import fit_format
from dsclora_cli.upscaling.bounded_queue import BoundedQueue, ClosedError, Worker
from dsclora_cli.upscaling.jobs import Job, JobPlanner
from dsclora_cli.upscaling.manifest import save_result
from dsclora_cli.upscaling.memory import budget
from dsclora_cli.upscaling.sizes import AlreadyLargeEnough
from dsclora_cli.upscaling.types import FileResult, FileStatus, FoundInputs, InputFile, Observer, StageSeconds

if TYPE_CHECKING:
    from dsclora_cli.upscaling.picture import PictureUpscaler, Plan


T = TypeVar("T")

_AHEAD = 4
"""Pictures that a line decodes ahead of its network at most, so that no other line is left without."""


class Line:
    """Takes pictures from a batch until there are none, with one engine, opened when a picture first needs it."""

    def __init__(self, shared: Shared, open_engine: Callable[[], PictureUpscaler]) -> None:
        self._shared, self._open_engine = shared, open_engine
        self._save = shared.options.save
        self._budget = budget(shared.options.max_memory)
        self._decoded: Pictures = BoundedQueue(self._budget)
        self._upscaled: Pictures = BoundedQueue(self._budget)
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

    def _plan(self, source: InputFile, files: ExitStack) -> tuple[PictureReader, Work] | None:
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
    def _telling(self, source: InputFile) -> Iterator[None]:
        """What concerns one picture alone is told as its result."""
        try:
            yield
        except AlreadyLargeEnough as error:
            self._shared.tell(FileResult(source.name, "skipped", warnings=(error.message,)))
        except FILE_ERRORS as error:
            self._shared.tell(FileResult(source.name, "failed", error=described(error)))

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

    def _network(self, engine: PictureUpscaler, work: Work, frame: AnyFrame, index: int) -> StreamedFrame:
        def on_progress(share: float) -> None:
            done = (index + share) / work.job.frames
            self._shared.told.put(lambda observer: observer.on_progress(work.job, done))

        assert work.plan is not None
        banded = engine.banded(frame, work.plan, on_progress, work.warnings.append)
        return StreamedFrame(banded.shape, _timed(banded.bands(), work.add_network), banded.duration_ms)

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
            yield StreamedFrame(frame.shape, _timed(frame.bands(), on_time), frame.duration_ms)


def _timed(items: Iterator[T], on_time: Callable[[float], None]) -> Iterator[T]:
    """The items; `on_time` hears how many seconds each took to make."""
    while True:
        started = perf_counter()
        item = next(items, None)
        on_time(perf_counter() - started)
        if item is None:
            return
        yield item


NETWORK_ERRORS = (ImageError, OutOfMemory, MemoryError)
FILE_ERRORS = (*NETWORK_ERRORS, OSError)
"""What ends one picture only, in the network and where files are touched; anything else ends the run.

An OSError in the thread of the network is its caller's, such as a closed pipe where results are shown.
"""


@dataclass
class Work:
    """A picture on its way through the stages, each of which adds what it learns.

    Where it is `abandoned`, as it cannot be written, the stages before need not go on with it.
    """

    job: Job
    plan: Plan | None = None
    warnings: list[str] = field(default_factory=list)
    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0
    abandoned: bool = False

    def add_decoding(self, seconds: float) -> None:
        """Time spent on decoding."""
        self.decode += seconds

    def add_network(self, seconds: float) -> None:
        """Time spent in the network."""
        self.network += seconds

    def result(self, status: FileStatus, error: Exception | None = None) -> FileResult:
        """What became of it."""
        known = self.job.result(status, *dict.fromkeys(self.warnings))
        seconds = StageSeconds(round(self.decode, 3), round(self.network, 3), round(self.encode, 3))
        known = replace(known, seconds=seconds, error=described(error) if error else None)
        if status != "done":
            known = replace(known, output=None)
        if self.plan is None:
            return known
        info = self.plan.info
        return replace(
            known,
            model=info.model,
            weights_sha256=info.weights_sha256,
            device=info.device,
            dtype=info.dtype,
            engine=info.engine,
            tile=self.plan.tile,
        )


@dataclass(frozen=True)
class End:
    """The last item of a picture, with what cut it short."""

    error: Exception | None = None


@dataclass(frozen=True)
class Start:
    """A frame whose bands follow."""

    shape: tuple[int, ...]
    duration_ms: float | None


Pictures = BoundedQueue[Work | Frame | Start | Pixels | End]


def described(error: Exception) -> ErrorInfo:
    """Return the `error` of the result of a picture that failed with one of `FILE_ERRORS`."""
    if isinstance(error, DscloraError):
        return error.info
    if isinstance(error, MemoryError):
        return ErrorInfo(ErrorCode.OUT_OF_MEMORY, "there is not enough memory")
    return ErrorInfo(ErrorCode.IMAGE_UNUSABLE, str(error))


def send(channel: Pictures, work: Work, frames: Iterable[AnyFrame], size: int = 0) -> None:
    """Put a picture and its frames or their bands as they come; what breaks them is sent along. Raises ClosedError.

    The picture itself counts as `size` bytes.
    """
    channel.put(work, size)
    end = End()
    try:
        for item, size in _items(frames):
            channel.put(item, size)
            del item  # else it would live on here while the next is made
            if work.abandoned:
                break
    except NETWORK_ERRORS as error:
        end = End(error)
    channel.put(end)


def _items(frames: Iterable[AnyFrame]) -> Iterator[tuple[Frame | Start | Pixels, int]]:
    """What passes for these frames, and how many bytes it counts; nothing is kept here while the next is made."""
    for frame in frames:
        if isinstance(frame, Frame):
            yield frame, frame.pixels.nbytes
        else:
            yield Start(frame.shape, frame.duration_ms), 0
            for band in frame.bands():
                yield band, band.nbytes
                del band
        del frame


class Incoming:
    """The frames of the picture whose `Work` was just got; leaving the context skips those that were not asked for.

    Raises what broke the stage before, and ClosedError. `waited` is the time spent waiting, in seconds.
    """

    def __init__(self, channel: Pictures) -> None:
        self._channel = channel
        self._ahead: Frame | Start | End | None = None
        self._bands: Iterator[Pixels] = iter(())
        self.waited = 0.0

    def __enter__(self) -> Incoming:
        """The frames themselves."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Skip the rest, unless the run is being stopped."""
        if kind is None or issubclass(kind, FILE_ERRORS):
            with suppress(ClosedError, *FILE_ERRORS):
                for _ in self:
                    pass

    def __iter__(self) -> Iterator[AnyFrame]:
        """Itself."""
        return self

    def __next__(self) -> AnyFrame:
        """The next frame; what is left of the bands of the one before is skipped."""
        for _ in self._bands:
            pass
        item = self._ahead or self._get()
        if isinstance(item, End):
            self._ahead = item
            raise StopIteration
        self._ahead = None
        if isinstance(item, Start):
            self._bands = self._until_next()
            return StreamedFrame(item.shape, self._bands, item.duration_ms)
        assert isinstance(item, Frame)
        return item

    def _until_next(self) -> Iterator[Pixels]:
        """The bands of one frame."""
        while not isinstance(item := self._get(), Frame | Start | End):
            yield item
            del item
        self._ahead = item

    def _get(self) -> Frame | Start | Pixels | End:
        """The next item; what broke the stage before is raised, and nothing comes after it."""
        started = perf_counter()
        item = self._channel.get()
        self.waited += perf_counter() - started
        assert not isinstance(item, Work)
        if isinstance(item, End) and item.error is not None:
            self._ahead = End()
            raise item.error
        return item


Event = Callable[[Observer], None]
"""What an observer is to hear."""


@dataclass(frozen=True)
class Ended:
    """Told by a line that has ended; `wait` raises what ended it early."""

    wait: Callable[[], None]


class Shared:
    """What the lines of a batch have in common: its inputs, of which each takes the next one, and where they tell."""

    def __init__(self, found: FoundInputs, options: UpscaleOptions) -> None:
        self.options = options
        self.planner = JobPlanner(found, options)
        self.told: SimpleQueue[FileResult | Event | Ended] = SimpleQueue()
        """Results, what is told beside them, and the end of each line."""
        self.broken = False
        """Whether pictures that are decoded already are to be left, as one failed after that and that is enough."""
        self.order = Lock()
        """Held from taking an input until its job is planned: results have their names in the order of inputs."""
        self._inputs = iter(found.inputs)
        self._full = False
        self._noted: set[str] = set()
        self._noting = Lock()

    def next_input(self) -> InputFile | None:
        """The next one; None where no more are taken in."""
        return None if self._full else next(self._inputs, None)

    def tell(self, result: FileResult) -> None:
        """What became of a picture."""
        self._full = self._full or (result.status == "failed" and self.options.batch.fail_fast)
        self.told.put(result)

    def note(self, notes: Iterable[str]) -> None:
        """Sentences on the whole run, each told once."""
        with self._noting:
            for note in notes:
                if note not in self._noted:
                    self._noted.add(note)
                    self.told.put(partial(_note, note))


def _note(note: str, observer: Observer) -> None:
    observer.on_note(note)
