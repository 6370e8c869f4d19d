"""JPEG band by band: the same picture as Pillow's JPEG of the whole, with the metadata once."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pictures import noise, smooth
from PIL import Image

from dsclora_cli.imaging.codecs import jpeg
from dsclora_cli.imaging.color import pixels_to_image
from dsclora_cli.imaging.formats import load_plugin
from dsclora_cli.imaging.types import Metadata, Pixels, StreamedFrame

PROFILE = bytes(range(1, 251)) * 280
METADATA = Metadata(icc=PROFILE, dpi=(72, 72), text=(("comment", "of the whole"),))
OPTIONS = {"quality": 90, "subsampling": 0, "dpi": (72, 72), "comment": b"of the whole", "icc_profile": PROFILE}


def whole(pixels: Pixels) -> bytes:
    load_plugin("JPEG")
    buffer = io.BytesIO()
    pixels_to_image(pixels).save(buffer, "JPEG", **OPTIONS)
    return buffer.getvalue()


def banded(pixels: Pixels, cuts: list[int]) -> bytes:
    buffer = io.BytesIO()
    jpeg.write_jpeg(buffer, StreamedFrame(pixels.shape, np.split(pixels, cuts)), METADATA, 90)
    return buffer.getvalue()


def decoded(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (40, 33), (97, 50), (160, 21)])
@pytest.mark.parametrize("channels", [1, 3])
def test_strips_decode_to_the_same_pixels_as_the_whole(size, channels, monkeypatch):
    pixels = noise(channels, np.uint8, size)
    assert banded(pixels, []) == whole(pixels)
    monkeypatch.setattr(jpeg, "_STRIP", 16 * size[1])
    for cuts in ([], [1], [7, 20]):
        data = banded(pixels, [cut for cut in cuts if cut < size[0]])
        np.testing.assert_array_equal(decoded(data), decoded(whole(pixels)))
        assert data.count(b"of the whole") == 1
        assert len(data) - len(whole(pixels)) <= 6 + 4 * -(-size[0] // 16)
        assert (b"\xff\xdd" in data) == (size[0] > 16)
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (size[1], size[0]) and image.info["icc_profile"] == PROFILE


def test_wide_pictures_have_as_many_restart_markers_as_the_format_demands(monkeypatch):
    """A row of blocks has 5 units, and at most 12 units are allowed between markers."""
    monkeypatch.setattr(jpeg, "_MOST_UNITS", 12)
    pixels = smooth(3, (64, 40))
    data = banded(pixels, [])
    np.testing.assert_array_equal(decoded(data), decoded(whole(pixels)))
    at = data.index(b"\xff\xdd\0\4")
    assert int.from_bytes(data[at + 4 : at + 6], "big") == 10


def test_a_picture_of_the_largest_width_is_written():
    pixels = np.zeros((24, 65500, 1), np.uint8)
    pixels[:, ::3] = 200
    np.testing.assert_array_equal(decoded(banded(pixels, [5]))[..., None], decoded(whole(pixels))[..., None])
