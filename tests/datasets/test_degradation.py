"""Blur, noise and JPEG of training inputs."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.datasets.degradation import degrade, jpeg, webp
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


def test_without_the_newer_options_every_patch_is_as_ever(picture: np.ndarray) -> None:
    options = DegradeOptions(degrade=True, blur=(0, 0), clean=0.0)
    for seed in range(8):
        rng = _rng(seed)
        rng.random()  # clean or not
        rng.uniform(0, 0)  # blur
        noisy = picture.astype(np.float32)
        noisy += rng.normal(0.0, rng.uniform(*options.noise), picture.shape)
        levels = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        quality = int(rng.integers(30, 101))
        expected = jpeg(levels, quality, "4:2:0" if rng.random() < 0.8 else "4:4:4")
        assert np.array_equal(degrade(picture, options, _rng(seed)), expected)


def test_sharpening_gives_halos_of_the_given_amount() -> None:
    edge = np.full((40, 40, 3), 80, np.uint8)
    edge[:, 20:] = 160
    plain, strong = (
        degrade(edge, replace(NOTHING, sharpened=share, halo=(1.0, 1.0)), _rng()).astype(int) for share in (0.0, 1.0)
    )
    assert plain.max() <= 162 and plain.min() >= 78
    assert 170 <= strong.max() <= 202 and 38 <= strong.min() <= 70  # 40 levels at most on each side
    assert abs(strong[:, :10] - 80).max() <= 3 and abs(strong[:, 30:] - 160).max() <= 3


def test_webp_takes_its_share_of_the_files(picture: np.ndarray) -> None:
    options = replace(NOTHING, quality=(50, 50), webp=0.4)
    file = BytesIO()
    Image.fromarray(picture).save(file, "WEBP", quality=50)
    assert np.array_equal(webp(picture, 50), np.array(Image.open(file).convert("RGB")))
    results = [degrade(picture, options, _rng(seed)) for seed in range(100)]
    assert 25 <= sum(np.array_equal(result, webp(picture, 50)) for result in results) <= 55
    assert all(
        np.array_equal(result, webp(picture, 50)) or np.array_equal(result, jpeg(picture, 50, "4:4:4"))
        for result in results
    )


@pytest.mark.parametrize("first_size", [(1.0, 1.0), (0.5, 2.0)])
def test_a_second_file_holds_the_traces_of_the_first(picture: np.ndarray, first_size: tuple[float, float]) -> None:
    def error(quality: int, twice: float) -> float:
        options = replace(NOTHING, quality=(quality, quality), twice=twice, first_size=first_size)
        results = [degrade(picture, options, _rng(seed)) for seed in range(6)]
        assert all(result.shape == picture.shape and result.dtype == np.uint8 for result in results)
        return float(np.mean([np.abs(result.astype(int) - picture).mean() for result in results]))

    assert error(40, 1.0) > 1.1 * error(40, 0.0)
    whole = replace(NOTHING, quality=(40, 40), twice=1.0, first_size=first_size)
    assert np.array_equal(degrade(picture, whole, _rng(3)), degrade(picture, whole, _rng(3)))
    assert not np.array_equal(degrade(picture, whole, _rng(3)), degrade(picture, whole, _rng(4)))  # another crop
