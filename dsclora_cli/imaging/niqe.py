"""NIQE: how natural a picture looks, without an original to compare with (Mittal et al. 2013).

The parameters are the authors' own; niqe_pris_params.LICENSE.txt next to this file has their terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.imaging.metrics import Plane, blur, luma
from dsclora_cli.imaging.resize import halve_plane

_PARAMETERS = Path(__file__).with_name("niqe_pris_params.npz")
_BLOCK = 96  # pixels a side
_NEIGHBORS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Rows and columns from a pixel to the neighbor that the pixel is multiplied with."""


def niqe(image: NDArray[np.uint8]) -> float:
    """Return NIQE of a picture: the distance between its statistics and the statistics of good photographs.

    The steps are those of the authors' MATLAB code and of BasicSR: rounded luma, blocks of 96x96 pixels from the upper
    left corner, two scales. Pixels to the right of the last whole block and below do not count.

    Args:
        image: `(H, W, 3)` uint8.

    Returns:
        The distance, 0 or more; lower is more natural. Infinity where fewer than two blocks can be measured: blocks
        without contrast have no statistics.
    """
    plane = np.rint(luma(image))
    rows, columns = (side // _BLOCK for side in plane.shape)
    if rows * columns < 2:
        return math.inf
    plane = plane[: rows * _BLOCK, : columns * _BLOCK]
    parameters = _parameters()
    scales = ((plane, _BLOCK), (halve_plane(plane), _BLOCK // 2))
    features = np.hstack([_features(_normalize(each, parameters.window), edge) for each, edge in scales])
    usable = features[~np.isnan(features).any(axis=1)]
    if len(usable) < 2:
        return math.inf
    # As in the authors' code, an unusable block counts in the means of the features that the block has.
    difference = parameters.mean - np.nanmean(features, axis=0)
    covariance = (parameters.covariance + np.cov(usable, rowvar=False)) / 2
    return float(np.sqrt(difference @ np.linalg.pinv(covariance) @ difference))


@dataclass(frozen=True)
class _Parameters:
    """The statistics of good photographs, and the window of the normalization."""

    mean: NDArray[np.float64]
    """`(36,)`: 18 features on each of two scales."""

    covariance: NDArray[np.float64]
    """`(36, 36)`."""

    window: NDArray[np.float64]
    """`(7,)`: the 7x7 Gaussian is the outer product of the window with itself."""


@lru_cache(maxsize=1)
def _parameters() -> _Parameters:
    with np.load(_PARAMETERS) as file:
        window = file["gaussian_window"].sum(axis=0)
        return _Parameters(file["mu_pris_param"].ravel(), file["cov_pris_param"], window / window.sum())


def _normalize(plane: Plane, window: NDArray[np.float64]) -> Plane:
    """Return `(H, W)` without the local mean, divided by the local deviation plus 1: MSCN coefficients."""
    # Rounded to float32, where flat areas give exactly 0: in float64 they give rounding errors of either sign, which
    # would count as values to the left and to the right of 0, and change the score by up to 0.3.
    mean, mean_square = (_local_mean(each, window).astype(np.float32) for each in (plane, plane * plane))
    deviation = np.sqrt(np.abs(mean_square - mean * mean))
    normalized: Plane = ((plane.astype(np.float32) - mean) / (deviation + 1)).astype(np.float64)
    return normalized


def _local_mean(plane: Plane, window: NDArray[np.float64]) -> Plane:
    """Return the weighted mean around each pixel of `(H, W)`; the border is repeated."""
    return blur(np.pad(plane, len(window) // 2, mode="edge"), window)


def _features(normalized: Plane, edge: int) -> NDArray[np.float64]:
    """Return 18 features `(blocks, 18)` of every block of `edge` pixels a side; NaN for a block without contrast."""
    height, width = normalized.shape
    blocks = [
        normalized[top : top + edge, left : left + edge]
        for left in range(0, width, edge)
        for top in range(0, height, edge)
    ]
    return np.array([_block_features(block) for block in blocks])


def _block_features(block: Plane) -> list[float]:
    shape, left, right = _fit_aggd(block)
    features = [_table().shapes[shape], (left + right) / 2]
    for shift in _NEIGHBORS:
        # Equation 7 of the paper: products of neighbors; at the edge of a block the block continues on the other side.
        shape, left, right = _fit_aggd(block * np.roll(block, shift, axis=(0, 1)))
        features += [_table().shapes[shape], (right - left) * _table().mean_factor[shape], left, right]
    return features


@dataclass(frozen=True)
class _ShapeTable:
    """Quantities of the asymmetric generalized Gaussian (AGGD), for every shape parameter that a fit can choose."""

    shapes: NDArray[np.float64]
    """From 0.2 to 10 in steps of 0.001, as in the authors' code."""

    ratio: NDArray[np.float64]
    """`gamma(2/a)^2 / (gamma(1/a) gamma(3/a))`: the squared mean magnitude over the mean square."""

    spread: NDArray[np.float64]
    """`sqrt(gamma(1/a) / gamma(3/a))`: scale parameter over standard deviation."""

    mean_factor: NDArray[np.float64]
    """`gamma(2/a) / gamma(1/a)`: the mean over the difference of the scale parameters."""


@lru_cache(maxsize=1)
def _table() -> _ShapeTable:
    shapes = np.arange(0.2, 10.001, 0.001)
    one, two, three = (np.array([math.gamma(n / shape) for shape in shapes]) for n in (1, 2, 3))
    return _ShapeTable(shapes, two**2 / (one * three), np.sqrt(one / three), two / one)


def _fit_aggd(values: Plane) -> tuple[int, float, float]:
    """Fit an AGGD by its moments; return the index of the shape in the table, and the left and right scale.

    A side without values has the scale NaN, and the shape is then the first of the table, as in the authors' code.
    """
    table = _table()
    left, right = (
        math.sqrt(np.mean(side**2)) if side.size else math.nan for side in (values[values < 0], values[values > 0])
    )
    shape = 0
    if left > 0 and right > 0:  # false for NaN
        balance = left / right
        ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
        wanted = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
        shape = int(np.argmin((table.ratio - wanted) ** 2))
    return shape, left * table.spread[shape], right * table.spread[shape]
