"""Whether one network is better than another on the same images: paired differences and their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 0


@dataclass(frozen=True)
class Comparison:
    """`row` minus `against`, image by image, in the unit of `metric`.

    `difference` is the mean, `low` and `high` its 95 % percentile bootstrap interval over the images; all three are
    None where no image has a finite difference. `infinite` images have none and count only as wins, losses or ties.
    """

    row: str
    against: str
    metric: str
    difference: float | None
    low: float | None
    high: float | None
    wins: int
    losses: int
    ties: int
    infinite: int


def compare(names: tuple[str, str], metric: str, row: Sequence[float], against: Sequence[float]) -> Comparison:
    """Compare two rows, called `names`, by their scores on the same images; higher is better. The seed is fixed."""
    ours, theirs = np.array(row), np.array(against)
    finite = np.isfinite(ours) & np.isfinite(theirs)
    differences = ours[finite] - theirs[finite]
    mean, low, high = _interval(differences) if differences.size else (None, None, None)
    return Comparison(
        row=names[0],
        against=names[1],
        metric=metric,
        difference=mean,
        low=low,
        high=high,
        wins=int((ours > theirs).sum()),
        losses=int((ours < theirs).sum()),
        ties=int((ours == theirs).sum()),
        infinite=int((~finite).sum()),
    )


def _interval(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    """The mean, and the percentiles of the means of as many images drawn with replacement."""
    rng = np.random.default_rng(_SEED)
    count = differences.size
    means = [differences[rng.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(differences.mean()), float(low), float(high)
