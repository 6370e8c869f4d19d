"""PSNR and SSIM as the papers on super-resolution report them, in float64 on 8-bit pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.imaging.types import Pixels

Plane = NDArray[np.float64]
"""`(H, W)` float64 with values in 0-255."""

_PEAK = 255.0
_RADIUS, _SIGMA = 5, 1.5
SSIM_WINDOW = 2 * _RADIUS + 1
"""Pixels that SSIM needs on each side of a picture."""

_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2  # constants of Wang et al. 2004


def psnr_y(result: NDArray[np.uint8], truth: NDArray[np.uint8], border: int) -> float:
    """Return the PSNR in dB of the luma of two `(H, W, 3)` uint8 pictures, without `border` pixels on each side."""
    return psnr(luma(crop_border(result, border)), luma(crop_border(truth, border)))


def luma(image: Pixels) -> Plane:
    """Return BT.601 luma in 16-235, not rounded, as MATLAB's `rgb2ycbcr` does: `(H, W, 3)` integers -> `(H, W)`."""
    white = 65535.0 if image.dtype == np.uint16 else _PEAK
    plane: Plane = image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / white + 16.0
    return plane


def crop_border(image: NDArray[np.uint8], border: int) -> NDArray[np.uint8]:
    """Return `(H, W, C)` without `border` pixels on each side."""
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def psnr(result: NDArray[np.uint8] | Plane, truth: NDArray[np.uint8] | Plane) -> float:
    """Return the PSNR in dB of two arrays of equal shape with values in 0-255; infinity where they are equal."""
    return psnr_of_error(float(np.mean((result.astype(np.float64) - truth) ** 2)))


def psnr_of_error(error: float) -> float:
    """Return the PSNR in dB for a mean squared error of values in 0-255; infinity for 0."""
    return float("inf") if error == 0 else float(10 * np.log10(_PEAK**2 / error))


def ssim(result: NDArray[np.uint8] | Plane, truth: NDArray[np.uint8] | Plane) -> float:
    """Return SSIM (Wang et al. 2004) with the 11x11 Gaussian of sigma 1.5 over the valid region.

    Args:
        result: `(H, W)` or `(H, W, C)` with values in 0-255, at least 11 pixels on each side.
        truth: The same shape.

    Returns:
        The mean over positions and channels.
    """
    if result.ndim == 3:
        return float(np.mean([ssim(result[:, :, c], truth[:, :, c]) for c in range(result.shape[2])]))
    x, y = result.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    # Population statistics (no n - 1), as in the authors' MATLAB code.
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float(np.mean(likeness / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))))


def _blur(plane: Plane) -> Plane:
    """Return the Gaussian mean at positions with the whole window inside: `(H, W) -> (H - 10, W - 10)`."""
    taps = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    taps /= taps.sum()
    # The Gaussian is separable: rows, transposed, rows again.
    for _ in range(2):
        length = plane.shape[0] - 2 * _RADIUS
        plane = sum((tap * plane[i : i + length] for i, tap in enumerate(taps)), np.zeros(())).T
    return plane
