"""Upscale uncompressed video from a stream to a stream, frame by frame, in constant memory.

A thread reads and converts the next frames while the network works on a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from io import RawIOBase
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.config import UpscaleOptions, VideoOptions
from dsclora_cli.errors import ImageUnreadable, UsageError
from dsclora_cli.imaging.limits import check_claim
from dsclora_cli.imaging.raw_video import FrameLayout, VideoHeader, read_frame, read_header
from dsclora_cli.imaging.types import Frame, Header, Pixels
from dsclora_cli.upscaling.bounded_queue import BoundedQueue, ByteBudget, ClosedError, Worker
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.memory import MOST_WAITING_BYTES
from dsclora_cli.upscaling.picture import PictureUpscaler

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_WAITING_FRAMES = 2
_HD_HEIGHT = 720  # rows from which players take BT.709 where a video does not state the matrix


@dataclass(frozen=True)
class FramesResult:
    """Summary of a video."""

    frames: int
    """Number of frames written."""
    input_size: tuple[int, int]
    """(width, height) in pixels."""
    output_size: tuple[int, int]
    """(width, height) in pixels."""
    layout: str
    """Chroma layout and bits, such as 420, 8 bits."""
    matrix: str | None
    """Color matrix of a YUV video: bt601, bt709 or bt2020. None for RGB and gray."""
    full_range: bool
    """Whether black is 0 and white the largest value."""
    model: str
    """Catalog name, or stem of the weights file; names joined with "+" where passes use several models."""
    device: str
    """Device of the network, for example `cpu` or `cuda:0`."""
    engine: str
    """Name of the library that runs the network: native, torch or openvino."""
    seconds: float
    """Time from the first frame to the end, in seconds."""
    frames_per_second: float
    """Frames written in a second, on average."""


class FramesCallbacks(Callbacks):
    """Callbacks of `upscale_frames`."""

    def on_frame(self, number: int) -> None:
        """Receive the number of a frame, from 1, when the frame is written."""


def upscale_frames(
    source: RawIOBase, target: BinaryIO, options: UpscaleOptions, video: VideoOptions, callbacks: FramesCallbacks
) -> FramesResult:
    """Upscale every frame of a y4m or rgb24 stream, and write a stream of the same kind.

    Args:
        source: Unbuffered stream, read to the end.
        target: Stream for the result; flushed after each frame.
        options: Model, size, engine and limits; options for files are ignored.
        video: Kind of the stream, and everything that the stream does not state.
        callbacks: Receives notes and progress.

    Raises:
        ImageUnreadable: The stream is no video that can be read, holds no frame, or ends inside a frame; all frames
            before are written.
        ImageError: A frame has more pixels than allowed, or than free memory can hold.
        UsageError: The requested size is not larger than the video.
        OSError: The result cannot be written.
    """
    header, layout = _in_thread("header", lambda: _open(source, video))
    # One header and one plan serve all frames: all have the same size.
    frame = Header("PNG", layout.width, layout.height, layout.channels, layout.dtype)
    check_claim(frame, layout.width * layout.height, options.read.max_pixels)
    upscaler = PictureUpscaler(options)
    plan = upscaler.plan(JobPlanner.for_arrays(options).plan_in_memory(frame), streamed=False)
    for note in plan.job.notes:
        callbacks.note_once(note)
    size = plan.job.size
    larger = layout.with_size(size.width, size.height)
    if header:
        _note_matrix(layout, larger, video, callbacks)
    budget = ByteBudget(MOST_WAITING_BYTES)
    waiting: BoundedQueue[tuple[bytes, Pixels]] = BoundedQueue(budget, _WAITING_FRAMES)
    Worker("frames", lambda: _read_all(source, layout, header is not None, waiting)).start()
    number, begin = 0, perf_counter()
    try:
        for number, (marker, pixels) in enumerate(waiting, start=1):
            upscaled = upscaler.upscale(Frame(pixels), plan, on_warning=callbacks.note_once).pixels
            if header:
                # The header comes with the first frame: a video without a frame leaves nothing.
                target.write(header.line(size.width, size.height) if number == 1 else b"")
                target.write(marker + b"\n")
            target.write(larger.to_bytes(upscaled))
            target.flush()
            callbacks.on_frame(number)
    finally:
        # The reader may wait for room, or for bytes that never come; as a daemon it does not hold up the exit.
        budget.abort()
    if not number:
        raise ImageUnreadable("stdin holds no frame", "check the program that writes the video")
    seconds = perf_counter() - begin
    return FramesResult(
        frames=number,
        input_size=(layout.width, layout.height),
        output_size=(size.width, size.height),
        layout=f"{layout.chroma}, {layout.bits} bits",
        matrix=layout.matrix if layout.chroma not in {"rgb", "mono"} else None,
        full_range=layout.full_range or layout.chroma == "rgb",
        model=plan.job.model,
        device=plan.engine.device,
        engine=plan.engine.name,
        seconds=seconds,
        frames_per_second=number / seconds,
    )


def _in_thread(name: str, work: Callable[[], T]) -> T:
    """Return the result of work that may wait for the source: on Windows, Ctrl-C does not end such a wait."""
    results: list[T] = []
    worker = Worker(name, lambda: results.append(work()))
    worker.start()
    worker.wait()
    return results[0]


def _open(source: RawIOBase, video: VideoOptions) -> tuple[VideoHeader | None, FrameLayout]:
    """Return the header, None for rgb24, and the layout of the frames."""
    if video.rgb_size:
        if video.matrix or video.full_range is not None:
            raise UsageError("--matrix and --range concern YUV video, and --size raw RGB", "leave one of them out")
        return None, FrameLayout(*video.rgb_size, "rgb")
    header = read_header(source)
    matrix = video.matrix or _usual_matrix(header.layout.height)
    full_range = header.layout.full_range if video.full_range is None else video.full_range
    return header, replace(header.layout, matrix=matrix, full_range=full_range)


def _usual_matrix(height: int) -> str:
    """Return the matrix that players take for a video of `height` rows that does not state a matrix."""
    return "bt709" if height >= _HD_HEIGHT else "bt601"


def _note_matrix(layout: FrameLayout, larger: FrameLayout, video: VideoOptions, callbacks: FramesCallbacks) -> None:
    """Tell the user where players would take another color matrix for the result than for the input."""
    if layout.chroma == "mono" or video.matrix or _usual_matrix(larger.height) == layout.matrix:
        return
    callbacks.note_once(
        f"y4m does not state the colour matrix, and players take BT.709 from {_HD_HEIGHT} rows on: for the encoder add"
        " -colorspace smpte170m (or -colorspace bt709 and --matrix bt709, if that is the matrix of the input)"
    )


def _read_all(
    source: RawIOBase, layout: FrameLayout, marked: bool, waiting: BoundedQueue[tuple[bytes, Pixels]]
) -> None:
    """Put the marker and the pixels of every frame into the queue, and end the queue."""
    try:
        for number in count(1):
            frame = read_frame(source, layout, number, marked)
            if frame is None:
                break
            marker, samples = frame
            pixels = layout.to_pixels(samples)
            waiting.put((marker, pixels), pixels.nbytes)
        waiting.close()
    except ClosedError:  # the reader of the queue has stopped
        raise
    except Exception as error:  # noqa: BLE001 - raised again by the reader, who would otherwise wait for ever
        waiting.fail(error)
