"""Fidelity metrics, in float64 on 8-bit pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def luma(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """BT.601 luma in 16-235, as MATLAB's `rgb2ycbcr` has it, not rounded: `(H, W, 3)` uint8 -> `(H, W)`."""
    return image.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0 + 16.0


def psnr_y(result: NDArray[np.uint8], truth: NDArray[np.uint8], border: int) -> float:
    """PSNR in dB of the luma of two `(H, W, 3)` uint8 pictures, `border` pixels cropped on each side."""
    inside = (slice(border, -border or None),) * 2
    error = np.mean((luma(result)[inside] - luma(truth)[inside]) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255.0**2 / error))
