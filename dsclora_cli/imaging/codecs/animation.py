"""Animations out, one frame at a time: APNG, GIF and animated WebP, each frame only where it differs from the last."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.color import image_of
from dsclora_cli.imaging.types import AnyFrame, Header, Pixels

_DEFAULT_MS = 100.0
_MAX_SECONDS = 65535
_OPAQUE_FROM = 128
_TRANSPARENT = 255

Area = tuple[int, int, int, int]
"""Top, left, height and width of the part of a frame that is written."""


def write_apng(target: BinaryIO, header: Header, frames: Iterable[AnyFrame], compression: int) -> None:
    """Write `header.frames` frames of `header.channels` and `header.dtype`, 8-bit or 16-bit, as an animated PNG."""
    head = png.header_chunk((header.height, header.width, header.channels), header.dtype)
    plays = struct.pack(">II", header.frames, header.loop or 0)
    target.write(png.SIGNATURE + head + png.chunk(b"acTL", plays))
    target.write(png.metadata_chunks(header.metadata))
    sequence, previous = 0, None
    for frame in frames:
        top, left, height, width = area = changed(previous, frame.pixels)
        shown = Fraction(_milliseconds(frame) / 1000).limit_denominator(1000)
        control = struct.pack(">IIIII", sequence, width, height, left, top)
        control += struct.pack(">HHBB", min(shown.numerator, _MAX_SECONDS), shown.denominator, 0, 0)
        target.write(png.chunk(b"fcTL", control))
        sequence += 1
        for data in png.image_data([_crop(frame.pixels, area)], compression):
            if previous is None:
                target.write(png.chunk(b"IDAT", data))
                continue
            target.write(png.chunk(b"fdAT", struct.pack(">I", sequence) + data))
            sequence += 1
        previous = frame.pixels
    target.write(png.chunk(b"IEND", b""))


def write_webp_animation(target: BinaryIO, header: Header, frames: Iterable[AnyFrame], quality: int) -> None:
    """Write `(H, W, 3 | 4)` uint8 frames as an animated WebP; `target` is seekable, for its length comes first."""
    metadata = header.metadata
    present = ((metadata.icc, 0x20), (header.channels == 4, 0x10), (metadata.exif, 0x08), (metadata.xmp, 0x04))
    flags = 0x02 | sum(flag for value, flag in present if value)
    start = target.tell()
    target.write(b"RIFF\0\0\0\0WEBP")
    size = _little(header.width - 1) + _little(header.height - 1)
    target.write(_riff(b"VP8X", struct.pack("<I", flags) + size))
    if metadata.icc:
        target.write(_riff(b"ICCP", metadata.icc))
    target.write(_riff(b"ANIM", struct.pack("<IH", 0, header.loop or 0)))
    previous = None
    for frame in frames:
        top, left, height, width = area = changed(previous, frame.pixels, even=True)
        place = b"".join(_little(value) for value in (left // 2, top // 2, width - 1, height - 1))
        duration = _little(min(round(_milliseconds(frame)), 0xFFFFFF))
        data = b"".join(_webp_pixels(_crop(frame.pixels, area), quality))
        target.write(_riff(b"ANMF", place + duration + b"\2" + data))
        previous = frame.pixels
    for kind, value in ((b"EXIF", metadata.exif), (b"XMP ", metadata.xmp)):
        if value:
            target.write(_riff(kind, value))
    end = target.tell()
    target.seek(start + 4)
    target.write(struct.pack("<I", end - start - 8))
    target.seek(end)


def write_gif(target: BinaryIO, header: Header, frames: Iterable[AnyFrame]) -> None:
    """Write `(H, W, 1 | 3 | 4)` uint8 frames as a GIF: 256 colours each, alpha cut at a half, times in 1/100 s."""
    target.write(b"GIF89a" + struct.pack("<HHBBB", header.width, header.height, 0, 0, 0) + _gif_head(header))
    previous, elapsed, written = None, 0.0, 0
    for frame, following in _with_next(frames):
        clears = following is not None and bool((_hidden(following.pixels) & ~_hidden(frame.pixels)).any())
        # A cleared frame leaves nothing behind: it has to cover the picture, and so has the one after it.
        top, left, height, width = area = changed(None if clears else previous, frame.pixels)
        elapsed += _milliseconds(frame)
        delay = min(round(elapsed / 10) - written, 0xFFFF) if header.animated else 0
        written += delay
        indices, palette, holes = _quantise(_crop(frame.pixels, area))
        control = (2 if clears else 1) << 2 | holes
        target.write(b"\x21\xf9\4" + struct.pack("<BHBB", control, delay, _TRANSPARENT if holes else 0, 0))
        target.write(b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0x87) + palette.tobytes())
        target.write(_lzw(indices))
        previous = None if clears else frame.pixels
    target.write(b"\x3b")


def changed(previous: Pixels | None, current: Pixels, even: bool = False) -> Area:
    """The smallest area that holds every difference; the whole for no `previous`, one pixel for no difference.

    `even` moves its corner to even coordinates, as WebP wants.
    """
    if previous is None:
        return 0, 0, current.shape[0], current.shape[1]
    different = (previous != current).any(axis=2)
    rows, columns = np.flatnonzero(different.any(axis=1)), np.flatnonzero(different.any(axis=0))
    if not rows.size:
        return 0, 0, 1, 1
    top, left = int(rows[0]), int(columns[0])
    if even:
        top, left = top // 2 * 2, left // 2 * 2
    return top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left


def _crop(pixels: Pixels, area: Area) -> Pixels:
    top, left, height, width = area
    return pixels[top : top + height, left : left + width]


def _milliseconds(frame: AnyFrame) -> float:
    return _DEFAULT_MS if frame.duration_ms is None else frame.duration_ms


def _little(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _webp_pixels(pixels: Pixels, quality: int) -> Iterator[bytes]:
    """The chunks of one frame that hold pixels, out of a still WebP file."""
    buffer = io.BytesIO()
    image_of(pixels).save(buffer, "WEBP", **webp_options(quality))
    data, at = buffer.getvalue(), 12
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] in (b"ALPH", b"VP8 ", b"VP8L"):
            yield _riff(data[at : at + 4], data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2


def webp_options(quality: int) -> dict[str, object]:
    """Pillow's options for a WebP of quality 1-100; 100 is lossless, colours under transparency included."""
    return {"quality": quality, "lossless": quality == 100, "exact": quality == 100, "method": 4}


def _with_next(frames: Iterable[AnyFrame]) -> Iterator[tuple[AnyFrame, AnyFrame | None]]:
    for frame, following in pairwise(chain(frames, (None,))):
        assert frame is not None  # only the last of a pair is
        yield frame, following


def _gif_head(header: Header) -> bytes:
    """Loop and comment. A GIF counts repeats: played once is no block at all, played N times N - 1."""
    head = b""
    if header.animated and header.loop != 1:
        repeats = max(0, min(header.loop or 0, 0x10000) - 1)
        head += b"\x21\xff\x0bNETSCAPE2.0\3\1" + struct.pack("<HB", repeats, 0)
    text = (blocks.comment(header.metadata) or "").encode()
    if text:
        parts = [text[at : at + 255] for at in range(0, len(text), 255)]
        head += b"\x21\xfe" + b"".join(bytes((len(part),)) + part for part in parts) + b"\0"
    return head


def _hidden(pixels: Pixels) -> NDArray[np.bool_]:
    return pixels[..., 3] < _OPAQUE_FROM if pixels.shape[2] == 4 else np.zeros(pixels.shape[:2], np.bool_)


def _quantise(pixels: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8], bool]:
    """Indices `(H, W)`, palette `(256, 3)` and whether index 255 is transparency; exact where the colours fit."""
    if pixels.shape[2] == 1:
        return pixels[..., 0].astype(np.uint8), np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1), False
    hidden = _hidden(pixels)
    holes = bool(hidden.any())
    rgb = np.where(hidden[..., None], 0, pixels[..., :3]).astype(np.uint8)
    packed = rgb.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    seen = np.zeros(2**24, np.bool_)
    seen[packed] = True
    colours = np.flatnonzero(seen)
    palette = np.zeros((256, 3), np.uint8)
    if colours.size <= 256 - holes:
        palette[: colours.size] = colours[:, None] >> np.array([0, 8, 16]) & 255
        indices = np.searchsorted(colours, packed).astype(np.uint8)
    else:
        image = image_of(rgb)
        reduced = image.quantize(256 - holes)
        table = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
        palette[: len(table)] = table
        indices = np.asarray(image.quantize(palette=reduced)).copy()
    indices[hidden] = _TRANSPARENT
    return indices, palette, holes


def _lzw(indices: NDArray[np.uint8]) -> bytes:
    """Compressed indices as GIF stores them: code size, blocks, and the empty block at the end."""
    buffer = io.BytesIO()
    # As grey, so that Pillow neither sorts nor trims the palette: only its LZW is wanted.
    image_of(indices[..., None]).save(buffer, "GIF", optimize=False, interlace=False)
    data = buffer.getvalue()
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at] == 0x21:
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    at += 10 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
    return data[at:-1]
