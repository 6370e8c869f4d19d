"""Conversion of pixel values to [0, 1] and back."""

from __future__ import annotations

import numpy as np
import pytest

from dsclora_cli.inference.tiling import value_range


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_integer_survives_the_round_trip(dtype: type) -> None:
    pixels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 16, 1)
    values = value_range(pixels)
    unit = values.to_unit(pixels)
    assert (unit.min(), unit.max()) == (0, 1)
    np.testing.assert_array_equal(values.from_unit(unit), pixels)


def test_overshoot_is_clamped_and_halves_are_rounded() -> None:
    values = value_range(np.zeros((1, 1, 1), np.uint8))
    unit = np.array([-0.3, 1.2, 0.5, 10.4 / 255, 10.6 / 255], np.float32)
    assert values.from_unit(unit).tolist() == [0, 255, 128, 10, 11]


def test_floats_between_0_and_1_are_not_rescaled() -> None:
    values = value_range(np.array([[[0.2], [0.7]]], np.float32))
    assert (values.low, values.high) == (0.0, 1.0)


def test_floats_beyond_0_and_1_survive_the_round_trip() -> None:
    pixels = np.array([[[-2.5], [0.0], [7.5]]], np.float32)
    values = value_range(pixels)
    unit = values.to_unit(pixels)
    assert (unit.min(), unit.max()) == (0, 1)
    np.testing.assert_allclose(values.from_unit(unit), pixels, atol=1e-6)
