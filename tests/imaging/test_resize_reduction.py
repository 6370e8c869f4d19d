"""The final reduction to the requested size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.imaging import resize
from dsclora_cli.imaging.resize import reduce_bands
from dsclora_cli.imaging.types import Pixels


def reduce(pixels: Pixels, width: int, height: int, bands: int = 1) -> Pixels:
    parts = reduce_bands(np.array_split(pixels, bands), len(pixels), width, height)
    return np.concatenate(list(parts))


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


def test_sixteen_bits_are_not_reduced_to_eight() -> None:
    ramp = np.linspace(1000, 1200, 256).astype(np.uint16)[None, :, None].repeat(8, axis=0)
    assert len(np.unique(reduce(ramp, 128, 4))) > 90


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("width", "height"), [(61, 83), (100, 199), (7, 5), (100, 1)])
def test_the_result_does_not_depend_on_the_bands(dtype: type, width: int, height: int) -> None:
    noise = np.random.default_rng(1)
    pixels = noise.random((200, 120, 3), np.float32)
    pixels = pixels if dtype is np.float32 else (pixels * np.iinfo(dtype).max).astype(dtype)
    whole = reduce(pixels, width, height)
    for bands in (3, 17, 200):
        difference = np.abs(reduce(pixels, width, height, bands).astype(float) - whole)
        assert difference.max() <= (1e-4 if dtype is np.float32 else 1 if dtype is np.uint8 else 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_turned_picture_gives_the_turned_result(dtype: type) -> None:
    """Values overshoot at black and white pixels, and must not be cut off between the columns and the rows."""
    pixels = np.random.default_rng(2).integers(0, 2, (50, 40, 1)).astype(dtype) * np.iinfo(dtype).max
    turned = reduce(pixels.swapaxes(0, 1), 31, 25).swapaxes(0, 1)
    assert np.abs(turned.astype(int) - reduce(pixels, 25, 31)).max() <= 1


def test_a_large_band_is_reduced_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (400, 50, 3), np.uint8)
    whole = reduce(pixels, 31, 250)
    planes: list[int] = []
    real = Image.fromarray
    monkeypatch.setattr(resize, "_STEP", 2000)
    monkeypatch.setattr(resize.Image, "fromarray", lambda plane: planes.append(plane.size) or real(plane))
    assert np.abs(reduce(pixels, 31, 250).astype(int) - whole).max() <= 1
    assert len(planes) > 15 and max(planes) < 2 * 2000


def test_no_more_rows_are_held_than_the_filter_reaches() -> None:
    given: list[int] = []

    def bands():
        for band in np.array_split(np.zeros((400, 8, 1), np.uint8), 40):
            given.append(len(band))
            yield band

    done = 0
    for part in reduce_bands(bands(), 400, 4, 200):
        done += len(part)
        assert sum(given) - done * 2 <= 10 + 2 * 7
    assert done == 200
