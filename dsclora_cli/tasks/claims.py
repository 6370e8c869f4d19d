"""Measured scores beside those that the catalogue states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dsclora_cli.weights.catalog import Scores, WeightEntry

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
