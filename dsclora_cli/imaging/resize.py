"""Resampling: MATLAB's bicubic, bit for bit, from which the LR of benchmarks and of training is made.

The one resampling of results: from a native scale down to the size asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.imaging.types import Pixels

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


_REACH = 3  # of the Lanczos filter, in pixels of the result


def reduce_bands(bands: Iterable[Pixels], rows: int, width: int, height: int) -> Iterator[Pixels]:
    """Reduce a picture of so many `rows` to `(height, width, C)` by an antialiased Lanczos filter, at its own depth.

    It comes and goes in bands, of which no more are held than the filter reaches. Channels are resized one by one: an
    RGBA picture is not premultiplied on the way, its colour is already bled under transparent pixels. 16-bit and float
    channels are resized in float32.
    """
    ratio = Fraction(rows, height)
    reach = _REACH * max(ratio, Fraction(1)) + 1
    held: Pixels | None = None
    top = done = 0
    for band in bands:
        held = band if held is None else np.concatenate([held, band])
        bottom = top + len(held)
        ready = height if bottom == rows else int((bottom - reach) / ratio)
        if ready > done:
            yield _resized(held, width, ready - done, (done * ratio - top, ready * ratio - top))
            done = ready
        needless = max(0, int(done * ratio - reach) - top)
        held, top = held[needless:], top + needless


def _resized(pixels: Pixels, width: int, height: int, rows: tuple[Fraction, Fraction]) -> Pixels:
    """The part of a picture between two rows, which may lie between pixels, as `(height, width, C)`."""
    result = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    box = 0.0, float(rows[0]), float(pixels.shape[1]), min(float(rows[1]), float(len(pixels)))
    for channel in range(pixels.shape[2]):
        plane = pixels[:, :, channel]
        image = Image.fromarray(np.ascontiguousarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32)))
        resized = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box))
        if pixels.dtype == np.uint16:
            resized = np.rint(np.clip(resized, 0, 65535))
        result[:, :, channel] = resized
    return result
