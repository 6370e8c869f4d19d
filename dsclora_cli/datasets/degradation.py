"""Degradation of training inputs, after the model of cameras and the web: blur, noise, sharpening, JPEG and WebP."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.recipe import DegradeOptions

_REACH = 8  # pixels that the blur, and a decoder that interpolates chroma, look to either side
_BLOCK = 16  # edge of a block of a JPEG with 4:2:0 chroma
_SUBSAMPLING = ("4:4:4", "4:2:0")
_HALO_RADIUS = (0.5, 1.5)  # standard deviation of the unsharp mask in LR pixels
_MOST_CROPPED = 8  # rows and columns: after a crop, the blocks of the second file lie anywhere on the first blocks
_FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def degrade(lr: NDArray[np.uint8], options: DegradeOptions, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture `(h, w, 3)`, uint8, blurred, noisy, sharpened and saved as a file: the order of a camera.

    A share of the pictures is saved a second time, as a picture is that travels through the web.

    Args:
        lr: The picture `(h, w, 3)`, uint8.
        options: Ranges that the strengths are drawn from evenly, and the share of pictures that stay unchanged.
        rng: Source of the random numbers: generators in equal states give equal pictures.
    """
    if rng.random() < options.clean:
        return lr
    values = _blurred(lr.astype(np.float32), rng.uniform(*options.blur))
    values += rng.normal(0.0, rng.uniform(*options.noise), lr.shape)
    # An option that is off draws no random number: recipes without the option give the same patches as ever.
    if options.sharpened and rng.random() < options.sharpened:
        soft = _blurred(values, rng.uniform(*_HALO_RADIUS))
        values += rng.uniform(*options.halo) * (values - soft)
    picture = _to_levels(values)
    if options.twice and rng.random() < options.twice:
        picture = _saved_before(picture, options, rng)
    return _saved(picture, options, rng)


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


def webp(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return a picture `(h, w, 3)`, uint8, after compression as lossy WebP, with 4:2:0 chroma.

    Args:
        picture: The picture `(h, w, 3)`, uint8.
        quality: From 0 to 100, as Pillow counts.
    """
    file = BytesIO()
    Image.fromarray(picture).save(file, format="WEBP", quality=quality)
    return np.array(Image.open(file).convert("RGB"))


def _saved(picture: NDArray[np.uint8], options: DegradeOptions, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture `(h, w, 3)`, uint8, after saving as a file of random quality."""
    low, high = options.quality
    quality, is_subsampled = int(rng.integers(low, high + 1)), rng.random() < options.subsampled
    if options.webp and rng.random() < options.webp:
        return webp(picture, quality)
    return jpeg(picture, quality, _SUBSAMPLING[int(is_subsampled)])


def _saved_before(picture: NDArray[np.uint8], options: DegradeOptions, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture `(h, w, 3)`, uint8, as if a file had been opened: saved at another size, cropped and resized."""
    height, width = picture.shape[:2]
    rows, columns = rng.integers(0, _MOST_CROPPED, 2)
    factor, shape = rng.uniform(*options.first_size), (height + rows, width + columns)
    reduction = _FILTERS[int(rng.integers(len(_FILTERS)))]
    # The first file held some rows and columns more; the border stands for pixels that nobody knows.
    larger = Image.fromarray(np.pad(picture, ((rows, 0), (columns, 0), (0, 0)), mode="edge"))
    resized = (max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor)))
    if resized != larger.size:
        larger = larger.resize(resized, Image.Resampling.BICUBIC)
    saved = Image.fromarray(_saved(np.array(larger), options, rng))
    if resized != shape[::-1]:
        saved = saved.resize(shape[::-1], reduction)
    return np.array(saved)[rows:, columns:]


def _to_levels(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


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
