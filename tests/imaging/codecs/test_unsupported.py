"""Whole files of kinds that no decoder reads are "not supported", and not "damaged"."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pictures import noise, pillow_file, read, saved_still, smooth
from PIL import Image

from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.imaging.codecs import png


def jpeg_with(**bytes_at) -> bytes:
    """Return a JPEG whose frame header has another marker, depth or number of channels."""
    data = bytearray(saved_still(smooth(), "JPEG"))
    at = data.index(b"\xff\xc0")
    for name, value in bytes_at.items():
        data[at + {"marker": 1, "bits": 4, "channels": 9}[name]] = value
    return bytes(data)


def bmp_with(compression: int, header: int = 40) -> bytes:
    data = bytearray(pillow_file(Image.fromarray(smooth()), "BMP"))
    data[14:18], data[30:34] = struct.pack("<I", header), struct.pack("<I", compression)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (jpeg_with(bits=12), "JPEG with 12 bits per channel"),
        (jpeg_with(marker=0xC1, bits=12), "JPEG with 12 bits per channel"),
        (jpeg_with(marker=0xC3), "lossless JPEG"),
        (jpeg_with(marker=0xC5), "hierarchical JPEG"),
        (jpeg_with(marker=0xF7), "JPEG-LS"),
        (jpeg_with(channels=2), "JPEG with 2 channels"),
        (
            png.SIGNATURE + png.make_chunk(b"CgBI", b"P\0 \6") + saved_still(smooth(), "PNG")[8:],
            "Apple's own kind of PNG",
        ),
        (bmp_with(4), "Unsupported BMP compression"),
        (bmp_with(5), "Unsupported BMP compression"),
        (bmp_with(0, 99), "Unsupported BMP header type"),
    ],
)
def test_a_whole_file_of_an_unusual_kind_is_not_called_damaged(data, kind):
    with pytest.raises(ImageUnreadable) as caught:
        read(data)
    assert kind in caught.value.message and "not supported" in caught.value.message
    assert "damaged" not in str(caught.value)
    assert caught.value.hint == "convert it to PNG or TIFF with another program"


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_usual_kinds_are_read(mode):
    assert np.shape(read(pillow_file(Image.fromarray(noise(3)).convert(mode), "JPEG", progressive=True))[1]) == (1,)
