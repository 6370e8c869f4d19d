"""Statistics of a benchmark set: means, paired comparisons with intervals, published scores, and the worst images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dsclora_cli.evaluation.protocol import Protocol
from dsclora_cli.evaluation.report import RowScores, Worst
from dsclora_cli.names import BASELINE, NIQE
from dsclora_cli.weights.catalog import WeightEntry

ScoreTable = dict[str, dict[str, Mapping[str, float]]]
"""Scores by row, image and metric. Every row has the same images; the baseline comes first, then the first model."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 0

_TOLERANCE = {"psnr_y": 0.01, "psnr_rgb": 0.01, "ssim_y": 0.001}
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Comparison:
    """Paired comparison of two rows on the images of a set; a higher score is better, a lower score for NIQE."""

    row: str

    against: str
    """Name of the row to compare with."""

    metric: str

    difference: float | None
    """Mean over the images of `row` minus `against`; None where no image has a finite difference."""

    low: float | None
    """Lower bound of the 95 % percentile bootstrap interval of the mean difference."""

    high: float | None
    """Upper bound of the interval."""

    wins: int
    """Number of images on which `row` is better; infinite scores count here, in `losses` and in `ties`."""

    losses: int
    ties: int

    infinite: int
    """Number of images without a finite difference, which the mean and the interval leave out."""


@dataclass(frozen=True)
class Claim:
    """Mean score that the catalog states for a model, next to the measured score."""

    kind: Literal["published", "reference"]
    """`published` in the source that the catalog cites, or `reference`, measured by the authors of this program."""

    metric: str
    stated: float
    measured: float

    difference: float
    """Measured minus stated."""

    differs: bool
    """Whether the scores differ by more than 0.01 dB, or by more than 0.001 for SSIM."""


def summarize(
    benchmark: str, scores: ScoreTable, protocol: Protocol, entries: Mapping[str, WeightEntry | None]
) -> tuple[tuple[RowScores, ...], tuple[Comparison, ...]]:
    """Return the means of all rows of a set, and the comparison of each further model with the first model.

    Args:
        benchmark: name of the set.
        scores: scores of every row on every image.
        protocol: the comparisons use the first metric of the protocol, and NIQE where there are scores.
        entries: catalog entry of each row, None for a row without published scores.
    """
    rows = []
    for name, images in scores.items():
        row, entry = mean_scores(name, images), entries[name]
        # The catalog states scores of the paper protocol only.
        claims = compare_published(entry, benchmark, row.mean) if entry and protocol.name == "paper" else ()
        rows.append(replace(row, claims=claims))
    compared = (protocol.metrics[0], *(metric for metric in rows[0].mean if metric == NIQE))
    # The baseline is in the table for orientation; models are compared with the first model.
    _, first, *others = scores
    comparisons = []
    for metric in compared:
        values = {name: [image[metric] for image in images.values()] for name, images in scores.items()}
        comparisons += [compare_rows((name, first), metric, values[name], values[first]) for name in others]
    return tuple(rows), tuple(comparisons)


def mean_scores(name: str, images: Mapping[str, Mapping[str, float]]) -> RowScores:
    """Return a row with the mean of each metric; `images` has at least one image, with scores by metric."""
    columns = {metric: [image[metric] for image in images.values()] for metric in next(iter(images.values()))}
    mean = {metric: finite_mean(values) for metric, values in columns.items()}
    infinite = {metric: sum(map(math.isinf, values)) for metric, values in columns.items()}
    return RowScores(name, mean, {metric: n for metric, n in infinite.items() if n}, images)


def finite_mean(values: Sequence[float]) -> float:
    """Return the mean of the finite values, infinity where no value is finite: PSNR is infinite for equal images."""
    finite = [value for value in values if not math.isinf(value)]
    # `fsum` is exact, so the mean does not depend on the order of the images.
    return math.fsum(finite) / len(finite) if finite else math.inf


def compare_published(entry: WeightEntry, benchmark: str, measured: Mapping[str, float]) -> tuple[Claim, ...]:
    """Return every score that the catalog states for a model on a set, next to the measured score of the metric."""
    claims = []
    kinds: tuple[Literal["published", "reference"], ...] = ("published", "reference")
    for kind in kinds:
        stated_scores = entry.published if kind == "published" else entry.reference
        for name, by_metric in stated_scores.items():
            if name.lower() != benchmark.lower():
                continue
            for metric, stated in by_metric.items():
                if metric in measured:
                    difference = measured[metric] - stated
                    # A difference of exactly 0.01 dB must not count because of float rounding.
                    differs = abs(difference) > _TOLERANCE[metric] + _ROUNDING
                    claims.append(Claim(kind, metric, stated, measured[metric], difference, differs))
    return tuple(claims)


def compare_rows(names: tuple[str, str], metric: str, row: Sequence[float], against: Sequence[float]) -> Comparison:
    """Compare two rows by their scores on the same images; equal scores give an equal interval every time.

    Args:
        names: names of the two rows.
        metric: name of the metric; higher is better, for NIQE lower.
        row: scores of the first row, by image.
        against: scores of the second row on the same images, in the same order.
    """
    ours, theirs = np.array(row), np.array(against)
    finite = np.isfinite(ours) & np.isfinite(theirs)
    differences = ours[finite] - theirs[finite]
    mean, low, high = _bootstrap(differences) if differences.size else (None, None, None)
    better, worse = (theirs, ours) if metric == NIQE else (ours, theirs)
    return Comparison(
        row=names[0],
        against=names[1],
        metric=metric,
        difference=mean,
        low=low,
        high=high,
        wins=int((better > worse).sum()),
        losses=int((better < worse).sum()),
        ties=int((ours == theirs).sum()),
        infinite=int((~finite).sum()),
    )


def _bootstrap(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float]:
    """Return the mean of `(N,)` differences, and the bounds of the interval of the mean (percentile bootstrap)."""
    rng = np.random.default_rng(_SEED)  # fixed, so that a report can be repeated
    count = differences.size
    means = [differences[rng.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(differences.mean()), float(low), float(high)


def worst_images(scores: ScoreTable, metric: str, count: int) -> tuple[Worst, ...]:
    """Return, for each row but the baseline, the `count` images with the least gain over the baseline, worst first."""
    found: list[Worst] = []
    for name, images in scores.items():
        if name == BASELINE:
            continue
        gains = []
        for image, by_metric in images.items():
            score, baseline = by_metric[metric], scores[BASELINE][image][metric]
            # Two infinite scores are equal; their difference would be NaN.
            gains.append((0.0 if score == baseline else score - baseline, image))
        found.extend(Worst(name, image, gain) for gain, image in sorted(gains)[:count])
    return tuple(found)
