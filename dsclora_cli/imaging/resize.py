"""Resampling: MATLAB's bicubic to make the LR of benchmarks and of training, and the final reduction of results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.imaging.color import white_level
from dsclora_cli.imaging.types import Pixels

BICUBIC = "bicubic"
FILTERS = MappingProxyType(
    {
        "nearest": Image.Resampling.NEAREST,
        BICUBIC: Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
)
"""Pillow's filters by name, for `resize_with`."""

_SUPPORT = 4.0  # width of the cubic kernel in pixels
_CUBIC_A = -0.5
_REACH = 3  # of the Lanczos filter, in pixels of the result
_STEP = 2**22  # pixels of the source that are reduced at once
_LEAST_ROWS = 16  # of a step, because neighboring steps read the same rows within the reach of the filter

Rectangle = tuple[Fraction, Fraction, Fraction, Fraction]
"""Left, top, right and bottom of a part of a picture in pixels; the sides may lie between pixels."""

_Contributions = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Input indices and weights, both `(outputs, taps)`."""


def resize_with(
    name: str, image: NDArray[np.uint8], width: int, height: int, box: Rectangle | None = None
) -> NDArray[np.uint8]:
    """Return an image `(H, W, 3)`, or the part in `box`, resized by the filter `name` to `(height, width, 3)`."""
    left, top, right, bottom = map(float, box or (0, 0, image.shape[1], image.shape[0]))
    return np.asarray(Image.fromarray(image).resize((width, height), FILTERS[name], (left, top, right, bottom)))


def downscale(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return the benchmark LR of an HR image: cropped to a multiple of `scale`, then reduced by `matlab_bicubic`.

    `(H, W)` or `(H, W, C)` uint8 -> `(H // scale, W // scale)` or `(H // scale, W // scale, C)`.
    """
    height, width = image.shape[0] // scale, image.shape[1] // scale
    return matlab_bicubic(image[: height * scale, : width * scale], height, width)


def matlab_bicubic(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize as MATLAB's `imresize(image, [height width], 'bicubic')` does, bit for bit.

    Reducing is antialiased (the kernel, a = -0.5, is stretched), the border is symmetric, and values are rounded
    half-up to 8 bits after *each* of the two passes, height first. Every detail is needed to reproduce the official LR
    files of the benchmark sets.

    Args:
        image: `(H, W)` or `(H, W, C)` uint8.
        height: New height in pixels.
        width: New width in pixels.
    """
    for axis, length in ((0, height), (1, width)):
        if image.shape[axis] == length:
            continue
        total = _resize_axis(image, axis, _contributions(image.shape[axis], length))
        image = np.ascontiguousarray(np.moveaxis(_round(total, image.dtype), 0, axis))
    return image


class StreamedBicubic:
    """Resizes a picture as `matlab_bicubic` does, with equal values, while the bands of the picture arrive.

    No more rows are held than the kernel reaches. 16 bits are rounded to 16 bits.
    """

    def __init__(self, rows: int, width: int, height: int) -> None:
        """Take the height of the picture, and the new width and height, in pixels."""
        self._indices, self._weights = _contributions(rows, height)
        self._first, self._last = self._indices.min(axis=1), self._indices.max(axis=1)
        self._width, self._height = width, height
        self._held: Pixels | None = None
        self._top = self._done = 0  # the first row in `_held`, and the rows of the result so far

    def add(self, band: Pixels) -> Pixels | None:
        """Take the next rows `(h, W, C)`, uint8 or uint16; return the next rows of the result, or None for none yet."""
        held = band if self._held is None else np.concatenate([self._held, band])
        ready = int(np.searchsorted(self._last, self._top + len(held), side="left"))
        reduced = self._rows(held, ready) if ready > self._done else None
        self._done = max(self._done, ready)
        needless = self._first[self._done :].min() - self._top if self._done < self._height else len(held)
        self._held, self._top = held[needless:], self._top + needless
        return reduced

    def _rows(self, held: Pixels, ready: int) -> Pixels:
        """Return the rows of the result from `_done` to `ready`."""
        indices, weights = self._indices[self._done : ready] - self._top, self._weights[self._done : ready]
        reduced = _round(_weighted_sum(held, indices, weights), held.dtype)
        across = _resize_axis(reduced, 1, _contributions(reduced.shape[1], self._width))
        return np.moveaxis(_round(across, held.dtype), 0, 1)


def _round(values: NDArray[np.float64], dtype: np.dtype[Any]) -> Pixels:
    """Return values as integers of a dtype. MATLAB rounds halves up; np.rint would round them to even."""
    rounded: Pixels = np.floor(np.clip(values, 0, np.iinfo(dtype).max) + 0.5).astype(dtype)
    return rounded


def halve_plane(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a plane `(H, W)` at half the size, as MATLAB's `imresize(plane, 0.5)` does for floats: not rounded."""
    for axis in (0, 1):
        length = plane.shape[axis]
        plane = np.moveaxis(_resize_axis(plane, axis, _contributions(length, -(-length // 2))), 0, axis)
    return plane


def _resize_axis(image: Pixels | NDArray[np.float64], axis: int, contributions: _Contributions) -> NDArray[np.float64]:
    """Return the image, resized along one axis, not rounded; the axis comes first."""
    return _weighted_sum(np.moveaxis(image, axis, 0), *contributions)


def _weighted_sum(
    values: Pixels | NDArray[np.float64], indices: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return `(outputs, ...)`: sums of `values` along the first axis, by indices and weights `(outputs, taps)`."""
    total = np.zeros((len(indices), *values.shape[1:]), np.float64)
    column = (-1,) + (1,) * (values.ndim - 1)
    for tap in range(indices.shape[1]):
        total += weights[:, tap].reshape(column) * values[indices[:, tap]]
    return total


@lru_cache(maxsize=8)
def _contributions(inputs: int, outputs: int) -> _Contributions:
    """Return input indices and weights, both `(outputs, taps)`, of a 1-D resize from `inputs` to `outputs` pixels.

    The steps are those of `contributions` in MATLAB's imresize.m, in the same order.
    """
    scale = outputs / inputs
    # A kernel stretched by 1 / scale is a low-pass filter: antialiasing.
    stretch = min(scale, 1.0)
    support = _SUPPORT / stretch
    center = np.arange(1, outputs + 1) / scale + 0.5 * (1 - 1 / scale)
    left = np.floor(center - support / 2)
    taps = left[:, None] + np.arange(int(np.ceil(support)) + 2)
    # Keys' cubic kernel.
    a, x = _CUBIC_A, np.abs(stretch * (center[:, None] - taps))
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    weights = stretch * np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
    weights /= weights.sum(axis=1, keepdims=True)
    # Symmetric border: positions outside are mirrored into the picture.
    mirror = np.concatenate([np.arange(inputs), np.arange(inputs)[::-1]])
    indices = mirror[np.mod(taps.astype(np.int64) - 1, 2 * inputs)]
    used = np.any(weights != 0, axis=0)
    return indices[:, used], weights[:, used]


def filter_reach(ratio: Fraction) -> Fraction:
    """Return the pixels on each side that decide about a pixel of `reduce_bands`, for a source larger by `ratio`."""
    return _REACH * max(ratio, Fraction(1)) + 1


def reduce_bands(
    bands: Iterable[Pixels], rows: int, width: int, height: int, box: Rectangle | None = None
) -> Iterator[Pixels]:
    """Reduce a picture, or a part of it, with an antialiased Lanczos filter while the bands arrive.

    Args:
        bands: Bands `(h, W, C)` of any dtype of `Pixels`, from top to bottom. Alpha is resized like a color: colors
            are not premultiplied, as they are already bled under transparent pixels.
        rows: Height of the picture, the sum over the bands.
        width: New width in pixels.
        height: New height in pixels.
        box: The part that becomes `width` x `height`; None for the whole. Pixels around the part take part too.

    Yields:
        Bands `(h, width, C)` of the same dtype, from top to bottom. No more rows are held than the filter reaches.
    """
    # Fractions: where a band starts in the source must not depend on rounding.
    first, last = (Fraction(0), Fraction(rows)) if box is None else (box[1], box[3])
    columns = None if box is None else (box[0], box[2])
    ratio = (last - first) / height
    reach = filter_reach(ratio)
    held: Pixels | None = None
    top = done = 0  # the first row in `held`, and the rows of the result so far
    for band in bands:
        held = band if held is None else np.concatenate([held, band])
        bottom = top + len(held)
        ready = height if bottom == rows else min(height, int((bottom - reach - first) / ratio))
        if ready > done:
            part = first + done * ratio - top, first + ready * ratio - top
            yield _resize_rows(held, width, ready - done, part, columns)
            done = ready
        needless = min(len(held), max(0, int(first + done * ratio - reach) - top))
        held, top = held[needless:], top + needless


def _resize_rows(
    pixels: Pixels, width: int, height: int, rows: tuple[Fraction, Fraction], columns: tuple[Fraction, Fraction] | None
) -> Pixels:
    """Return the part of `(H, W, C)` between two rows, which may lie between pixels, as `(height, width, C)`.

    `columns` are the first and the last column; None for all.
    """
    result = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    # In steps: Pillow takes 12 bytes for each value in float32, and a band of a wide picture has hundreds of millions.
    step = max(_LEAST_ROWS, int(height * _STEP // (len(pixels) * pixels.shape[1])))
    ratio = (rows[1] - rows[0]) / height
    reach = filter_reach(ratio)
    for start in range(0, height, step):
        end = min(height, start + step)
        top, bottom = rows[0] + start * ratio, rows[0] + end * ratio
        first = max(0, int(top - reach))
        part = pixels[first : int(bottom + reach) + 1]
        _resize_planes(part, result[start:end], (top - first, bottom - first), columns)
    return result


def _resize_planes(
    pixels: Pixels, result: Pixels, rows: tuple[Fraction, Fraction], columns: tuple[Fraction, Fraction] | None
) -> None:
    """Resize the part of `(H, W, C)` between two rows into `(height, width, C)`, one channel after the other."""
    height, width = result.shape[:2]
    left, right = (0.0, float(pixels.shape[1])) if columns is None else map(float, columns)
    box = left, float(rows[0]), right, min(float(rows[1]), float(len(pixels)))
    for channel in range(pixels.shape[2]):
        # In float32, which holds 16 bits exactly. Pillow rounds and clips 8 bits between columns and rows, so the
        # corners of a turned picture would be up to 5 levels away from the turned result.
        image = Image.fromarray(np.ascontiguousarray(pixels[:, :, channel], np.float32))
        resized = np.array(image.resize((width, height), Image.Resampling.LANCZOS, box))
        if pixels.dtype != np.float32:
            np.rint(np.clip(resized, 0, white_level(pixels.dtype), out=resized), out=resized)
        result[:, :, channel] = resized
