"""JPEG out band by band: Pillow encodes strips, and restart markers make one picture of them (ITU-T T.81, B.2.1).

A decoder starts anew at a restart marker just as an encoder does with a new picture, so strips of whole rows of blocks
with one set of tables, put one after another, are the JPEG of the whole, to the bit.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from dsclora_cli.imaging.colour import image_of
from dsclora_cli.imaging.picture import AnyFrame, Pixels, regrouped

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
    for index, strip in enumerate(regrouped(frame.bands(), rows * _BLOCK)):
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
