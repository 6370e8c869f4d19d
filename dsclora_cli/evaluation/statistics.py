"""From the scores of images to those of a set: means, comparisons, and the images that went worst.

Whether one network is better than another on the same images: paired differences and their uncertainty.

Measured scores beside those that the catalogue states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dsclora_cli.evaluation.protocol import Protocol, finite_mean
from dsclora_cli.evaluation.report import BASELINE, RowScores, Worst
from dsclora_cli.weights.catalog import Scores, WeightEntry

Table = dict[str, dict[str, Mapping[str, float]]]
"""Row to image to metric to score; the same images in every row, the baseline first, then the first model."""


def standings(
    benchmark: str, scores: Table, protocol: Protocol, entries: Mapping[str, WeightEntry | None]
) -> tuple[tuple[RowScores, ...], tuple[Comparison, ...]]:
    """All rows of a set, and each model against the first one by the protocol's first metric.

    `entries` by row: what the catalogue states is compared under the paper's protocol only, which is its own.
    """
    rows = []
    for name, images in scores.items():
        entry = entries[name] if protocol.name == "paper" else None
        rows.append(_row(benchmark, name, images, entry))
    metric = protocol.metrics[0]
    columns = {name: [image[metric] for image in images.values()] for name, images in scores.items()}
    _, first, *others = columns
    comparisons = tuple(compare((name, first), metric, columns[name], columns[first]) for name in others)
    return tuple(rows), comparisons


def worst_images(scores: Table, metric: str, count: int) -> tuple[Worst, ...]:
    """For each row but the baseline the `count` images with the least gain over it, worst first."""
    found: list[Worst] = []
    for name, images in scores.items():
        if name != BASELINE:
            gains = [(_gain(image[metric], scores[BASELINE][key][metric]), key) for key, image in images.items()]
            found.extend(Worst(name, image, gain) for gain, image in sorted(gains)[:count])
    return tuple(found)


def _gain(score: float, baseline: float) -> float:
    return 0.0 if score == baseline else score - baseline  # two infinite scores are equal


def _row(benchmark: str, name: str, images: Mapping[str, Mapping[str, float]], entry: WeightEntry | None) -> RowScores:
    metrics = next(iter(images.values()))
    columns = {metric: [scores[metric] for scores in images.values()] for metric in metrics}
    mean = {metric: finite_mean(values) for metric, values in columns.items()}
    infinite = {metric: sum(map(math.isinf, values)) for metric, values in columns.items()}
    claims = claims_of(entry, benchmark, mean) if entry else ()
    return RowScores(name, mean, {metric: count for metric, count in infinite.items() if count}, images, claims)


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


_TOLERANCE = {"psnr_y": 0.01, "psnr_rgb": 0.01, "ssim_y": 0.001}
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Claim:
    """A mean score that `weights.toml` states: `published` in the cited source, or `reference`, measured by us.

    `differs` marks a `difference` (measured - stated) of more than 0.01 dB, or 0.001 for SSIM.
    """

    kind: Literal["published", "reference"]
    metric: str
    stated: float
    measured: float
    difference: float
    differs: bool


def claims_of(entry: WeightEntry, benchmark: str, measured: Mapping[str, float]) -> tuple[Claim, ...]:
    """All that the entry states for the set of that name (in any case) and that was measured."""
    kinds: tuple[tuple[Literal["published", "reference"], Scores], ...] = (
        ("published", entry.published),
        ("reference", entry.reference),
    )
    return tuple(
        _claim(kind, metric, stated, measured[metric])
        for kind, scores in kinds
        for name, by_metric in scores.items()
        if name.lower() == benchmark.lower()
        for metric, stated in by_metric.items()
        if metric in measured
    )


def _claim(kind: Literal["published", "reference"], metric: str, stated: float, measured: float) -> Claim:
    difference = measured - stated
    return Claim(kind, metric, stated, measured, difference, abs(difference) > _TOLERANCE[metric] + _ROUNDING)
