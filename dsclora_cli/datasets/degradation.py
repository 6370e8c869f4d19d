"""Degradation of training inputs, after the model of cameras and the web: blur, sensor noise, JPEG."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.recipe import DegradeOptions

_REACH = 8  # pixels that the blur, and a decoder that interpolates chroma, look to either side
_BLOCK = 16  # edge of a block of a JPEG with 4:2:0 chroma
_SUBSAMPLING = ("4:4:4", "4:2:0")


def degrade(lr: NDArray[np.uint8], options: DegradeOptions, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture `(h, w, 3)`, uint8, blurred, then noisy, then compressed as JPEG: the order of a camera.

    Args:
        lr: The picture `(h, w, 3)`, uint8.
        options: Ranges that the strengths are drawn from evenly, and the share of pictures that stay unchanged.
        rng: Source of the random numbers: generators in equal states give equal pictures.
    """
    if rng.random() < options.clean:
        return lr
    values = _blurred(lr.astype(np.float32), rng.uniform(*options.blur))
    values += rng.normal(0.0, rng.uniform(*options.noise), lr.shape)
    noisy = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    low, high = options.quality
    return jpeg(noisy, int(rng.integers(low, high + 1)), _SUBSAMPLING[int(rng.random() < options.subsampled)])


def context_of(start: int, size: int) -> slice:
    """Return the rows or columns to degrade, for a patch of `size` from `start` equal to the degraded whole picture.

    The slice begins at a block of the whole picture's JPEG. Block borders therefore fall anywhere in a patch, exactly
    where the whole picture has block borders.
    """
    return slice(max(0, start - _REACH) // _BLOCK * _BLOCK, -(-(start + size + _REACH) // _BLOCK) * _BLOCK)


def jpeg(picture: NDArray[np.uint8], quality: int, subsampling: str = "4:2:0") -> NDArray[np.uint8]:
    """Return a picture `(h, w, 3)`, uint8, after compression as JPEG.

    Args:
        picture: The picture `(h, w, 3)`, uint8.
        quality: From 1 to 100, as Pillow counts.
        subsampling: Of chroma, "4:4:4" or "4:2:0".
    """
    file = BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=quality, subsampling=subsampling)
    return np.array(Image.open(file))


def _blurred(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return `(h, w, 3)` after a Gaussian blur of `sigma` pixels; the border is repeated."""
    radius = int(np.ceil(3 * sigma))
    if radius == 0:
        return values
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    first, *others = (kernel / kernel.sum()).astype(np.float32)
    # A Gaussian is separable: blur along the height, then along the width.
    for axis in (0, 1):
        length = values.shape[axis]
        padded = np.moveaxis(values, axis, 0)[np.clip(np.arange(-radius, length + radius), 0, length - 1)]
        blurred = first * padded[:length]
        for start, weight in enumerate(others, start=1):
            blurred += weight * padded[start : start + length]
        values = np.moveaxis(blurred, 0, axis)
    return values
