"""What an evaluation found: plain frozen data, the fields of which are the keys of `dsclora eval --json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsclora_cli.evaluation.cost import Cost
from dsclora_cli.evaluation.protocol import Protocol

if TYPE_CHECKING:
    from dsclora_cli.evaluation.statistics import Claim, Comparison

BASELINE = "bicubic"
"""The first row of every set: MATLAB's bicubic upscaling of the LR."""


@dataclass(frozen=True)
class RowInfo:
    """What is behind a row. The baseline has no weights, device, dtype or engine; `tile` is as it was asked for."""

    name: str
    weights_sha256: str | None = None
    device: str | None = None
    dtype: str | None = None
    ensemble: bool = False
    tile: int | None = None
    engine: str | None = None
    notes: tuple[str, ...] = ()
    cost: Cost | None = None


@dataclass(frozen=True)
class RowScores:
    """A row of a set: scores by image and metric.

    `mean` is over the images with a finite score (inf where there is none); `infinite` counts the others by metric.
    """

    name: str
    mean: Mapping[str, float]
    infinite: Mapping[str, int]
    images: Mapping[str, Mapping[str, float]]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Worst:
    """An image on which a row gains least over the baseline, or loses most: `gain` in dB of the deciding metric."""

    row: str
    image: str
    gain: float


@dataclass(frozen=True)
class SetReport:
    """One benchmark set. `verdict` says of the HR images: verified, or unknown copy; rows are in the asked order."""

    name: str
    images: int
    fingerprint: str
    verdict: str
    warning: str | None
    rows: tuple[RowScores, ...]
    comparisons: tuple[Comparison, ...] = ()
    worst: tuple[Worst, ...] = ()


@dataclass(frozen=True)
class EvalReport:
    """The whole answer. `metrics` are the protocol's and then the extra ones; `versions` by package.

    `jpeg` is the quality that LR was saved with, None for clean LR.
    """

    scale: int
    protocol: Protocol
    metrics: tuple[str, ...]
    rows: tuple[RowInfo, ...]
    sets: tuple[SetReport, ...]
    versions: Mapping[str, str]
    jpeg: int | None = None
