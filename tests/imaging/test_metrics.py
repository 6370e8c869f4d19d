"""Metrics, compared with scikit-image in equivalent settings."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from dsclora_cli.imaging.metrics import crop_border, luma, psnr, psnr_y, ssim

SETTINGS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = (127 + 90 * np.sin(np.mgrid[:34, :41].sum(0) / 5)[:, :, None] + rng.normal(0, 9, (34, 41, 3))).clip(0, 255)
    return (truth + rng.normal(0, 12, truth.shape)).clip(0, 255).astype(np.uint8), truth.astype(np.uint8)


def test_luma_is_bt601_from_16_to_235(pair: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_allclose(luma(pair[0]), rgb2ycbcr(pair[0])[:, :, 0], atol=1e-9)
    assert luma(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).round(9).tolist() == [[16.0, 235.0]]


@pytest.mark.parametrize("border", [0, 2, 4])
def test_y_metrics_equal_scikit_image_on_the_inside(pair: tuple[np.ndarray, np.ndarray], border: int) -> None:
    a, b = (rgb2ycbcr(crop_border(image, border))[:, :, 0] for image in pair)
    assert abs(psnr_y(*pair, border) - peak_signal_noise_ratio(b, a, data_range=255)) < 1e-9
    inside = (luma(crop_border(image, border)) for image in pair)
    assert abs(ssim(*inside) - structural_similarity(b, a, **SETTINGS)) < 1e-9


def test_rgb_metrics_equal_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = (image.astype(float) for image in pair)
    assert abs(psnr(*pair) - peak_signal_noise_ratio(b, a, data_range=255)) < 1e-9
    assert abs(ssim(*pair) - structural_similarity(b, a, channel_axis=2, **SETTINGS)) < 1e-9


def test_equal_pictures_have_infinite_psnr_and_ssim_1(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert psnr_y(pair[0], pair[0], 4) == psnr(pair[0], pair[0]) == float("inf")
    assert ssim(luma(pair[0]), luma(pair[0])) == pytest.approx(1, abs=1e-12)
