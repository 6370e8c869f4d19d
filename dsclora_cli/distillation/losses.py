"""What a student and its teacher make of a batch.

What a student is trained towards: the truth, a teacher's output, and what is compared of their feature maps.

Distances between feature maps of a student and a teacher: Euclidean (FitNets) and by spatial affinity (FAKD).

Spatial feature affinity (FAKD, ICIP 2020; L_AD of DSCLoRA, arXiv 2504.11271) in bounded memory.

Contrast in the feature domain, for the patches where the teacher knows better: a re-implementation of FACD.

The paper (arXiv 2211.15951) published no code, and neither its formula, distance and weight nor its condition are
public. What is configurable here is what had to be read into its figure; docs/distillation.md says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsclora_cli.errors import UsageError


@dataclass(frozen=True)
class Answers:
    """A batch, and what both networks answer: outputs and, tap by tap, feature maps.

    `lr` is `(N, 3, H, W)`, `hr` and the outputs `(N, 3, sH, sW)`, float in [0, 1] or about. Maps are `(N, C, h, w)`,
    those of a tap with one `h` and `w`.
    """

    lr: Tensor
    hr: Tensor
    output: Tensor
    teacher: Tensor
    maps: tuple[Tensor, ...]
    teacher_maps: tuple[Tensor, ...]

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The maps of each tap, the student's first; no gradient reaches the teacher's."""
        return zip(self.maps, (each.detach() for each in self.teacher_maps), strict=True)


Tapped = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]
"""`(N, 3, H, W)` to an output `(N, 3, sH, sW)` and feature maps, as `FeatureExtractor` and `AdaptedNetwork` answer."""

FeatureTerm = Callable[[Answers], dict[str, Tensor]]
"""A weighted term by its name, and perhaps facts beside it that are logged and no part of the loss."""


class Patches(Protocol):
    """A batch: `lr (N, 3, H, W)`, `hr (N, 3, sH, sW)` in [0, 1], and the teacher's output where it is stored."""

    @property
    def lr(self) -> Tensor:
        """What both networks see."""

    @property
    def hr(self) -> Tensor:
        """The truth."""

    @property
    def teacher(self) -> Tensor | None:
        """Like `hr`; None where the teacher is asked about each batch."""


@dataclass(frozen=True)
class Distillation:
    """Terms `rec`, distance to HR, and `ts`, L1 to the teacher's output, times their weights, and what `features` adds.

    A term of weight 0 is neither computed nor answered. The teacher gets no gradient; with `features` it answers as
    many maps as the student, and it is None where nothing is asked of it.
    """

    student: Tapped
    teacher: Tapped | None
    truth: Callable[[Tensor, Tensor], Tensor]
    rec: float
    ts: float
    features: FeatureTerm | None = None

    def __call__(self, batch: Patches) -> dict[str, Tensor]:
        """The weighted terms of a batch; their sum is the loss."""
        output, maps = self.student(batch.lr)
        terms: dict[str, Tensor] = {}
        if self.rec:
            terms["rec"] = self.rec * self.truth(output, batch.hr)
        target, teacher_maps = batch.teacher, tuple[Tensor, ...]()
        if self.teacher and (self.features or (self.ts and target is None)):
            with torch.no_grad():
                answer, teacher_maps = self.teacher(batch.lr)
            target = answer if target is None else target
        if self.features and target is not None:
            terms |= self.features(Answers(batch.lr, batch.hr, output, target, maps, teacher_maps))
        if self.ts and target is not None:
            terms["ts"] = self.ts * F.l1_loss(output, target)
        return terms


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


_EPSILON = 1e-8
_CHUNK = 128
"""At 48x48 positions, strips that stay in a CPU's cache take a third of the time of the whole matrix."""


def affinity_distance(student: Tensor, teacher: Tensor, positions: Tensor | None = None, chunk: int = _CHUNK) -> Tensor:
    """The mean absolute difference of two feature maps' affinities, a scalar that only `student` has a gradient of.

    A map F `(N, C, H, W)` is scaled to length 1 over its channels at each position; its affinity is F^T F
    `(N, H*W, H*W)`. So the maps may differ in channels, but not in N, H and W. `positions`, indices into H*W, keeps
    only these rows and columns. The affinities are never whole in memory: `chunk` rows of each at a time, forwards
    and backwards. Computed in float32, or in float64 where the maps are, whatever autocast says.
    """
    with torch.autocast(student.device.type, enabled=False):
        units = _unit(student, positions), _unit(teacher.detach(), positions)
        distance: Tensor = _Distance.apply(*units, chunk)  # type: ignore[no-untyped-call]
        return distance


def _unit(features: Tensor, positions: Tensor | None) -> Tensor:
    """Columns of length 1, `(N, C, positions)`."""
    columns = features.to(torch.promote_types(features.dtype, torch.float32)).flatten(2)
    if positions is not None:
        columns = columns[:, :, positions]
    lengths: Tensor = torch.linalg.vector_norm(columns, dim=1, keepdim=True)
    return columns / (lengths + _EPSILON)


class _Distance(torch.autograd.Function):
    """The mean of |D| over `(N, P, P)`, where D = S^T S - T^T T.

    D is symmetric, so the gradient by S is `2 S sign(D) / (N P^2)`, which each strip of D yields while it is there; and
    the part of D below its diagonal need not be computed: what lies right of a strip's own square counts twice.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor, chunk: int) -> Tensor:  # noqa: ANN401 - autograd's
        images, _, size = s.shape
        total, gradient = s.new_zeros(()), torch.zeros_like(s)
        for start in range(0, size, chunk):
            rows, rest = slice(start, start + chunk), slice(start, None)
            strip = (s[:, :, rows].mT @ s[:, :, rest]).sub_(t[:, :, rows].mT @ t[:, :, rest])  # (N, chunk, P - start)
            strip[:, :, :chunk] *= 0.5
            total += strip.abs().sum()
            strip.sign_()[:, :, :chunk] *= 0.5
            gradient[:, :, rest] += s[:, :, rows] @ strip
            gradient[:, :, rows] += s[:, :, rest] @ strip.mT
        scale = 2 / (images * size**2)
        ctx.save_for_backward(gradient * scale)
        return total * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - autograd's
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


_CONTRAST_EPSILON = 1e-8


@dataclass(frozen=True)
class Contrast:
    """The term `facd`, and the fact `passed`, the share of samples that it was computed for.

    Of each sample i and tap, the student's map is the anchor, the teacher's the positive, and maps of the other samples
    are negatives: the teacher's, or with `negatives` "student" the student's own. With d the `distance` and N - 1
    negatives, `form` is

    - "sums": d(positive) / sum of d(negatives);
    - "means": d(positive) / mean of d(negatives);
    - "infonce": -log of the positive's share of exp(-d / temperature) over positive and negatives.

    The term is the mean over taps and samples, those counting 0 that `condition` leaves out: "better" keeps samples
    where the teacher's mean absolute error to HR is below the student's, "margin" those where it is by `margin` at
    least, in [0, 1], "always" all.
    """

    weight: float
    distance: str = "l1"
    form: str = "sums"
    negatives: str = "teacher"
    condition: str = "better"
    margin: float = 0.0
    temperature: float = 1.0

    def __call__(self, answers: Answers) -> dict[str, Tensor]:
        """The weighted term and the fact. Raises UsageError for a batch of one, which has no negatives."""
        if len(answers.lr) < 2:
            raise UsageError(
                "contrast needs other patches beside each one, and there is one patch at a time",
                "raise --batch, or lower --accumulate or the number of workers",
            )
        passed = self._passed(answers)
        losses = torch.stack([self._losses(*pair) for pair in answers.pairs()])  # (taps, N)
        return {"facd": self.weight * (losses * passed).mean(), "passed": passed.mean()}

    def _passed(self, answers: Answers) -> Tensor:
        """1 or 0 for each sample."""
        if self.condition == "always":
            return answers.hr.new_ones(len(answers.hr))
        student, teacher = (
            (output.detach() - answers.hr).abs().mean((1, 2, 3)) for output in (answers.output, answers.teacher)
        )
        margin = self.margin if self.condition == "margin" else 0.0
        return (teacher + margin < student).to(answers.hr.dtype)

    def _losses(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of one tap, for each sample."""
        anchors, positives = rows(student), rows(teacher)
        distance = FEATURE_DISTANCES[self.distance]
        near = distance.each(anchors, positives)
        far = distance.all_pairs(anchors, positives if self.negatives == "teacher" else anchors)
        others = ~torch.eye(len(far), dtype=torch.bool, device=far.device)
        far = far[others].view(len(far), -1)  # (N, N - 1)
        if self.form == "infonce":
            closeness = torch.cat([near[:, None], far], dim=1) / -self.temperature
            return torch.logsumexp(closeness, 1) - closeness[:, 0]
        return near / ((far.sum(1) if self.form == "sums" else far.mean(1)) + _CONTRAST_EPSILON)
