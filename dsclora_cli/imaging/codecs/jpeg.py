"""JPEG out band by band: Pillow encodes strips, and restart markers make one picture of them (ITU-T T.81, B.2.1).

A decoder starts anew at a restart marker just as an encoder does with a new picture, so strips of whole rows of blocks
with one set of tables, put one after another, are the JPEG of the whole, to the bit.

How strongly a JPEG was compressed, from the quantisation tables that it carries.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.imaging.color import image_of
from dsclora_cli.imaging.types import AnyFrame, Pixels, regroup_bands

_BLOCK = 8  # pixels a side: without chroma subsampling a unit of the scan is one block of each channel
_MOST_UNITS = 65535  # between two restart markers
_STRIP = 2**24  # pixels; smaller pictures have no restart markers
_SOF0, _SOS, _DRI, _RST0, _EOI = 0xC0, 0xDA, b"\xff\xdd\0\4", 0xD0, b"\xff\xd9"


def write(target: BinaryIO, frame: AnyFrame, options: Mapping[str, object]) -> None:
    """Write `(H, W, 1 | 3)` uint8 with Pillow's `options`, among which `subsampling` is 0, as its bands come."""
    height, width, _ = frame.shape
    units = -(-width // _BLOCK)
    rows = max(1, min(_MOST_UNITS // units, _STRIP // width // _BLOCK, -(-height // _BLOCK)))
    plain = {name: options[name] for name in ("quality", "subsampling")}
    for index, strip in enumerate(regroup_bands(frame.bands(), rows * _BLOCK)):
        coded = _encoded(strip, plain if index else options)
        start, end = _scan(coded)
        if index == 0:
            target.write(_head(coded[:start], height, rows * units if len(strip) < height else 0) + coded[start:end])
        else:
            target.write(bytes((0xFF, _RST0 + (index - 1) % 8)))
        target.write(coded[end : -len(_EOI)])
    target.write(_EOI)


def _encoded(strip: Pixels, options: Mapping[str, object]) -> bytes:
    buffer = io.BytesIO()
    image_of(strip).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _head(head: bytes, height: int, interval: int) -> bytes:
    """All before the scan's header, with the height of the whole and the units between restart markers."""
    patched = bytearray(head)
    for kind, at, _ in _segments(head):
        if kind == _SOF0:
            struct.pack_into(">H", patched, at + 5, height)
    return bytes(patched) + (_DRI + struct.pack(">H", interval) if interval else b"")


def _scan(coded: bytes) -> tuple[int, int]:
    """Where the header of the scan starts, and where it ends."""
    return next((at, at + 2 + size) for kind, at, size in _segments(coded) if kind == _SOS)


def _segments(coded: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, place and size of the segments up to the scan's header."""
    at = 2
    while at < len(coded):
        kind, size = coded[at + 1], int.from_bytes(coded[at + 2 : at + 4], "big")
        yield kind, at, size
        at += 2 + size


_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""The luminance table of ITU-T T.81, Annex K.1, which the IJG's library scales by quality."""


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """The IJG quality, 1 to 100, whose luminance table is nearest to the file's; None for a file without tables.

    Tables of other encoders (cameras, Photoshop) are no scaled Annex K: for them it is the quality of like strength.
    """
    if 0 not in tables or len(tables[0]) != len(_LUMINANCE):
        return None
    # Sorted, as decoders differ in whether they undo the zigzag; a 0 is damage that the decoder will speak of.
    table = np.sort(np.maximum(tables[0], 1.0))
    distances = [float(np.abs(np.log(table / np.sort(_scaled(quality)))).sum()) for quality in range(1, 101)]
    return 1 + int(np.argmin(distances))


def _scaled(quality: int) -> NDArray[np.float64]:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled: NDArray[np.float64] = np.clip((np.array(_LUMINANCE) * percent + 50) // 100, 1, 255).astype(np.float64)
    return scaled
