"""Color under transparency, and pictures laid on white."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import noise

from dsclora_cli.imaging.color import bleed, flatten, hold_areas, unpremultiply


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_visible_pixels_do_not_change_and_transparent_pixels_are_filled(dtype, channels):
    color, alpha = noise(channels, dtype), np.zeros((33, 47, 1), dtype)
    color[:] = color // 2 + 1 if dtype is not np.float32 else color / 2 + 0.1
    alpha[10:14, 20:29] = 1
    hidden = alpha[..., 0] == 0
    color[hidden] = 0
    filled = bleed(color, alpha)
    assert filled.dtype == np.dtype(dtype) and filled.shape == color.shape
    np.testing.assert_array_equal(filled[~hidden], color[~hidden])
    assert (filled[hidden] > 0).all()
    assert filled.min() >= color[~hidden].min() and filled.max() <= color[~hidden].max()


def test_holes_are_filled_from_the_nearer_side():
    color = np.zeros((64, 64, 3), np.uint8)
    alpha = np.zeros((64, 64, 1), np.uint8)
    color[:, :16], color[:, 48:] = (200, 10, 10), (10, 10, 200)
    alpha[:, :16] = alpha[:, 48:] = 255
    filled = bleed(color, alpha)
    assert (filled[:, 16:24] == (200, 10, 10)).all() and (filled[:, 40:48] == (10, 10, 200)).all()


def test_next_to_an_edge_the_fill_resembles_the_nearest_visible_pixel():
    rows, columns = np.mgrid[0:97, 0:89]
    color = np.stack([rows * 2, columns * 2, 255 - rows], axis=2).clip(0, 255).astype(np.uint8)
    alpha = ((rows - 40) ** 2 + (columns - 45) ** 2 < 900).astype(np.uint8)[..., None]
    seen, hidden = np.argwhere(alpha[..., 0] > 0), np.argwhere(alpha[..., 0] == 0)
    distances = ((hidden[:, None] - seen) ** 2).sum(axis=2)
    rim = distances.min(axis=1) <= 9
    nearest = seen[distances.argmin(axis=1)]
    filled = bleed(np.where(alpha > 0, color, 0).astype(np.uint8), alpha)
    difference = filled[tuple(hidden[rim].T)].astype(int) - color[tuple(nearest[rim].T)]
    assert rim.sum() > 300 and np.abs(difference).max() <= 16


def test_color_without_transparent_or_without_visible_pixels_is_returned_unchanged():
    color = noise(3)
    assert bleed(color, np.full((33, 47, 1), 3, np.uint8)) is color
    assert bleed(color, np.zeros((33, 47, 1), np.uint8)) is color
    assert bleed(color[:1, :1], np.ones((1, 1, 1), np.uint8)).shape == (1, 1, 3)


def test_one_visible_pixel_fills_a_large_picture():
    color, alpha = np.full((1500, 1400, 3), 9, np.uint8), np.zeros((1500, 1400, 1), np.uint8)
    alpha[1000, 1000], color[1000, 1000] = 1, 7
    assert (bleed(color, alpha) == 7).all()


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_transparent_pixels_become_white(dtype, white):
    pixels = np.array([[[0, white], [0, 0], [white, 0]]], dtype)
    flat = flatten(pixels)
    assert flat.dtype == np.dtype(dtype) and flat.ravel().tolist() == [0, white, white]


def test_color_divided_by_alpha_is_limited_to_white():
    pixels = np.array([[[100, 128], [200, 100], [5, 0]]], np.uint8)
    assert unpremultiply(pixels).tolist() == [[[199, 128], [255, 100], [0, 0]]]


def test_areas_are_the_same_for_a_result_in_bands() -> None:
    rng = np.random.default_rng(0)
    alpha = np.kron(rng.integers(0, 4, (20, 30)) * 80, np.ones((5, 7), int)).astype(np.uint8)[:, :, None]
    alpha[::9, :, 0] = 255  # lines, which are no areas
    upscaled = rng.integers(0, 256, (250, 525, 1)).astype(np.uint8)
    box = (0.0, 0.0, 210.0, 100.0)
    (whole,) = hold_areas([upscaled], alpha, box, 250)
    assert not np.array_equal(whole, upscaled)
    for count in (2, 17, 250):
        bands = [*hold_areas(np.array_split(upscaled, count), alpha, box, 250)]
        np.testing.assert_array_equal(np.concatenate(bands), whole)
