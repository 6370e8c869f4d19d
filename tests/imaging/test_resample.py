"""The reduction to the size asked for."""

from __future__ import annotations

import numpy as np
import pytest

from dsclora_cli.imaging.resample import reduce


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_flat_pictures_keep_value_depth_and_channels(dtype: type, channels: int) -> None:
    flat = np.full((20, 30, channels), 0.3 if dtype is np.float32 else 77, dtype)
    result = reduce(flat, 13, 7)
    assert (result.shape, result.dtype) == ((7, 13, channels), flat.dtype)
    np.testing.assert_allclose(result, flat[:7, :13], rtol=1e-6)


def test_reduction_is_antialiased() -> None:
    stripes = np.zeros((64, 64, 1), np.uint16)
    stripes[:, ::2] = 65535
    inner = reduce(stripes, 16, 16)[4:-4, 4:-4].astype(float)
    assert np.abs(inner - 32767.5).max() < 700


def test_sixteen_bits_keep_more_than_eight() -> None:
    ramp = np.linspace(1000, 1200, 256).astype(np.uint16)[None, :, None].repeat(8, axis=0)
    assert len(np.unique(reduce(ramp, 128, 4))) > 90


def test_same_size_is_the_same_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    assert reduce(noise, 6, 5) is noise
