"""Incomplete pictures of the formats that Pillow decodes: refused, or with `salvage` taken as far as they are there."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import BinaryIO

from PIL import ImageFile

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs.animation_gaps import WholeFrames, whole_frames
from dsclora_cli.imaging.codecs.coded_tail import coded_end, describe_share, present_share
from dsclora_cli.imaging.codecs.jpeg_scan import count_whole_rows
from dsclora_cli.imaging.codecs.png import fill_png
from dsclora_cli.imaging.decoder_messages import ThreadFlag
from dsclora_cli.imaging.types import Frame, Header

_DECODER_ERRORS = (ImageError, OSError, EOFError, ValueError, SyntaxError, struct.error)

_MOST_MISSING = 2**26
"""Bytes that may be missing at the end of any file."""

_ANIMATED = ("GIF", "PNG", "WEBP")

_lenience = ThreadFlag()


def decode_whole(file: BinaryIO, header: Header, decode: Callable[[], Iterator[Frame]]) -> Iterator[Frame]:
    """Yield the frames of a file.

    Raises:
        ImageError: Pixels are missing that the decoder would fill without a message.
    """
    lost = _describe_loss(file, header)
    if lost:
        raise ImageError(f"the file is damaged: only {lost} are there")
    yield from decode()


def decode_salvaged(file: BinaryIO, header: Header, decode: Callable[[], Iterator[Frame]]) -> Iterator[Frame]:
    """Yield the frames of a file as far as they are there; a note in a frame says how much that is.

    Frames that cannot be read at all repeat the frame before: a header has promised their number.
    """
    with lenient_pillow():
        lost = _describe_loss(file, header)
    count, frame = 0, None
    try:
        for frame in _decode_leniently(decode()) if lost else decode():
            count += 1
            yield replace(frame, note=f"salvaged: {lost}") if lost and count == 1 else frame
        return
    except _DECODER_ERRORS:
        if lost:
            raise
        frame, note = _salvage_frame(header, decode, count, frame)
        if frame is None or (count == 0 and not _count_rows(frame)):
            raise
    yield replace(frame, note=note)
    for _ in range(count + 1, header.frames):
        yield frame


def _decode_leniently(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yield the frames of a decoder that takes truncated files; the caller is not lenient between two frames."""
    while True:
        with lenient_pillow():
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
        del frame  # else the pixels would stay in memory while the next frame is decoded


def _salvage_frame(
    header: Header, decode: Callable[[], Iterator[Frame]], count: int, frame: Frame | None
) -> tuple[Frame | None, str]:
    """Return what is there of the frame behind `count` whole ones, or `frame` where nothing is, and a note."""
    with lenient_pillow():
        try:
            frame = next(islice(decode(), count, None), frame)
        except _DECODER_ERRORS:
            return frame, f"salvaged: {count} of {header.frames} frames"
    rows = _count_rows(frame) if frame else 0
    which = f" of frame {count + 1}" if header.frames > 1 else ""
    return frame, f"salvaged: about {rows} of {header.height} rows{which}"


def fill_gaps(file: BinaryIO, name: str, max_pixels: int) -> tuple[BinaryIO, str | None]:
    """Return a file in which the missing end is filled, so that a decoder opens the file, and how much was there.

    Args:
        file: File of format `name`.
        name: Pillow name of the format.
        max_pixels: A file that claims more is returned without a change.
    """
    file.seek(0)
    if name in _ANIMATED and (shorter := whole_frames(file.read(), name)) and shorter.frames:
        return io.BytesIO(shorter.data), f"salvaged: {_describe_frames(shorter)}"
    file.seek(0)
    if name == "PNG":
        filled = fill_png(file.read(), max_pixels)
        return (io.BytesIO(filled[0]), filled[1]) if filled else (file, None)
    end = coded_end(file, name)
    size = file.seek(0, io.SEEK_END)
    # A few bytes may state a length of gigabytes. Of a picture of which so little is there, nothing would be seen.
    if not size < end <= size + min(4 * max_pixels, max(_MOST_MISSING, 16 * size)):
        return file, None
    file.seek(0)
    padded = io.BytesIO(file.read().ljust(end, b"\0"))
    # Of a few bytes, the share of the coded pixels would tell nothing.
    few = present_share(padded, name, 0) is None
    return padded, f"salvaged: all but the last {end - size} bytes of the file" if few else None


def _count_rows(frame: Frame) -> int:
    """Return the number of rows that are not of the one color that Pillow leaves in missing rows, last or first."""
    rows = frame.pixels.reshape(len(frame.pixels), -1, frame.pixels.shape[2])
    uniform = [(rows == rows[at, :1]).all(axis=(1, 2)) for at in (-1, 0)]
    return len(rows) - max(int(missing.sum()) for missing in uniform)


def _describe_loss(file: BinaryIO, header: Header) -> str | None:
    """Return how much of a picture is there, where something is missing; None for a whole picture."""
    if header.format == "JPEG":
        file.seek(0)
        found = count_whole_rows(file.read())
        return found and f"about {found[0]} of {found[1]} rows"
    # An APNG states the number of frames.
    if header.format in ("GIF", "WEBP"):
        file.seek(0)
        if shorter := whole_frames(file.read(), header.format):
            return _describe_frames(shorter)
    share = present_share(file, header.format, header.width * header.height)
    return None if share is None else f"{describe_share(share)} of the coded pixels"


def _describe_frames(shorter: WholeFrames) -> str:
    return f"the frames up to number {shorter.frames}" if shorter.frames else "parts of the first frame"


class _LenientHere:
    """Value for Pillow's `LOAD_TRUNCATED_IMAGES` that is true only in threads that are inside `lenient_pillow`."""

    def __init__(self, elsewhere: bool) -> None:
        """Remember `elsewhere`, the value that the program has set for all threads."""
        self._elsewhere = elsewhere

    def __bool__(self) -> bool:
        return _lenience.is_up or self._elsewhere


@contextmanager
def lenient_pillow() -> Iterator[None]:
    """Let Pillow decode truncated files inside the block, in this thread only.

    Pillow's setting is one variable for all threads, but Pillow asks only whether the variable is true.
    """
    setting = ImageFile.LOAD_TRUNCATED_IMAGES
    if not isinstance(setting, _LenientHere):
        ImageFile.LOAD_TRUNCATED_IMAGES = _LenientHere(setting)  # type: ignore[assignment]
    with _lenience.raised():
        yield
