"""Colour under transparency."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import noise

from dsclora_cli.imaging.color import bleed, flatten, unpremultiply


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_visible_pixels_do_not_change_and_hidden_ones_are_filled(dtype, channels):
    colour, alpha = noise(channels, dtype), np.zeros((33, 47, 1), dtype)
    colour[:] = colour // 2 + 1 if dtype is not np.float32 else colour / 2 + 0.1
    alpha[10:14, 20:29] = 1
    hidden = alpha[..., 0] == 0
    colour[hidden] = 0
    filled = bleed(colour, alpha)
    assert filled.dtype == np.dtype(dtype) and filled.shape == colour.shape
    np.testing.assert_array_equal(filled[~hidden], colour[~hidden])
    assert (filled[hidden] > 0).all()
    assert filled.min() >= colour[~hidden].min() and filled.max() <= colour[~hidden].max()


def test_the_fill_is_that_of_the_near_side():
    colour = np.zeros((64, 64, 3), np.uint8)
    alpha = np.zeros((64, 64, 1), np.uint8)
    colour[:, :16], colour[:, 48:] = (200, 10, 10), (10, 10, 200)
    alpha[:, :16] = alpha[:, 48:] = 255
    filled = bleed(colour, alpha)
    assert (filled[:, 16:24] == (200, 10, 10)).all() and (filled[:, 40:48] == (10, 10, 200)).all()


def test_beside_a_ragged_edge_the_fill_resembles_the_nearest_pixel():
    rows, columns = np.mgrid[0:97, 0:89]
    colour = np.stack([rows * 2, columns * 2, 255 - rows], axis=2).clip(0, 255).astype(np.uint8)
    alpha = ((rows - 40) ** 2 + (columns - 45) ** 2 < 900).astype(np.uint8)[..., None]
    seen, hidden = np.argwhere(alpha[..., 0] > 0), np.argwhere(alpha[..., 0] == 0)
    distances = ((hidden[:, None] - seen) ** 2).sum(axis=2)
    rim = distances.min(axis=1) <= 9
    nearest = seen[distances.argmin(axis=1)]
    filled = bleed(np.where(alpha > 0, colour, 0).astype(np.uint8), alpha)
    difference = filled[tuple(hidden[rim].T)].astype(int) - colour[tuple(nearest[rim].T)]
    assert rim.sum() > 300 and np.abs(difference).max() <= 16


def test_nothing_to_do():
    colour = noise(3)
    assert bleed(colour, np.full((33, 47, 1), 3, np.uint8)) is colour
    assert bleed(colour, np.zeros((33, 47, 1), np.uint8)) is colour
    assert bleed(colour[:1, :1], np.ones((1, 1, 1), np.uint8)).shape == (1, 1, 3)


def test_one_visible_pixel_fills_a_large_picture():
    colour, alpha = np.full((1500, 1400, 3), 9, np.uint8), np.zeros((1500, 1400, 1), np.uint8)
    alpha[1000, 1000], colour[1000, 1000] = 1, 7
    assert (bleed(colour, alpha) == 7).all()


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_flattening(dtype, white):
    pixels = np.array([[[0, white], [0, 0], [white, 0]]], dtype)
    flat = flatten(pixels)
    assert flat.dtype == np.dtype(dtype) and flat.ravel().tolist() == [0, white, white]


def test_unpremultiplying_holds_the_range():
    pixels = np.array([[[100, 128], [200, 100], [5, 0]]], np.uint8)
    assert unpremultiply(pixels).tolist() == [[[199, 128], [255, 100], [0, 0]]]
