"""Losses that compare a student with its teacher. A new loss between feature maps is one class in this file.

`DistillationLoss` computes the loss of a batch: a distance to HR, a distance to the teacher's output, and at most one
loss of a method: `FeatureLoss` (FitNets), `AffinityLoss` (DSCLoRA, FAKD), `ContrastiveLoss` (FACD) or `AugmentedLoss`
(AugKD).
`distill` builds these objects from a recipe; the training loop in `training.trainer` calls `DistillationLoss`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsclora_cli.datasets.patches import Batch
from dsclora_cli.recipe_toml import check_contrast
from dsclora_cli.training.losses import detail_l1


@dataclass(frozen=True)
class DistillBatch:
    """A batch with the outputs and feature maps of student and teacher, all floats."""

    lr: Tensor
    """Input of both networks, `(N, 3, H, W)` in [0, 1]."""
    hr: Tensor
    """Ground truth, `(N, 3, sH, sW)` in [0, 1]."""
    output: Tensor
    """Student's output, `(N, 3, sH, sW)`, not clamped."""
    teacher_output: Tensor
    """Teacher's output, `(N, 3, sH, sW)`."""
    maps: tuple[Tensor, ...]
    """Student's feature maps, `(N, C, h, w)`."""
    teacher_maps: tuple[Tensor, ...]
    """Teacher's feature maps in the same order, `(N, C', h, w)`."""
    student: NetworkWithFeatures | None = None
    """Student, for losses with inputs of their own."""
    teacher: NetworkWithFeatures | None = None
    """Teacher, for losses with inputs of their own; to call without gradients."""

    def map_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pairs of a student's map and the teacher's map, the latter without gradient."""
        return zip(self.maps, (teacher_map.detach() for teacher_map in self.teacher_maps), strict=True)

    def generator(self) -> torch.Generator:
        """Return a generator on the CPU, seeded by the pixels: a resumed run draws the same numbers."""
        return torch.Generator().manual_seed(round(float(self.lr.cpu().double().sum() * 255)))


NetworkWithFeatures = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]
"""Function from LR `(N, 3, H, W)` to an output `(N, 3, sH, sW)` and feature maps, as in `FeatureExtractor`."""

FeatureTerm = Callable[[DistillBatch], dict[str, Tensor]]
"""Function from a batch to a weighted loss by name, and perhaps values by name that are only logged."""


OWN_TERMS = frozenset({"rec", "ts", "spectrum"})
"""Names of the terms of `DistillationLoss`, which no term of a method may have."""


@dataclass(frozen=True)
class DistillationLoss:
    """Loss of a student: `rec * distance(output, HR) + ts * L1(output, teacher's output)` plus other terms.

    A term with weight 0 is neither computed nor returned. The teacher gets no gradient.
    """

    student: NetworkWithFeatures
    teacher: NetworkWithFeatures | None
    """None if no term needs the network; with `features` the teacher returns as many maps as the student."""
    pixel_loss: Callable[[Tensor, Tensor], Tensor]
    """Distance between output and HR, a scalar."""
    rec: float
    """Weight of `pixel_loss`."""
    ts: float
    """Weight of the L1 distance to the teacher's output."""
    features: FeatureTerm | None = None
    """Loss between feature maps."""
    spectrum: float = 0.0
    """Weight of the distance to the amount of detail in the teacher's output (`detail_l1`); only with `ts`."""
    spectrum_block: int = 0
    """Edge, in pixels, of the blocks of `detail_l1`; 0 for the whole patch."""

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms of a batch by name, scalars, and the values that are only logged.

        Args:
            batch: LR `(N, 3, H, W)`, HR `(N, 3, sH, sW)`, both in [0, 1], and the teacher's output like HR if stored.
        """
        output, maps = self.student(batch.lr)
        terms: dict[str, Tensor] = {}
        if self.rec:
            terms["rec"] = self.rec * self.pixel_loss(output, batch.hr)
        target, teacher_maps = batch.teacher, tuple[Tensor, ...]()
        # Feature maps are never stored, so a feature loss runs the teacher even if its output is stored.
        if self.teacher and (self.features or (self.ts and target is None)):
            with torch.no_grad():
                teacher_output, teacher_maps = self.teacher(batch.lr)
            target = teacher_output if target is None else target
        if self.features and target is not None:
            networks = self.student, self.teacher
            terms |= self.features(DistillBatch(batch.lr, batch.hr, output, target, maps, teacher_maps, *networks))
        if self.ts and target is not None:
            terms["ts"] = self.ts * F.l1_loss(output, target)
            if self.spectrum:
                terms["spectrum"] = self.spectrum * detail_l1(output, target, self.spectrum_block)
        return terms


@dataclass(frozen=True)
class FeatureLoss:
    """Loss `fd`: mean distance between feature maps of student and teacher (FitNets, arXiv 1412.6550).

    The mean is taken over pairs of maps and samples.
    """

    weight: float
    distance: str = "l2"
    """Key of `FEATURE_DISTANCES`."""

    def __call__(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Return the weighted loss."""
        distance = FEATURE_DISTANCES[self.distance].paired
        means = [distance(*map(flatten_maps, pair)).mean() for pair in batch.map_pairs()]
        return {"fd": self.weight * torch.stack(means).mean()}


@dataclass(frozen=True)
class AffinityLoss:
    """Loss between spatial affinities of feature maps (FAKD, ICIP 2020; L_AD of DSCLoRA, arXiv 2504.11271).

    Affinities are inner products between the positions of a single map, so student and teacher may differ in channels.
    """

    weight: float
    positions: int = 0
    """Number of positions of each map to compare, drawn anew for each batch; 0 for all."""
    summed: bool = False
    """True: sum over the maps (FAKD). False: mean over the maps (DSCLoRA)."""
    name: str = "ad"
    """Name of the loss in the log."""

    def __call__(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Return the weighted loss."""
        size = batch.lr.shape[2] * batch.lr.shape[3]
        chosen = None
        if 0 < self.positions < size:
            chosen = torch.randperm(size, generator=batch.generator())[: self.positions].to(batch.lr.device)
        distances = torch.stack([affinity_distance(*pair, chosen) for pair in batch.map_pairs()])
        return {self.name: self.weight * (distances.sum() if self.summed else distances.mean())}


@dataclass(frozen=True)
class ContrastiveLoss:
    """Loss `facd`: contrast between feature maps, for patches where the teacher is better. Re-implements FACD.

    The authors published no code, and of the paper (arXiv 2211.15951) we had only the abstract and one figure. So
    formula, distance, weight and condition are our choice: every part that had to be guessed is a field, and
    docs/distillation.md gives the reasons. In our reading the paper takes distance "l1", the mean absolute difference;
    the default "l2" scored better in our comparison.

    For sample i and a pair of maps, the student's map is the anchor, the teacher's map the positive, and the maps of
    the N - 1 other samples are the negatives. The loss is the mean over pairs of maps and samples; a sample without the
    `condition` counts as 0.
    """

    weight: float
    distance: str = "l2"
    """Distance d between maps, a key of `FEATURE_DISTANCES`."""
    form: str = "sums"
    """"sums": d(positive) / sum of d(negatives). "means": d(positive) / mean of d(negatives). "infonce": -log of the
    positive's share of exp(-d / temperature) over positive and negatives."""
    negatives: str = "teacher"
    """Network with the negatives' maps: "teacher" or "student"."""
    condition: str = "better"
    """Samples that count. "better": the teacher's mean absolute error to HR is below the student's. "margin": below by
    at least `margin`. "always": all."""
    margin: float = 0.0
    """Mean absolute error in [0, 1]."""
    temperature: float = 1.0

    def __call__(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Return the weighted loss, and `passed`: the share of samples with the condition, in [0, 1], only logged.

        Raises UsageError for a batch with a single sample, which has no negatives.
        """
        check_contrast(len(batch.lr))
        passed = self._passed(batch)
        losses = torch.stack([self._losses(*pair) for pair in batch.map_pairs()])  # (pairs, N)
        return {"facd": self.weight * (losses * passed).mean(), "passed": passed.mean()}

    def _passed(self, batch: DistillBatch) -> Tensor:
        """Return `(N,)`: 1 for each sample with the condition, else 0."""
        if self.condition == "always":
            return batch.hr.new_ones(len(batch.hr))
        student_error, teacher_error = (
            (output.detach() - batch.hr).abs().mean((1, 2, 3)) for output in (batch.output, batch.teacher_output)
        )
        margin = self.margin if self.condition == "margin" else 0.0
        return (teacher_error + margin < student_error).to(batch.hr.dtype)

    def _losses(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of every sample, `(N,)`, for a pair of maps `(N, C, h, w)` of equal shape."""
        anchors, positives = flatten_maps(student), flatten_maps(teacher)
        distance = FEATURE_DISTANCES[self.distance]
        near = distance.paired(anchors, positives)
        far = distance.all_pairs(anchors, positives if self.negatives == "teacher" else anchors)
        # The diagonal compares a sample with itself, which is no negative.
        others = ~torch.eye(len(far), dtype=torch.bool, device=far.device)
        far = far[others].view(len(far), -1)  # (N, N - 1)
        if self.form == "infonce":
            closeness = torch.cat([near[:, None], far], dim=1) / -self.temperature
            return torch.logsumexp(closeness, 1) - closeness[:, 0]
        return near / ((far.sum(1) if self.form == "sums" else far.mean(1)) + _EPSILON)


@dataclass(frozen=True)
class AugmentedLoss:
    """Loss `augkd`: the teacher's output on inputs that have no HR (AugKD, ICLR 2025; arXiv 2309.14162).

    Zoom-in: a part of HR of the size of LR is an input, and the teacher's output the target. The student gets the part
    with inverted colors, mirrored or transposed, and the student's output is turned back before the comparison.
    Zoom-out: LR, reduced once more, is an input, and the targets are LR and the teacher's output. All distances are L1.
    """

    weight: float
    share: float = 0.3
    """Probability of each of the four changes of a sample."""

    def __call__(self, batch: DistillBatch) -> dict[str, Tensor]:
        """Return the weighted losses `zoom_in` and `zoom_out`, scalars. Patches must be square."""
        assert batch.student is not None
        assert batch.teacher is not None
        generator = batch.generator()
        size, scale = batch.lr.shape[-1], batch.hr.shape[-1] // batch.lr.shape[-1]
        top, left = torch.randint(size * (scale - 1) + 1, (2,), generator=generator).tolist()
        part = batch.hr[:, :, top : top + size, left : left + size]
        chosen = (torch.rand(len(part), len(_CHANGES), generator=generator) < self.share).to(part.device)
        changed = batch.student(_change(part, chosen, range(len(_CHANGES))))[0]
        # Backwards: a transposition after a mirroring is undone first.
        restored = _change(changed, chosen, reversed(range(len(_CHANGES))))

        reduced = F.interpolate(batch.lr, scale_factor=1 / scale, mode="bicubic", antialias=True).clamp(0, 1)
        again = batch.student(reduced)[0]
        wanted = batch.lr[:, :, : again.shape[2], : again.shape[3]]
        with torch.no_grad():
            teacher_in, teacher_out = batch.teacher(part)[0], batch.teacher(reduced)[0]
        zoom_out = F.l1_loss(again, wanted) + F.l1_loss(again, teacher_out)
        return {"zoom_in": self.weight * F.l1_loss(restored, teacher_in), "zoom_out": self.weight * zoom_out}


_CHANGES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda images: 1 - images,
    lambda images: images.flip(2),
    lambda images: images.flip(3),
    lambda images: images.mT,
)
"""Changes of images `(N, 3, H, H)` in [0, 1]. Each change is its own inverse."""


def _change(images: Tensor, chosen: Tensor, order: Iterable[int]) -> Tensor:
    """Apply to each image the changes that `chosen`, `(N, 4)` of bool, has for the image."""
    for index in order:
        images = torch.where(chosen[:, index, None, None, None], _CHANGES[index](images), images)
    return images


@dataclass(frozen=True)
class FeatureDistance:
    """A distance between rows of features `(N, D)` in two forms that agree with each other."""

    paired: Callable[[Tensor, Tensor], Tensor]
    """Distance between row i of both arguments, `(N,)`."""
    all_pairs: Callable[[Tensor, Tensor], Tensor]
    """Distance between all rows `(N, D)` and `(M, D)`, `(N, M)`, without memory of the order N * M * D."""


def flatten_maps(maps: Tensor) -> Tensor:
    """Return feature maps `(N, C, h, w)` as rows `(N, C*h*w)`, in float32 or, for float64 maps, in float64."""
    return maps.flatten(1).to(torch.promote_types(maps.dtype, torch.float32))


def _mean_squares(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared difference `(N, M)` between all rows of `(N, D)` and `(M, D)`."""
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab, where rounding can lead below zero.
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
"""Mean absolute difference, mean squared difference, and 1 minus the cosine of the angle."""

_EPSILON = 1e-8  # keeps quotients finite; small next to any feature of a trained network

# Rows of an affinity matrix in memory at a time. At 48x48 positions, strips that fit into a CPU's cache take a third of
# the time of the whole matrix.
_CHUNK = 128


def affinity_distance(student: Tensor, teacher: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return the mean absolute difference between the spatial affinities of two feature maps, a scalar.

    A map F `(N, C, h, w)` is normalized to length 1 over the channels at each position; the affinity is F^T F
    `(N, h*w, h*w)`. Affinities are computed in strips and are never whole in memory, forward or backward. The result is
    in float32, or in float64 for float64 maps, under autocast too.

    Args:
        student: Feature map `(N, C, h, w)`, which gets the gradient.
        teacher: Feature map `(N, C', h, w)`, which gets no gradient.
        positions: Indices into h*w of the rows and columns to compare; None for all.
    """
    with torch.autocast(student.device.type, enabled=False):
        units = _unit_columns(student, positions), _unit_columns(teacher.detach(), positions)
        distance: Tensor = _AffinityDistance.apply(*units, _CHUNK)  # type: ignore[no-untyped-call]
        return distance


def _unit_columns(features: Tensor, positions: Tensor | None) -> Tensor:
    """Return a map `(N, C, h, w)` as columns of length 1, `(N, C, positions)`."""
    columns = features.to(torch.promote_types(features.dtype, torch.float32)).flatten(2)
    if positions is not None:
        columns = columns[:, :, positions]
    lengths: Tensor = torch.linalg.vector_norm(columns, dim=1, keepdim=True)
    return columns / (lengths + _EPSILON)


class _AffinityDistance(torch.autograd.Function):
    """Mean of |D| over `(N, P, P)` with D = S^T S - T^T T, and the gradient by S, in one pass over strips of D.

    D is symmetric. So the gradient by S is `2 S sign(D) / (N P^2)`, which is summed up strip by strip in the forward
    pass; and each strip is computed from its diagonal block to the right, where everything right of the block counts
    twice.
    """

    @staticmethod
    def forward(ctx: Any, s: Tensor, t: Tensor, chunk: int) -> Tensor:  # noqa: ANN401 - autograd's
        images, _, size = s.shape
        total, gradient = s.new_zeros(()), torch.zeros_like(s)
        for start in range(0, size, chunk):
            rows, rest = slice(start, start + chunk), slice(start, None)
            strip = (s[:, :, rows].mT @ s[:, :, rest]).sub_(t[:, :, rows].mT @ t[:, :, rest])  # (N, chunk, P - start)
            # Everything is doubled below, and the diagonal block must count once.
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
