"""Transparency: colour bled under it before upscaling, pictures laid on white, premultiplied colour undone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.imaging.picture import Pixels


def bleed(colour: Pixels, alpha: Pixels) -> Pixels:
    """Colour `(H, W, C)` extended to where alpha `(H, W, 1)` is 0, from the nearest visible pixels.

    Visible pixels are returned unchanged, whatever the dtype; colour without any visible pixel is returned as it is.
    A pyramid of means over visible pixels makes the cost linear in the number of pixels, however large the hole.
    """
    visible = alpha[..., :1] > 0
    if visible.all() or not visible.any():
        return colour
    filled = _filled(*_halve(colour, visible))
    return np.where(visible, colour, _double(filled, colour.shape).astype(colour.dtype))


def flatten(pixels: Pixels) -> Pixels:
    """`(H, W, 2)` or `(H, W, 4)` laid on white: `(H, W, 1)` or `(H, W, 3)` of the same dtype, rounded."""
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    white = white_of(pixels.dtype)
    if (alpha == white).all():
        return np.ascontiguousarray(colour)
    share = alpha.astype(np.float32) / white
    laid = colour * share + white * (1 - share)
    flat: Pixels = (laid if pixels.dtype.kind == "f" else np.rint(laid)).astype(pixels.dtype)
    return flat


def unpremultiply(pixels: Pixels) -> Pixels:
    """Colour divided by alpha (the last channel), rounded and held to the dtype's range; colour under alpha 0 is 0."""
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    white = white_of(pixels.dtype)
    plain = np.divide(colour.astype(np.float64) * white, alpha, out=np.zeros(colour.shape, np.float64), where=alpha > 0)
    if pixels.dtype != np.float32:
        plain = np.rint(np.minimum(plain, white))
    return np.concatenate([plain.astype(pixels.dtype), alpha], axis=2)


def white_of(dtype: np.dtype[Any]) -> float:
    """The value of white and of opaque: 255 or 65535 for integers, 1 for floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def _halve(colour: NDArray[Any], weight: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means of 2x2 blocks over their visible pixels, and whether a block has any: both half as large, rounded up."""
    height, width = (colour.shape[0] + 1) // 2, (colour.shape[1] + 1) // 2
    total = np.zeros((height, width, colour.shape[2]), np.float32)
    count = np.zeros((height, width, 1), np.float32)
    for top in (0, 1):
        for left in (0, 1):
            part, seen = colour[top::2, left::2], weight[top::2, left::2]
            rows, columns = part.shape[:2]
            total[:rows, :columns] += part * seen
            count[:rows, :columns] += seen
    return np.divide(total, count, out=total, where=count > 0), (count > 0).astype(np.float32)


def _filled(colour: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour with every gap filled: beside visible pixels from these, further off from the next coarser level.

    There is at least one visible pixel.
    """
    colour, weight = _grown(colour, weight)
    if weight.all():
        return colour
    coarse = _filled(*_halve(colour, weight))
    return np.where(weight > 0, colour, _double(coarse, colour.shape))


def _grown(colour: NDArray[np.float32], weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each gap beside visible pixels gets the mean of those among its eight neighbours."""
    total, count = colour, weight  # gaps are 0
    for axis in (0, 1):
        total, count = _sum_of_three(total, axis), _sum_of_three(count, axis)
    mean = np.divide(total, count, out=total, where=count > 0)
    return np.where(weight > 0, colour, mean), (count > 0).astype(np.float32)


def _sum_of_three(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Each value with those before and after it along an axis, nothing beyond the border."""
    total, lines = values.copy(), np.moveaxis(values, axis, 0)
    sums = np.moveaxis(total, axis, 0)
    sums[1:] += lines[:-1]
    sums[:-1] += lines[1:]
    return total


def _double(colour: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return colour.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
