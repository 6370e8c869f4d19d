"""Fidelity metrics as the field's papers report them, in float64 on 8-bit pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]

_PEAK = 255.0
_RADIUS, _SIGMA = 5, 1.5
SSIM_WINDOW = 2 * _RADIUS + 1
"""Pixels that an image needs on each side."""

_C1, _C2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2


def luma(image: NDArray[np.uint8]) -> Plane:
    """BT.601 luma in 16-235, as MATLAB's `rgb2ycbcr` has it, not rounded: `(H, W, 3)` uint8 -> `(H, W)`."""
    plane: Plane = image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / _PEAK + 16.0
    return plane


def crop_border(image: NDArray[np.uint8], border: int) -> NDArray[np.uint8]:
    """The picture without `border` pixels on each side."""
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def psnr(result: NDArray[np.uint8] | Plane, truth: NDArray[np.uint8] | Plane) -> float:
    """PSNR in dB of two arrays of one shape with values in 0-255; inf where they are equal."""
    error = np.mean((result.astype(np.float64) - truth) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(_PEAK**2 / error))


def psnr_y(result: NDArray[np.uint8], truth: NDArray[np.uint8], border: int) -> float:
    """PSNR in dB of the luma of two `(H, W, 3)` uint8 pictures, `border` pixels cropped on each side."""
    return psnr(luma(crop_border(result, border)), luma(crop_border(truth, border)))


def ssim(result: NDArray[np.uint8] | Plane, truth: NDArray[np.uint8] | Plane) -> float:
    """SSIM (Wang et al. 2004) with the 11x11 Gaussian of sigma 1.5 over the valid region.

    `(H, W)` or `(H, W, C)` with values in 0-255, at least 11 pixels on each side; the mean over channels.
    """
    if result.ndim == 3:
        return float(np.mean([ssim(result[:, :, c], truth[:, :, c]) for c in range(result.shape[2])]))
    x, y = result.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return float(np.mean(likeness / ((mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2))))


def ssim_y(result: NDArray[np.uint8], truth: NDArray[np.uint8], border: int) -> float:
    """SSIM of the luma of two `(H, W, 3)` uint8 pictures, `border` pixels cropped on each side."""
    return ssim(luma(crop_border(result, border)), luma(crop_border(truth, border)))


def _blur(plane: Plane) -> Plane:
    """The Gaussian, over the positions where it lies wholly inside: `(H, W) -> (H - 10, W - 10)`."""
    taps = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    taps /= taps.sum()
    for _ in range(2):
        length = plane.shape[0] - 2 * _RADIUS
        plane = sum((tap * plane[i : i + length] for i, tap in enumerate(taps)), np.zeros(())).T
    return plane
