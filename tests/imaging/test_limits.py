"""Claims of a file are checked before memory is spent: pixels at once, all frames together, free memory."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from pictures import pillow_file, saved_still, smooth
from PIL import Image

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import limits
from dsclora_cli.imaging.codecs import png, tiff_reader
from dsclora_cli.imaging.reader import open_picture


def huge_png(width: int, height: int, *chunks: bytes) -> bytes:
    head = png.make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"".join((png.SIGNATURE, head, *chunks, png.make_chunk(b"IDAT", b""), png.make_chunk(b"IEND", b"")))


def huge_gif(width: int, height: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x44\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame + b"\x3b"


def huge_jpeg(width: int, height: int) -> bytes:
    data = saved_still(smooth(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def huge_tiff(**options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, smooth(3, (64, 64)), photometric="rgb", metadata=None, **options)
    data = buffer.getvalue()
    # The tags of width, height and rows in a strip.
    for tag in (256, 257, 278):
        data = data.replace(struct.pack("<HHII", tag, 4, 1, 64), struct.pack("<HHII", tag, 4, 1, 60_000))
        data = data.replace(struct.pack("<HHIHH", tag, 3, 1, 64, 0), struct.pack("<HHIHH", tag, 3, 1, 60_000, 0))
    return data


@pytest.mark.parametrize(
    ("data", "claim"),
    [
        (huge_png(40_000, 25_001), "40000 x 25001"),
        (huge_gif(30_000, 30_000), "30000 x 30000"),
        (huge_jpeg(30_000, 30_000), "30000 x 30000"),
        (huge_tiff(compression="zlib"), "60000 x 60000"),
        (b"P5 99999 99999 70 " + bytes(9), "99999 x 99999"),
        (b"P6 99999 99999 255 " + bytes(9), "99999 x 99999"),
        (pillow_file(Image.new("1", (20_000, 20_000)), "BMP")[:200], "20000 x 20000"),
    ],
)
def test_a_small_file_that_claims_many_pixels_is_refused_in_one_line(data, claim):
    with pytest.raises(ImageError) as caught:
        open_picture(data)
    message = str(caught.value)
    assert message.startswith(f"<stdin>: claims {claim} pixels, more than the 200 million allowed at once (")
    assert "--max-pixels" in message and "\n" not in message


@pytest.mark.parametrize("side", [8, 12])
def test_a_size_of_zero_is_damage(side):
    """The size of a JPEG 2000 is a difference of two values, and the decoder opens a file whose difference is 0."""
    data = bytearray(pillow_file(Image.fromarray(smooth()), "JPEG2000", no_jp2=True))
    data[side + 8 : side + 12] = data[side : side + 4]
    with pytest.raises(ImageError, match=r"claims .* pixels: the file is damaged|damaged or truncated") as caught:
        open_picture(bytes(data))
    assert "\n" not in str(caught.value)


def test_more_pixels_are_allowed_on_demand():
    data = saved_still(smooth(3, (50, 60)), "PNG")
    with pytest.raises(ImageError, match=r"more than the 1000 pixels allowed"):
        open_picture(data, ReadOptions(max_pixels=1000))
    with open_picture(data, ReadOptions(max_pixels=3000)) as picture:
        assert len(list(picture.frames())) == 1


def test_frames_count_together():
    play = png.make_chunk(b"acTL", struct.pack(">II", 2_000_000, 0))
    with pytest.raises(
        ImageError, match="claims 10000 x 10000 pixels in each of 2000000 frames, in all more than 20000"
    ):
        open_picture(huge_png(10_000, 10_000, play))


def test_free_memory_is_a_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "host_memory", lambda: 20_000)
    with pytest.raises(
        ImageError, match=r"claims 60 x 50 pixels, which need 2\.7e-05 GB of memory, and 2e-05 GB are free"
    ):
        open_picture(saved_still(smooth(3, (50, 60)), "PNG"))


@pytest.mark.parametrize(
    ("options", "at_once"),
    [({}, 80), ({"compression": "zlib", "rowsperstrip": 10}, 800), ({"compression": "zlib", "tile": (16, 32)}, 1792)],
)
def test_a_tiff_read_in_bands_counts_as_a_band(options, at_once, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tiff_reader, "_LARGE", 0)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, smooth(3, (100, 80)), photometric="rgb", **options)
    with open_picture(buffer.getvalue(), ReadOptions(max_pixels=at_once)) as picture:
        (frame,) = picture.frames()
        assert sum(len(band) for band in frame.bands()) == 100
    for limit, in_bands in ((at_once - 1, True), (7999, False)):
        with pytest.raises(ImageError, match="allowed at once"):
            open_picture(buffer.getvalue(), ReadOptions(max_pixels=limit), in_bands=in_bands)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(47, 33), (64, 64), (1600, 900), (300, 200), (264, 8)])
def test_the_size_of_jpeg_xl_is_known_before_the_plugin_decodes(size):
    pytest.importorskip("pillow_jxl")
    data = pillow_file(Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8)), "JXL", lossless=True)
    with pytest.raises(ImageError, match=f"claims {size[0]} x {size[1]} pixels"):
        open_picture(data, ReadOptions(max_pixels=size[0] * size[1] - 1))
    assert open_picture(data).header.width == size[0]
