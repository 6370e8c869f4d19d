"""What cameras and the web do to a picture before it is upscaled: blur, sensor noise, JPEG."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.recipe import DegradeOptions

Rgb = NDArray[np.uint8]

REACH = 8
"""Pixels around a patch that its degraded version depends on, about: a JPEG block, and the blur."""

_SUBSAMPLING = ("4:4:4", "4:2:0")


def degrade(lr: Rgb, options: DegradeOptions, rng: np.random.Generator) -> Rgb:
    """A picture `(h, w, 3)` uint8 as the world might have it: blurred, then noisy, then saved as JPEG.

    Strengths are drawn evenly from the ranges of `options`, so equal generators give equal pictures.
    """
    if rng.random() < options.clean:
        return lr
    values = _blurred(lr.astype(np.float32), rng.uniform(*options.blur))
    values += rng.normal(0.0, rng.uniform(*options.noise), lr.shape)
    noisy = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    low, high = options.quality
    return jpeg(noisy, int(rng.integers(low, high + 1)), _SUBSAMPLING[int(rng.random() < options.subsampled)])


def jpeg(picture: Rgb, quality: int, subsampling: str = "4:2:0") -> Rgb:
    """`(h, w, 3)` uint8 after a JPEG of this quality, 1 to 100, as Pillow saves it."""
    file = BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=quality, subsampling=subsampling)
    return np.array(Image.open(file))


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur of `(h, w, 3)`; the border is repeated."""
    radius = int(np.ceil(3 * sigma))
    if radius == 0:
        return values
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        length = values.shape[axis]
        padding = [(radius, radius) if each == axis else (0, 0) for each in range(3)]
        padded = np.pad(values, padding, mode="edge")
        shifted = (np.take(padded, range(start, start + length), axis) for start in range(2 * radius + 1))
        values = sum(weight * part for weight, part in zip(kernel.astype(np.float32), shifted, strict=True))
    return values
