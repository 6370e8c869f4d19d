"""PSNR and SSIM as the papers on super-resolution report them, in float64 on 8-bit pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.imaging.types import Pixels

Plane = NDArray[np.float64]
"""`(H, W)` float64 with values in 0-255."""

_PEAK = 255.0
_SIGMA = 1.5
SSIM_WINDOW = 11
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
    window = np.exp(-((np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) ** 2) / (2 * _SIGMA**2))
    window /= window.sum()
    mean_x, mean_y = blur(x, window), blur(y, window)
    # Population statistics (no n - 1), as in the authors' MATLAB code.
    variance_x, variance_y = blur(x * x, window) - mean_x**2, blur(y * y, window) - mean_y**2
    covariance = blur(x * y, window) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float(np.mean(likeness / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))))


def blur(plane: Plane, window: NDArray[np.float64]) -> Plane:
    """Return weighted means at the positions with the whole window inside: `(H, W) -> (H - N + 1, W - N + 1)`.

    Args:
        plane: Values.
        window: `(N,)` weights; the two-dimensional window is the outer product of the weights with themselves.
    """
    # The window is separable: rows, transposed, rows again.
    for _ in range(2):
        length = plane.shape[0] - len(window) + 1
        plane = sum((tap * plane[i : i + length] for i, tap in enumerate(window)), np.zeros(())).T
    return plane
