"""What cameras and the web do to a picture before it is upscaled: blur, sensor noise, JPEG."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.recipe import DegradeOptions

_REACH = 8  # of the blur, and of chroma that a decoder interpolates
_BLOCK = 16  # of a JPEG with 4:2:0 chroma
_SUBSAMPLING = ("4:4:4", "4:2:0")


def degrade(lr: NDArray[np.uint8], options: DegradeOptions, rng: np.random.Generator) -> NDArray[np.uint8]:
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


def surroundings(start: int, size: int) -> slice:
    """The rows or columns that `size` of a picture from `start` depend on when it is degraded.

    They begin where a block of the picture's JPEG does, so a patch has them at any phase, as in the whole picture.
    """
    return slice(max(0, start - _REACH) // _BLOCK * _BLOCK, -(-(start + size + _REACH) // _BLOCK) * _BLOCK)


def jpeg(picture: NDArray[np.uint8], quality: int, subsampling: str = "4:2:0") -> NDArray[np.uint8]:
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
    first, *others = (kernel / kernel.sum()).astype(np.float32)
    for axis in (0, 1):
        length = values.shape[axis]
        padded = np.moveaxis(values, axis, 0)[np.clip(np.arange(-radius, length + radius), 0, length - 1)]
        blurred = first * padded[:length]
        for start, weight in enumerate(others, start=1):
            blurred += weight * padded[start : start + length]
        values = np.moveaxis(blurred, 0, axis)
    return values
