"""Blur, noise and JPEG of training inputs."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.datasets.degradation import degrade, jpeg
from dsclora_cli.recipe import DegradeOptions

NOTHING = DegradeOptions(degrade=True, blur=(0, 0), noise=(0, 0), quality=(100, 100), subsampled=0.0, clean=0.0)


@pytest.fixture
def picture() -> np.ndarray:
    y, x = np.mgrid[0:32, 0:48]
    return np.stack([128 + 100 * np.sin(x / 3), 128 + 90 * np.cos(y / 4), x * 4 + y], axis=2).clip(0, 255).astype("u1")


def _rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_jpeg_equals_pillows_jpeg(picture: np.ndarray) -> None:
    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=60)
    assert np.array_equal(jpeg(picture, 60), np.array(Image.open(file)))
    assert not np.array_equal(jpeg(picture, 60, "4:4:4"), jpeg(picture, 60, "4:2:0"))


def test_equal_generators_give_equal_pictures(picture: np.ndarray) -> None:
    options = DegradeOptions(degrade=True, clean=0.0)
    first = degrade(picture, options, _rng())
    assert np.array_equal(first, degrade(picture, options, _rng()))
    assert not np.array_equal(first, degrade(picture, options, _rng(2)))
    assert first.dtype == np.uint8
    assert first.shape == picture.shape


def test_the_clean_share_stays_unchanged(picture: np.ndarray) -> None:
    options = DegradeOptions(degrade=True, clean=0.3)
    untouched = sum(np.array_equal(degrade(picture, options, _rng(seed)), picture) for seed in range(200))
    assert 40 <= untouched <= 80


def test_noise_blur_and_jpeg_have_their_given_strength(picture: np.ndarray) -> None:
    def error(**changes: object) -> float:
        result = degrade(picture, replace(NOTHING, **changes), _rng())  # type: ignore[arg-type]
        return float(np.sqrt(np.mean((result.astype(float) - picture) ** 2)))

    assert error() < 1.5
    assert error(noise=(6, 6)) == pytest.approx(6, abs=1)
    assert error(quality=(20, 20)) > 3 * error()
    sharp, soft = (np.abs(np.diff(degrade(picture, replace(NOTHING, blur=b), _rng()).astype(float), axis=1)).mean()
                   for b in ((0, 0), (1.5, 1.5)))  # fmt: skip
    assert soft < 0.95 * sharp


def test_blur_keeps_flat_areas_and_the_mean() -> None:
    flat = np.full((20, 20, 3), 77, np.uint8)
    assert np.array_equal(degrade(flat, replace(NOTHING, blur=(1.2, 1.2)), _rng()), flat)
    spot = np.zeros((41, 41, 3), np.uint8)
    spot[20, 20] = 255
    blurred = degrade(spot, replace(NOTHING, blur=(1.0, 1.0)), _rng()).astype(float)
    assert blurred[20, 20].mean() == pytest.approx(255 / (2 * np.pi), abs=6)
