"""Encoders for animations, a frame at a time: APNG, animated WebP and GIF (still GIFs too).

Pillow would need all frames at once. Of each frame only the area that differs from the previous frame is written.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.color import pixels_to_image
from dsclora_cli.imaging.types import AnyFrame, Header, Pixels

_DEFAULT_MS = 100.0
_MAX_UINT16 = 0xFFFF
_OPAQUE_FROM = 128  # alpha
_TRANSPARENT = 255  # index in the palette of a GIF

Area = tuple[int, int, int, int]
"""Top, left, height and width of a part of a frame, in pixels."""


def write_apng(target: BinaryIO, header: Header, frames: Iterable[AnyFrame], compression: int) -> None:
    """Write an animated PNG.

    Args:
        target: File to write; bytes are only appended.
        header: Describes the frames, their number, the loop and the metadata.
        frames: `header.frames` frames, `(H, W, header.channels)` of `header.dtype`, uint8 or uint16.
        compression: Effort, 0 to 9.
    """
    head = png.header_chunk((header.height, header.width, header.channels), header.dtype)
    plays = struct.pack(">II", header.frames, header.loop or 0)
    target.write(png.SIGNATURE + head + png.make_chunk(b"acTL", plays))
    target.write(png.metadata_chunks(header.metadata))
    # fcTL and fdAT chunks share a count from 0; the pixels of the first frame are IDAT, so that any reader shows them.
    sequence, previous = 0, None
    for frame in frames:
        top, left, height, width = area = changed_area(previous, frame.pixels)
        shown = _as_fraction(_milliseconds(frame) / 1000)
        control = struct.pack(">IIIII", sequence, width, height, left, top)
        control += struct.pack(">HHBB", shown.numerator, shown.denominator, 0, 0)
        target.write(png.make_chunk(b"fcTL", control))
        sequence += 1
        for data in png.compress_rows([_crop(frame.pixels, area)], compression):
            if previous is None:
                target.write(png.make_chunk(b"IDAT", data))
                continue
            target.write(png.make_chunk(b"fdAT", struct.pack(">I", sequence) + data))
            sequence += 1
        previous = frame.pixels
    target.write(png.make_chunk(b"IEND", b""))


def _as_fraction(seconds: float) -> Fraction:
    """Return a duration as an APNG states it: numerator and denominator have 16 bits, so long times are less exact."""
    limited = min(seconds, _MAX_UINT16)
    return Fraction(limited).limit_denominator(min(1000, int(_MAX_UINT16 / max(limited, 1))))


def write_webp_animation(target: BinaryIO, header: Header, frames: Iterable[AnyFrame], quality: int) -> None:
    """Write an animated WebP.

    Args:
        target: File to write, seekable: the size of the file stands at its start.
        header: Describes the frames, their number, the loop and the metadata.
        frames: `header.frames` frames, `(H, W, 3)` or `(H, W, 4)` uint8.
        quality: 1 to 100; 100 is lossless.
    """
    metadata = header.metadata
    # Flags of VP8X, in the bits of the WebP container specification: animation, then what else is in the file.
    present = ((metadata.icc, 0x20), (header.channels == 4, 0x10), (metadata.exif, 0x08), (metadata.xmp, 0x04))
    flags = 0x02 | sum(flag for value, flag in present if value)
    start = target.tell()
    target.write(b"RIFF\0\0\0\0WEBP")
    size = _uint24(header.width - 1) + _uint24(header.height - 1)
    target.write(_riff_chunk(b"VP8X", struct.pack("<I", flags) + size))
    if metadata.icc:
        target.write(_riff_chunk(b"ICCP", metadata.icc))
    # An APNG may count further; 65535 plays are for ever in practice.
    target.write(_riff_chunk(b"ANIM", struct.pack("<IH", 0, min(header.loop or 0, _MAX_UINT16))))
    previous = None
    for frame in frames:
        top, left, height, width = area = changed_area(previous, frame.pixels, even=True)
        place = b"".join(_uint24(value) for value in (left // 2, top // 2, width - 1, height - 1))
        duration = _uint24(min(round(_milliseconds(frame)), 0xFFFFFF))
        data = b"".join(_webp_chunks(_crop(frame.pixels, area), quality))
        target.write(_riff_chunk(b"ANMF", place + duration + b"\2" + data))  # 2: no blending, no disposal
        previous = frame.pixels
    for kind, value in ((b"EXIF", metadata.exif), (b"XMP ", metadata.xmp)):
        if value:
            target.write(_riff_chunk(kind, value))
    end = target.tell()
    target.seek(start + 4)
    target.write(struct.pack("<I", end - start - 8))
    target.seek(end)


def _webp_chunks(pixels: Pixels, quality: int) -> Iterator[bytes]:
    """Yield the chunks with pixels of a still WebP file of `(h, w, 3 | 4)` uint8."""
    buffer = io.BytesIO()
    pixels_to_image(pixels).save(buffer, "WEBP", **webp_options(quality))
    data, at = buffer.getvalue(), 12
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] in (b"ALPH", b"VP8 ", b"VP8L"):
            yield _riff_chunk(data[at : at + 4], data[at + 8 : at + 8 + size])
        at += 8 + size + size % 2


def webp_options(quality: int) -> dict[str, object]:
    """Return Pillow's options for WebP of a quality 1 to 100; 100 is lossless, with the color under transparency."""
    return {"quality": quality, "lossless": quality == 100, "exact": quality == 100, "method": 4}


def _uint24(value: int) -> bytes:
    return value.to_bytes(3, "little")


def _riff_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def write_gif(target: BinaryIO, header: Header, frames: Iterable[AnyFrame]) -> None:
    """Write a GIF, animated or still: 256 colors a frame, alpha cut at a half, times in 1/100 s.

    Args:
        target: File to write; bytes are only appended.
        header: Describes the frames, their number, the loop and the comment.
        frames: `header.frames` frames, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` uint8.
    """
    target.write(b"GIF89a" + struct.pack("<HHBBB", header.width, header.height, 0, 0, 0) + _gif_head(header))
    previous, elapsed, written = None, 0.0, 0
    # Pairs with the next frame, None behind the last: how a frame is disposed depends on the holes of the next.
    for frame, following in pairwise(chain(frames, (None,))):
        assert frame is not None  # only the last of a pair is
        clears = following is not None and bool((_is_hole(following.pixels) & ~_is_hole(frame.pixels)).any())
        # A cleared frame leaves nothing behind: it has to cover the picture, and so has the frame after it.
        top, left, height, width = area = changed_area(None if clears else previous, frame.pixels)
        # From the elapsed time, not from each duration: rounding to 1/100 s must not add up.
        elapsed += _milliseconds(frame)
        rest = round(elapsed / 10) - written if header.animated else 0
        written += rest
        delay = min(rest, _MAX_UINT16)  # the next frame does not make up for what is lost
        indices, palette, holes = _quantize(_crop(frame.pixels, area))
        control = (2 if clears else 1) << 2 | holes
        target.write(b"\x21\xf9\4" + struct.pack("<BHBB", control, delay, _TRANSPARENT if holes else 0, 0))
        target.write(b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0x87) + palette.tobytes())
        target.write(_compress_gif(indices))
        previous = None if clears else frame.pixels
    target.write(b"\x3b")


def _gif_head(header: Header) -> bytes:
    """Return the blocks before the first frame: loop and comment."""
    head = b""
    # A GIF counts repeats: played once is no block at all, played N times is N - 1.
    if header.animated and header.loop != 1:
        repeats = max(0, min(header.loop or 0, 0x10000) - 1)
        head += b"\x21\xff\x0bNETSCAPE2.0\3\1" + struct.pack("<HB", repeats, 0)
    for text in header.metadata.comments:
        parts = [text[at : at + 255] for at in range(0, len(text), 255)]
        head += b"\x21\xfe" + b"".join(bytes((len(part),)) + part for part in parts) + b"\0"
    return head


def _is_hole(pixels: Pixels) -> NDArray[np.bool_]:
    """Return `(H, W)`, True where a GIF shows a pixel `(H, W, C)` as transparent."""
    return pixels[..., 3] < _OPAQUE_FROM if pixels.shape[2] == 4 else np.zeros(pixels.shape[:2], np.bool_)


def _quantize(pixels: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8], bool]:
    """Return indices `(H, W)`, palette `(256, 3)`, and whether index 255 is transparent, for `(H, W, C)` uint8.

    The result is exact where all colors fit into the palette.
    """
    if pixels.shape[2] == 1:
        return pixels[..., 0].astype(np.uint8), np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1), False
    hole = _is_hole(pixels)
    has_holes = bool(hole.any())
    rgb = np.where(hole[..., None], 0, pixels[..., :3]).astype(np.uint8)
    # Each color as a number of 24 bits; a table of all numbers is faster than sorting the pixels.
    packed = rgb.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    seen = np.zeros(2**24, np.bool_)
    seen[packed] = True
    colors = np.flatnonzero(seen)
    palette = np.zeros((256, 3), np.uint8)
    if colors.size <= 256 - has_holes:
        palette[: colors.size] = colors[:, None] >> np.array([0, 8, 16]) & 255
        indices = np.searchsorted(colors, packed).astype(np.uint8)
    else:
        image = pixels_to_image(rgb)
        reduced = image.quantize(256 - has_holes)
        table = np.array(reduced.getpalette(), np.uint8).reshape(-1, 3)
        palette[: len(table)] = table
        indices = np.asarray(image.quantize(palette=reduced)).copy()
    indices[hole] = _TRANSPARENT
    return indices, palette, has_holes


def _compress_gif(indices: NDArray[np.uint8]) -> bytes:
    """Return indices `(H, W)` compressed as in a GIF: code size, blocks, and the empty block at the end."""
    buffer = io.BytesIO()
    # As a gray image, so that Pillow neither sorts nor trims the palette: only its LZW compression is wanted.
    pixels_to_image(indices[..., None]).save(buffer, "GIF", optimize=False, interlace=False)
    data = buffer.getvalue()
    # Skip the head with the global palette, the extension blocks, and the image descriptor with the local palette.
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at] == 0x21:
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    at += 10 + (3 << (data[at + 9] & 7) + 1 if data[at + 9] & 0x80 else 0)
    return data[at:-1]


def changed_area(previous: Pixels | None, current: Pixels, even: bool = False) -> Area:
    """Return the smallest area with all differences between two frames `(H, W, C)`.

    The area is the whole frame without a `previous` frame, and a single pixel without a difference. `even` moves top
    and left to even coordinates, as WebP requires.
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
    """Return the part `(h, w, C)` of a frame `(H, W, C)`."""
    top, left, height, width = area
    return pixels[top : top + height, left : left + width]


def _milliseconds(frame: AnyFrame) -> float:
    """Return the duration of a frame; pages and stills, which have none, get the usual duration of a GIF."""
    return _DEFAULT_MS if frame.duration_ms is None else frame.duration_ms
