"""What passes between the stages of a batch: for each picture its `Work`, its frames, and an end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

from dsclora_cli.errors import DscloraError, ImageError, OutOfMemory
from dsclora_cli.imaging.picture import AnyFrame, BandedFrame, Frame, Pixels
from dsclora_cli.tasks.channel import Channel, ClosedError
from dsclora_cli.tasks.jobs import Job
from dsclora_cli.tasks.results import FileResult, FileStatus, StageSeconds

if TYPE_CHECKING:
    from dsclora_cli.tasks.upscale import Plan

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
        message, hint = described(error) if error else (None, "")
        known = replace(known, seconds=seconds, error=message, hint=hint)
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


Pictures = Channel[Work | Frame | Start | Pixels | End]


def described(error: Exception) -> tuple[str, str]:
    """The `error` and `hint` of a result."""
    if isinstance(error, DscloraError):
        return error.message, error.hint
    return "there is not enough memory" if isinstance(error, MemoryError) else str(error), ""


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
            return BandedFrame(item.shape, self._bands, item.duration_ms)
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
