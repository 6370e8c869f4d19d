"""Files that are broken, foreign, huge or out of reach: one clear line each, and nothing on standard error."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from pictures import (
    HEIGHT,
    IPTC,
    WIDTH,
    animation,
    everything,
    header_of,
    noise,
    read,
    read_still,
    saved,
    saved_still,
    smooth,
)

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import reader as reader_module
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.reader import open_picture

PLAIN = sorted(name for name, held in FORMATS.items() if not held.extra)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("format", PLAIN)
def test_no_truncated_file_becomes_half_a_picture(format, share):
    data = saved_still(noise(3, np.uint8, (120, 90)), format)
    with pytest.raises(ImageError, match="<stdin>: ") as caught:
        read(data[: int(len(data) * share)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_a_truncated_animation_is_an_error(format):
    frames, _ = animation()
    header = header_of(frames[0].pixels, format, frames=len(frames), animated=True, loop=0)
    data = saved(header, frames)
    with pytest.raises(ImageError):
        read(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"just some text\n" * 20, "is not a picture in a known format"),
        (b"\xff\xd8\xff", "damaged or truncated"),
        (b"\x89PNG\r\n\x1a\n", "the PNG is truncated"),
        (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "states no size"),
        (b"RIFF\x08\0\0\0WEBPVP8 ", "damaged or truncated"),
    ],
)
def test_what_is_no_picture_says_so_in_one_line(content, message, tmp_path: Path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        open_picture(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_folders_missing_and_unreadable_files(tmp_path: Path):
    with pytest.raises(ImageError, match="is a folder, not a picture"):
        open_picture(tmp_path)
    with pytest.raises(ImageError, match="No such file"):
        open_picture(tmp_path / "absent.png")
    locked = tmp_path / "locked.png"
    locked.write_bytes(saved_still(smooth(), "PNG"))
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ImageError, match="Permission denied"):
        open_picture(locked)


def test_corrupt_compressed_data_is_an_error():
    data = bytearray(saved_still(noise(3), "PNG"))
    data[len(data) // 2] ^= 0x55
    with pytest.raises(ImageError, match="damaged"):
        read(bytes(data))


def test_a_gigapixel_is_the_limit(monkeypatch):
    head = struct.pack(">IIBBBBB", 40_000, 25_001, 8, 2, 0, 0, 0)
    bomb = png.SIGNATURE + png.make_chunk(b"IHDR", head) + png.make_chunk(b"IDAT", b"") + png.make_chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="<stdin>: 40000 x 25001 pixels are more than the 1000 million allowed"):
        open_picture(bomb)
    monkeypatch.setattr(reader_module, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    with pytest.raises(ImageError, match="allowed"):
        open_picture(saved_still(smooth(), "JPEG"))


def test_decoders_print_nothing(capfd):
    """A grey PNG with an RGB profile, and a TIFF with a broken tag: common, harmless, and not worth a line."""
    pixels = smooth(1)
    np.testing.assert_array_equal(read_still(saved_still(pixels, "PNG", everything()))[1], pixels)
    tiff = saved_still(pixels, "TIFF", everything())
    broken = tiff.replace(struct.pack("<HHI", 33723, 7, len(IPTC)), struct.pack("<HHI", 33723, 99, len(IPTC)))
    assert broken != tiff
    np.testing.assert_array_equal(read_still(broken)[1], pixels)
    assert capfd.readouterr() == ("", "")


@settings(max_examples=60, deadline=None)
@given(format=some.sampled_from(PLAIN), places=some.lists(some.integers(0, 10**6), min_size=1, max_size=5))
def test_any_damage_is_one_clear_error_or_none(format, places):
    data = bytearray(saved_still(smooth(), format, everything()))
    for place in places:
        data[place % len(data)] ^= 1 + place % 255
    message = "<stdin>: a picture"
    try:
        read(bytes(data))
    except ImageError as error:
        message = str(error)
    assert message.startswith("<stdin>: ") and "\n" not in message


def test_extras_that_are_missing_are_named(monkeypatch):
    monkeypatch.setattr("dsclora_cli.imaging.formats.find_spec", lambda module: None)
    heic = b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(40)
    jxl = b"\xff\x0a" + bytes(40)
    for data, extra in ((heic, "heif"), (jxl, "jxl")):
        with pytest.raises(ImageError) as caught:
            open_picture(data)
        assert caught.value.hint == f'pip install "dsclora[{extra}]"' and str(caught.value).startswith("<stdin>: ")
