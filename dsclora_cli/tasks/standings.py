"""From the scores of images to those of a set: means, comparisons, and the images that went worst."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dsclora_cli.tasks.claims import claims_of
from dsclora_cli.tasks.comparison import Comparison, compare
from dsclora_cli.tasks.report import BASELINE, RowScores, Worst
from dsclora_cli.tasks.scores import Protocol, finite_mean
from dsclora_cli.weights.catalog import WeightEntry

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
