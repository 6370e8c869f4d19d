"""PSNR on luma."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from dsclora_cli.imaging.metrics import luma, psnr_y


def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (20, 24, 3), dtype=np.uint8), rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)


def test_luma_is_bt601() -> None:
    image, _ = pictures()
    np.testing.assert_allclose(luma(image), rgb2ycbcr(image)[:, :, 0], atol=1e-9)
    assert luma(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).round(9).tolist() == [[16.0, 235.0]]


def test_psnr_equals_scikit_image_on_the_inside() -> None:
    a, b = pictures()
    ya, yb = (rgb2ycbcr(image)[4:-4, 4:-4, 0] for image in (a, b))
    assert abs(psnr_y(a, b, 4) - peak_signal_noise_ratio(yb, ya, data_range=255)) < 1e-9


def test_identical_pictures_are_infinitely_alike() -> None:
    a, _ = pictures()
    assert psnr_y(a, a, 0) == float("inf")
