"""JPEG 2000: more than 8 bits in, and files that other readers understand."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
from pictures import noise, read_still, saved_still
from PIL import Image


@pytest.mark.parametrize(("bits", "channels"), [(10, 1), (12, 3), (16, 3)])
def test_jpeg_2000_of_more_than_8_bits_uses_the_full_16(bits, channels):
    pixels = noise(channels, np.uint16) >> (16 - bits)
    flat = pixels[..., 0] if channels == 1 else pixels
    data = imagecodecs.jpeg2k_encode(flat, level=0, codecformat="jp2", reversible=True, bitspersample=bits)
    header, again = read_still(bytes(data))
    assert header.dtype == np.uint16 and header.notes == ()
    np.testing.assert_array_equal(again, np.rint(pixels * (65535 / (2**bits - 1))).astype(np.uint16))


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_declared_to_other_readers(channels):
    data = saved_still(noise(channels), "JPEG2000")
    assert data.count(b"cdef") == 1
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(np.asarray(image), noise(channels))
