"""What a picture is to this program: a header, and frames of pixels at the file's own depth.

What every decoder answers: a header at once, pixels when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8 | np.uint16 | np.float32]
"""`(H, W, C)`, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha (never premultiplied).

uint8 and uint16 use their full range; float32 is the file's own values, nominally [0, 1].
"""


@dataclass(frozen=True)
class Metadata:
    """What a file says of its pixels, each block as raw bytes without its container's framing, or None.

    `exif` starts at its TIFF header, "II" or "MM", without the "Exif" before it. `iptc` is IIM data (0x1C records).
    `text` are PNG text chunks, and a JPEG or GIF comment under the key "comment". `colour_chunks` are the PNG chunks
    that say how colours look where there is no ICC profile (gAMA, cHRM, sRGB, cICP), by kind.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()
    colour_chunks: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class Header:
    """A picture without its pixels, upright: EXIF orientation is already applied to `width` and `height`.

    `format` is a Pillow format name ("JPEG", "PNG", "TIFF", ...). Pages may differ in size: `width` and `height` are
    then those of the largest. `channels` and `dtype` are those of the frames.
    `animated` tells timed frames from pages; `loop` is the number of times to play, 0 for ever, None unsaid.
    `notes` are sentences for the user: what reading had to convert, such as CMYK to sRGB. `jpeg_quality` is what a
    JPEG's own quantisation tables say, 1 to 100.
    """

    format: str
    width: int
    height: int
    channels: int
    dtype: np.dtype[np.uint8 | np.uint16 | np.float32]
    frames: int = 1
    animated: bool = False
    loop: int | None = None
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    jpeg_quality: int | None = None

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether a frame of this `(H, W, C)` can be one of the picture's: pages have sizes of their own."""
        pages = self.frames > 1 and not self.animated
        return shape[2] == self.channels and (pages or shape[:2] == (self.height, self.width))


@dataclass(frozen=True)
class Frame:
    """One frame or page: pixels, and for animations how long it is shown."""

    pixels: Pixels
    duration_ms: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the pixels."""
        return self.pixels.shape

    def bands(self) -> Iterator[Pixels]:
        """The pixels at once."""
        yield self.pixels


class StreamedFrame:
    """A frame that comes as bands of rows from top to bottom, while it is made: they can be had once.

    `shape` is that of all of them together, `(H, W, C)`.
    """

    def __init__(self, shape: tuple[int, ...], bands: Iterable[Pixels], duration_ms: float | None = None) -> None:
        self.shape = shape
        self.duration_ms = duration_ms
        self._bands = iter(bands)

    @cached_property
    def pixels(self) -> Pixels:
        """All bands, in memory."""
        return stack_bands(self._bands, self.shape)

    def bands(self) -> Iterator[Pixels]:
        """Each `(h, W, C)`."""
        return self._bands


AnyFrame = Frame | StreamedFrame


def stack_bands(bands: Iterable[Pixels], shape: tuple[int, ...]) -> Pixels:
    """Bands of rows from top to bottom as one array of this shape."""
    whole: Pixels | None = None
    top = 0
    for band in bands:
        if band.shape == shape:
            whole = band
        else:
            whole = np.empty(shape, band.dtype) if whole is None else whole
            whole[top : top + len(band)] = band
        top += len(band)
    assert whole is not None and top == shape[0]
    return whole


def regroup_bands(bands: Iterable[Pixels], rows: int) -> Iterator[Pixels]:
    """The same rows as bands of `rows` each, but for the last."""
    held: list[Pixels] = []
    count = 0
    for band in bands:
        top = 0
        while count + len(band) - top >= rows:
            part = band[top : top + rows - count]
            yield np.concatenate([*held, part]) if held else part
            top, held, count = top + rows - count, [], 0
        if top < len(band):
            held.append(band[top:])
            count += len(band) - top
    if held:
        yield np.concatenate(held)


@dataclass(frozen=True)
class Opened:
    """An open picture file as it is stored: EXIF orientation is still to be applied.

    `frames` decodes, one frame at a time, `(H, W, header.channels)` of `header.dtype`; those that come in bands are
    upright.
    """

    header: Header
    frames: Callable[[], Iterator[AnyFrame]]
