"""Types of a picture: `Header` and `Metadata` describe a file, `Frame` and `StreamedFrame` carry pixels.

A decoder returns an `OpenedFile`: the header at once, the frames on demand. Next: `reader.py` and `writer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError

Pixels = NDArray[np.uint8 | np.uint16 | np.float32]
"""Pixels `(H, W, C)`: C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha. Alpha is never premultiplied.

uint8 and uint16 use their full range; float32 holds the values of the file, nominally in [0, 1].
"""


class LossNote(str):
    """Sentence for the user about a loss of transparency, depth, frames or colors: `--strict` refuses the picture."""

    __slots__ = ()


@dataclass(frozen=True)
class Metadata:
    """Metadata blocks of a file: raw bytes without the framing of the container, None for a block that is absent."""

    icc: bytes | None = None
    """ICC color profile."""

    exif: bytes | None = None
    """EXIF from the TIFF header on: starts with "II" or "MM", without the "Exif" prefix of JPEG."""

    xmp: bytes | None = None
    """XMP packet, UTF-8."""

    iptc: bytes | None = None
    """IPTC-IIM records, the first byte is 0x1C; without the Photoshop resource around the records."""

    dpi: tuple[float, float] | None = None
    """Horizontal and vertical resolution in dots per inch."""

    density: tuple[int, int] | None = None
    """Pixels across and down in the same unknown length; None for square pixels, and where `dpi` is known."""

    text: tuple[tuple[str, str], ...] = ()
    """Keyword and text of PNG text chunks. A comment of a JPEG or GIF has the keyword "comment".

    Bytes that are no UTF-8 are kept as lone surrogates (PEP 383).
    """

    color_chunks: tuple[tuple[bytes, bytes], ...] = ()
    """Kind and data of the PNG chunks that define colors where no profile does: gAMA, cHRM, sRGB, cICP and others."""

    language_texts: tuple[bytes, ...] = ()
    """Contents of the PNG text chunks (iTXt) that state a language or a translated keyword."""

    geo: bytes | None = None
    """Tags of a GeoTIFF, packed as an EXIF block is."""

    notes: tuple[str, ...] = ()
    """Sentences for the user about metadata that was dropped; they go to the header or to the losses of a format."""

    @property
    def comments(self) -> list[bytes]:
        """Return the texts with the keyword "comment", the only texts in a JPEG or GIF, as bytes of the file."""
        return [value.encode("utf-8", "surrogateescape") for key, value in self.text if key.lower() == "comment"]


@dataclass(frozen=True)
class Header:
    """Facts about a picture that are known before any pixel is decoded."""

    format: str
    """Pillow format name: "JPEG", "PNG", "TIFF", ..."""

    width: int
    """Width in pixels after EXIF orientation is applied; of the largest page where pages differ in size."""

    height: int
    """Height in pixels after EXIF orientation is applied; of the largest page where pages differ in size."""

    channels: int
    """Channels of every frame, 1 to 4, in the meaning of `Pixels`."""

    dtype: np.dtype[np.uint8 | np.uint16 | np.float32]
    """dtype of every frame."""

    frames: int = 1
    """Number of frames or pages."""

    animated: bool = False
    """True for an animation with timed frames, False for a still or for pages."""

    loop: int | None = None
    """How many times to play an animation; 0 forever, None not stated."""

    metadata: Metadata = field(default_factory=Metadata)

    notes: tuple[str, ...] = ()
    """Sentences for the user about what is not read as the file says; `--strict` refuses a `LossNote` among them."""

    lossy_quality: int | None = None
    """Quality that a JPEG, lossy WebP or lossy AVIF was saved with, 0 to 100, estimated; None for other files."""

    @property
    def losses(self) -> tuple[LossNote, ...]:
        """Return the notes about transparency, depth, frames and colors that reading loses."""
        return tuple(note for note in self.notes if isinstance(note, LossNote))


@dataclass(frozen=True)
class Frame:
    """A decoded frame or page."""

    pixels: Pixels
    """`(H, W, C)`."""

    duration_ms: float | None = None
    """How long an animation shows the frame, in milliseconds; None for stills and pages."""

    note: str | None = None
    """Sentence for the user about losses found while decoding, such as missing rows; None without a loss."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(H, W, C)`."""
        return self.pixels.shape

    def bands(self) -> Iterator[Pixels]:
        """Yield all pixels as a single band `(H, W, C)`, with the interface of `StreamedFrame`."""
        yield self.pixels


class StreamedFrame:
    """A frame that arrives as bands of rows from top to bottom; the bands can be read only once."""

    def __init__(self, shape: tuple[int, ...], bands: Iterable[Pixels], duration_ms: float | None = None) -> None:
        """Wrap `bands`, each `(h, W, C)`; `shape` is the `(H, W, C)` of the whole frame."""
        self.shape = shape
        self.duration_ms = duration_ms
        self._bands = iter(bands)

    @cached_property
    def pixels(self) -> Pixels:
        """Return all bands as an array `(H, W, C)`, kept in memory from the first access on."""
        return stack_bands(self._bands, self.shape)

    def bands(self) -> Iterator[Pixels]:
        """Return the iterator over the bands, each `(h, W, C)`."""
        return self._bands


AnyFrame = Frame | StreamedFrame
"""Both have `shape`, `pixels`, `bands()` and `duration_ms`."""


@dataclass(frozen=True)
class OpenedFile:
    """A picture file as a decoder opened the file: EXIF orientation is not applied yet."""

    header: Header
    """Header as stored: width and height before EXIF orientation is applied."""

    frames: Callable[[], Iterator[AnyFrame]]
    """Decode the frames, one at a time: `(H, W, header.channels)` of `header.dtype`.

    A `StreamedFrame` is upright already: bands of rows cannot be turned one by one.
    """

    at_once: int | None = None
    """Most pixels in memory at once while frames are decoded; None for a whole frame."""


def stack_bands(bands: Iterable[Pixels], shape: tuple[int, ...]) -> Pixels:
    """Return bands of rows, from top to bottom, as an array of shape `(H, W, C)`. Raise ImageError for missing rows."""
    whole: Pixels | None = None
    top = 0
    for band in bands:
        # A single band is returned without a copy: a large frame is not in memory twice.
        if band.shape == shape:
            whole = band
        else:
            whole = np.empty(shape, band.dtype) if whole is None else whole
            whole[top : top + len(band)] = band
        top += len(band)
    # `whole` would hold random memory where rows are missing.
    if whole is None or top < shape[0]:
        raise ImageError(f"only {top} of {shape[0]} rows arrived")
    return whole


def regroup_bands(bands: Iterable[Pixels], rows: int) -> Iterator[Pixels]:
    """Yield the rows of `bands`, each `(h, W, C)`, as bands of `rows` rows; the last band may have fewer."""
    held: list[Pixels] = []
    count = 0  # rows in `held`
    for band in bands:
        top = 0
        while count + len(band) - top >= rows:
            end = top + rows - count
            # Rows of a single band stay a view: no copy.
            yield np.concatenate([*held, band[top:end]]) if held else band[top:end]
            top, held, count = end, [], 0
        if top < len(band):
            # A copy: a view would keep the whole band in memory.
            held.append(band[top:].copy())
            count += len(band) - top
    if held:
        yield np.concatenate(held)
