"""PGM and PPM of more than 8 bits."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pictures import noise, read_still, saved_still

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageUnreadable
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Metadata


@pytest.mark.parametrize(
    "data",
    [
        b"P6 2 1 65535\n" + struct.pack(">6H", 0, 1, 2, 300, 65534, 65535),
        b"P3\n# a comment\n2 1\n# another\n65535\n0 1 2 # here too\n300 65534 65535\n",
    ],
)
def test_a_ppm_of_16_bits_keeps_its_values(data):
    header, pixels = read_still(data)
    assert (header.format, header.dtype) == ("PPM", np.uint16)
    assert pixels.ravel().tolist() == [0, 1, 2, 300, 65534, 65535]


def test_a_pgm_with_another_white_level_is_stretched_to_16_bits():
    assert read_still(b"P5\n3 1\n1023\n" + struct.pack(">3H", 0, 512, 1023))[1].ravel().tolist() == [0, 32800, 65535]


@pytest.mark.parametrize("word", [b"9" * 5000, b"9" * 30, b"x", b"1.5"])
def test_a_value_that_is_no_number_of_a_usual_size_is_damage(word):
    with pytest.raises(ImageUnreadable, match="a value is no whole number of a usual size"):
        read_still(b"P2 2 1 70\n0 " + word)


@pytest.mark.parametrize("one", [b"P5\n2 1\n65535\nabcd", b"P5\n2 1\n255\nab", b"P6\n1 1\n255\nabc", b"P4\n9 1\nab"])
def test_a_further_picture_in_the_file_is_told(one):
    assert read_still(one)[0].notes == ()
    assert read_still(one + one)[0].notes == ("only the first picture in this PPM was read",)


def test_a_pfm_with_a_scale_that_is_no_number_is_damage():
    with pytest.raises(ImageUnreadable, match=r"states the scale -1\.-7"):
        read_still(b"PF\n1 1\n-1.-7\n" + bytes(12))


def pfm(kind: bytes, scale: float, values: np.ndarray) -> bytes:
    """Return a PFM, rows from bottom to top; a negative scale is for little-endian values."""
    height, width = values.shape[:2]
    return (
        b"P%s\n# made\n%d %d\n%.1f\n" % (kind, width, height, scale)
        + values[::-1].astype("<f4" if scale < 0 else ">f4").tobytes()
    )


@pytest.mark.parametrize("scale", [-1.0, 1.0, -2.5])
@pytest.mark.parametrize(("kind", "channels"), [(b"f", 1), (b"F", 3)])
def test_a_pfm_keeps_its_floats(scale, kind, channels):
    values = noise(channels, np.float32) * 3 - 1
    header, pixels = read_still(pfm(kind, scale, values))
    assert (header.format, header.dtype, header.channels) == ("PPM", np.float32, channels)
    np.testing.assert_array_equal(pixels, values)
    assert header.metadata.comments == [b"made"]
    assert header.notes == (() if abs(scale) == 1 else ("the scale that the PFM states, 2.5, was left out",))


def test_a_pfm_that_ends_too_early_or_holds_no_numbers_is_refused():
    whole = pfm(b"F", -1.0, noise(3, np.float32))
    with pytest.raises(ImageUnreadable, match="only 4652 of 4653 values are present"):
        read_still(whole[:-2])
    with pytest.raises(ImageUnreadable, match="the PFM holds NaN or infinity"):
        read_still(whole[:-4] + np.float32(np.nan).tobytes())
    with open_picture(whole[:-2], ReadOptions(salvage=True)) as reader:
        assert next(reader.frames()).note == "salvaged: 4652 of 4653 values"


def test_comments_are_kept():
    data = saved_still(noise(3), "PPM", Metadata(text=(("comment", "one\ntwo"), ("comment", "gr\u00fc\u00dfe"))))
    assert data.startswith("P6\n# one\n# two\n# gr\u00fc\u00dfe\n47 33\n255\n".encode())
    header, pixels = read_still(data)
    assert header.metadata.comments == [b"one", b"two", "gr\u00fc\u00dfe".encode()]
    np.testing.assert_array_equal(pixels, noise(3))
