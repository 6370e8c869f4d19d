"""Distances between feature maps of a student and a teacher: Euclidean (FitNets) and by spatial affinity (FAKD)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.objectives.affinity import affinity_distance
from dsclora_cli.objectives.answers import Answers


@dataclass(frozen=True)
class FeatureDistance:
    """A distance between rows of features `(N, D)`: of each with its own, `(N,)`, and of all with all, `(N, M)`.

    Both are what `each` defines; `all_pairs` needs no memory of the order N * M * D.
    """

    each: Callable[[Tensor, Tensor], Tensor]
    all_pairs: Callable[[Tensor, Tensor], Tensor]


def rows(maps: Tensor) -> Tensor:
    """Maps `(N, C, H, W)` as `(N, D)`, in float32, or in float64 where they are."""
    return maps.flatten(1).to(torch.promote_types(maps.dtype, torch.float32))


def _mean_squares(first: Tensor, second: Tensor) -> Tensor:
    squares = first.square().sum(1)[:, None] + second.square().sum(1) - 2 * first @ second.mT
    return squares.clamp_min(0) / first.shape[1]


FEATURE_DISTANCES = {
    "l1": FeatureDistance(
        lambda first, second: (first - second).abs().mean(1),
        lambda first, second: torch.cdist(first, second, p=1) / first.shape[1],
    ),
    "l2": FeatureDistance(lambda first, second: (first - second).square().mean(1), _mean_squares),
    "cosine": FeatureDistance(
        lambda first, second: 1 - F.cosine_similarity(first, second),
        lambda first, second: 1 - F.normalize(first) @ F.normalize(second).mT,
    ),
}
"""Mean absolute and mean squared difference, and one minus the cosine of the angle."""


@dataclass(frozen=True)
class Euclidean:
    """The term `fd`: the mean over taps and samples of a distance between student and teacher (arXiv 1412.6550)."""

    weight: float
    distance: str = "l2"

    def __call__(self, answers: Answers) -> dict[str, Tensor]:
        """The weighted term."""
        distance = FEATURE_DISTANCES[self.distance].each
        means = [distance(*map(rows, pair)).mean() for pair in answers.pairs()]
        return {"fd": self.weight * torch.stack(means).mean()}


@dataclass(frozen=True)
class Affinity:
    """The term `name`: affinity distances, their mean over taps (DSCLoRA) or with `summed` their sum (FAKD, ICIP 2020).

    `positions` of each map are compared, 0 for all.
    """

    weight: float
    positions: int = 0
    summed: bool = False
    name: str = "ad"

    def __call__(self, answers: Answers) -> dict[str, Tensor]:
        """The weighted term."""
        size = answers.lr.shape[2] * answers.lr.shape[3]
        chosen = _drawn(answers.lr, size, self.positions) if 0 < self.positions < size else None
        distances = torch.stack([affinity_distance(*pair, chosen) for pair in answers.pairs()])
        return {self.name: self.weight * (distances.sum() if self.summed else distances.mean())}


def _drawn(lr: Tensor, size: int, count: int) -> Tensor:
    """Different positions for each batch, decided by its pixels: a run that goes on draws as it would have drawn."""
    generator = torch.Generator().manual_seed(round(float(lr.cpu().double().sum() * 255)))
    return torch.randperm(size, generator=generator)[:count].to(lr.device)
