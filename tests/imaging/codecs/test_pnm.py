"""PGM and PPM of more than 8 bits."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from pictures import read_still


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


@pytest.mark.parametrize("one", [b"P5\n2 1\n65535\nabcd", b"P5\n2 1\n255\nab", b"P6\n1 1\n255\nabc", b"P4\n9 1\nab"])
def test_a_further_picture_in_the_file_is_told(one):
    assert read_still(one)[0].notes == ()
    assert read_still(one + one)[0].notes == ("only the first picture in this PPM was read",)
