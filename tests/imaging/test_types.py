"""Frames as bands of rows."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import noise

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs.png import compress_rows
from dsclora_cli.imaging.types import Frame, StreamedFrame, regroup_bands, stack_bands


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 12))
def test_regrouped_bands_hold_the_same_rows(heights, rows):
    pixels = noise(3, np.uint8, (sum(heights), 4))
    bands = list(regroup_bands(np.split(pixels, np.cumsum(heights)[:-1]), rows))
    assert {len(band) for band in bands[:-1]} <= {rows} and 0 < len(bands[-1]) <= rows
    np.testing.assert_array_equal(np.concatenate(bands), pixels)


@pytest.mark.parametrize("take", [lambda bands: regroup_bands(bands, 12), lambda bands: compress_rows(bands, 1)])
def test_a_band_that_waits_for_the_next_does_not_stay_in_memory(take):
    made: list[weakref.ref[np.ndarray]] = []

    def bands():
        for _ in range(3):
            # One band at a time: the one before may still be in the hand of the reader.
            assert all(ref() is None for ref in made[:-1])
            band = noise(3, np.uint8, (5, 4))
            made.append(weakref.ref(band))
            yield band
            del band

    assert list(take(bands())) and len(made) == 3


def test_bands_are_made_only_when_they_are_read():
    pixels = noise(1, np.uint16, (6, 5))
    taken = []

    def bands():
        for row in range(6):
            taken.append(row)
            yield pixels[row : row + 1]

    frame = StreamedFrame(pixels.shape, bands(), 40.0)
    assert (frame.shape, frame.duration_ms, taken) == ((6, 5, 1), 40.0, [])
    next(frame.bands())
    assert taken == [0]
    whole = StreamedFrame(pixels.shape, bands())
    np.testing.assert_array_equal(whole.pixels, pixels)
    assert whole.pixels is whole.pixels


def test_a_whole_frame_is_one_band():
    pixels = noise(3)
    frame = Frame(pixels)
    assert frame.shape == pixels.shape
    assert [band is pixels for band in frame.bands()] == [True]
    assert stack_bands(frame.bands(), frame.shape) is pixels


def test_missing_bands_are_an_error():
    with pytest.raises(ImageError, match="only 4 of 5 rows arrived"):
        stack_bands(iter([noise(3, np.uint8, (4, 5))]), (5, 5, 3))
    with pytest.raises(ImageError, match="only 0 of 5 rows arrived"):
        stack_bands(iter([]), (5, 5, 3))
