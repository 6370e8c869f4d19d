"""BMP: the colors of the longer headers (V4 and V5), unknown to Pillow."""

from __future__ import annotations

import struct
from typing import BinaryIO

from dsclora_cli.imaging.profiles import ColorChunks, chunks_of_primaries

_FILE_HEADER, _V4, _V5 = 14, 108, 124  # bytes
_CALIBRATED, _EMBEDDED, _LINKED = 0, 0x4D424544, 0x4C494E4B  # "MBED" and "LINK"
_MAX_PROFILE = 2**24  # bytes


def read_bmp_colors(file: BinaryIO) -> tuple[bytes | None, ColorChunks, tuple[str, ...]]:
    """Return the embedded ICC profile, or primaries and gamma as PNG chunks, and notes about lost colors.

    Nothing for sRGB and for other BMPs.
    """
    file.seek(_FILE_HEADER)
    head = file.read(_V5)
    (size,) = struct.unpack_from("<I", head.ljust(4, b"\0"))
    if size < _V4 or len(head) < min(size, _V5):
        return None, (), ()
    (kind,) = struct.unpack_from("<I", head, 56)
    if kind == _EMBEDDED and size >= _V5:
        place, length = struct.unpack_from("<II", head, 112)
        file.seek(_FILE_HEADER + place)
        return file.read(min(length, _MAX_PROFILE)) or None, (), ()
    if kind == _LINKED:
        return None, (), ("the BMP names a colour profile in another file, which is not read: sRGB is assumed",)
    if kind != _CALIBRATED:
        return None, (), ()
    ends = [value / 2**30 for value in struct.unpack_from("<9i", head, 60)]  # X, Y and Z of red, green and blue
    colors = [ends[at : at + 3] for at in (0, 3, 6)]
    white = [sum(color[axis] for color in colors) for axis in range(3)]
    sums = [sum(color) for color in (white, *colors)]
    if min(sums) <= 0:
        return None, (), ()
    points = [color[axis] / total for color, total in zip((white, *colors), sums, strict=True) for axis in (0, 1)]
    gamma = sum(struct.unpack_from("<3I", head, 96)) / 3 / 2**16
    return None, chunks_of_primaries(points, gamma), ()
