"""Formats that Pillow decodes, and the notes about parts that are not read."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
from pictures import noise, pillow_file, read, read_still, saved_still, smooth
from PIL import Image


@pytest.mark.parametrize("format", ["GIF", "BMP", "TGA", "TIFF"])
def test_palettes_become_rgb_and_1_bit_becomes_gray(format):
    color = Image.fromarray(smooth())
    header, pixels = read_still(pillow_file(color.quantize(16), format))
    assert header.channels == 3
    np.testing.assert_array_equal(pixels, np.asarray(color.quantize(16).convert("RGB")))
    bits = color.convert("1")
    header, pixels = read_still(pillow_file(bits, format))
    assert header.channels == 1
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(bits.convert("L")))


def test_a_reduced_depth_is_a_note():
    data = imagecodecs.avif_encode(noise(3, np.uint16) >> 6, level=90, bitspersample=10)
    header, _ = read_still(bytes(data))
    assert header.dtype == np.uint8 and header.notes == ("10 bits per channel were reduced to 8",)


def test_a_second_picture_in_a_jpeg_is_left_out_with_a_note():
    data = io.BytesIO()
    first, second = Image.fromarray(smooth()), Image.fromarray(smooth()[::-1].copy())
    first.save(data, "MPO", save_all=True, append_images=[second])
    header, pixels = read_still(data.getvalue())
    assert header.format == "JPEG" and "second picture" in header.notes[0]
    assert np.abs(pixels.astype(int) - smooth()).mean() < 3


def test_a_gif_frame_beyond_the_screen_is_cut_off():
    block = b"\x2c" + struct.pack("<HHHHB", 8, 4, 16, 16, 0)
    first = saved_still(np.full((12, 16, 3), 200, np.uint8), "GIF")
    small = saved_still(np.full((16, 16, 3), 90, np.uint8), "GIF")
    # The image descriptor of the second file, with a local palette, at another place.
    at = small.index(b"\x2c")
    frame = b"\x21\xf9\4\4\5\0\0\0" + block[:-1] + small[at + 9 :]
    header, frames = read(first[:-1] + frame)
    assert (header.width, header.height, header.frames) == (16, 12, 2)
    shown = frames[1].pixels
    assert shown.shape == (12, 16, 4) and (shown[4:, 8:, 0] == 90).all() and (shown[:4, :, 0] == 200).all()
