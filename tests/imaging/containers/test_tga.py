"""TGA: alpha that means something, and alpha that does not."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pictures import read_still, smooth

HEAD = struct.Struct("<BBBHHBHHHHBB")


def tga_file(alpha: int, attribute_bits: int, meaning: int | None = None) -> bytes:
    """Return a TGA of 32 bits with the same alpha everywhere; `meaning` stands in the extension area."""
    pixels = smooth()
    height, width, _ = pixels.shape
    stored = np.dstack([pixels[..., ::-1], np.full((height, width), alpha, np.uint8)]).tobytes()
    data = HEAD.pack(0, 0, 2, 0, 0, 0, 0, 0, width, height, 32, 0x20 | attribute_bits) + stored
    if meaning is None:
        return data + struct.pack("<II", 0, 0) + b"TRUEVISION-XFILE.\0"
    extension = struct.pack("<H", 495) + bytes(492) + bytes((meaning,))
    return data + extension + struct.pack("<II", len(data), 0) + b"TRUEVISION-XFILE.\0"


@pytest.mark.parametrize(
    ("bits", "meaning", "channels"), [(0, None, 3), (8, None, 4), (8, 0, 3), (8, 1, 3), (8, 2, 3), (8, 3, 4), (0, 3, 4)]
)
def test_alpha_counts_only_where_the_file_says_so(bits, meaning, channels):
    header, pixels = read_still(tga_file(77, bits, meaning))
    assert header.channels == channels
    np.testing.assert_array_equal(pixels[..., :3], smooth())
    assert channels == 3 or (pixels[..., 3] == 77).all()


def test_premultiplied_alpha_is_divided_out():
    _, pixels = read_still(tga_file(128, 8, 4))
    right = np.minimum(np.rint(smooth() * (255 / 128)), 255)
    assert np.abs(pixels[..., :3] - right).max() <= 1
