"""Resampling: MATLAB's bicubic, bit for bit, from which the LR of benchmarks and of training is made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SUPPORT = 4.0
_CUBIC_A = -0.5


def matlab_bicubic(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize as MATLAB's `imresize(image, [height width], 'bicubic')` does.

    `(H, W)` or `(H, W, C)` uint8 -> the same with the new height and width. Antialiased when reducing (the kernel,
    a = -0.5, is stretched), symmetric border, and rounded half-up to 8 bits after *each* of the two passes, height
    first: this, and nothing less, reproduces the official LR files of the benchmark sets.
    """
    for axis, length in ((0, height), (1, width)):
        image = _resize_axis(image, axis, length)
    return image


def downscale(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The benchmark LR of an HR image: cropped to a multiple of `scale`, then `matlab_bicubic` by `1 / scale`."""
    height, width = image.shape[0] // scale, image.shape[1] // scale
    return matlab_bicubic(image[: height * scale, : width * scale], height, width)


def _resize_axis(image: NDArray[np.uint8], axis: int, length: int) -> NDArray[np.uint8]:
    if image.shape[axis] == length:
        return image
    indices, weights = _contributions(image.shape[axis], length)
    moved = np.moveaxis(image, axis, 0)
    total = np.zeros((length, *moved.shape[1:]), np.float64)
    column = (-1,) + (1,) * (moved.ndim - 1)
    for tap in range(indices.shape[1]):
        total += weights[:, tap].reshape(column) * moved[indices[:, tap]]
    rounded = np.floor(np.clip(total, 0, 255) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(rounded, 0, axis))


def _contributions(inputs: int, outputs: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Input indices and weights, both `(outputs, taps)`, of a 1-D resize."""
    scale = outputs / inputs
    stretch = min(scale, 1.0)
    support = _SUPPORT / stretch
    centre = np.arange(1, outputs + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(centre - support / 2)
    taps = left[:, None] + np.arange(int(np.ceil(support)) + 2)
    weights = stretch * _cubic(stretch * (centre[:, None] - taps))
    weights /= weights.sum(axis=1, keepdims=True)
    mirror = np.concatenate([np.arange(inputs), np.arange(inputs)[::-1]])
    indices = mirror[np.mod(taps.astype(np.int64) - 1, 2 * inputs)]
    used = np.any(weights != 0, axis=0)
    return indices[:, used], weights[:, used]


def _cubic(x: NDArray[Any]) -> NDArray[np.float64]:
    """Keys' cubic kernel with a = -0.5."""
    a = _CUBIC_A
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
