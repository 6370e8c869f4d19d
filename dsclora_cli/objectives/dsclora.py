"""What DSCLoRA trains towards (arXiv 2504.11271): the truth, a teacher's output, and a teacher's feature affinities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.objectives.affinity import affinity_distance

Tapped = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]
"""`(N, 3, H, W)` to an output `(N, 3, sH, sW)` and feature maps, as `Taps` and `Adapted` answer."""


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
    """Terms `rec`, `ts` and `ad`: distance to HR, L1 to the teacher's output, mean over taps of the affinity distance.

    Each is multiplied by its weight; one of weight 0 is neither computed nor answered. The teacher answers as many taps
    as the student and gets no gradient. `positions` of each map are compared, 0 for all.
    """

    student: Tapped
    teacher: Tapped
    truth: Callable[[Tensor, Tensor], Tensor]
    rec: float
    ts: float
    ad: float
    positions: int = 0

    def __call__(self, batch: Patches) -> dict[str, Tensor]:
        """The weighted terms of a batch; their sum is the loss."""
        output, taps = self.student(batch.lr)
        terms = {}
        if self.rec:
            terms["rec"] = self.rec * self.truth(output, batch.hr)
        if self.ad or (self.ts and batch.teacher is None):
            with torch.no_grad():
                answer, teacher_taps = self.teacher(batch.lr)
            if self.ad:
                terms["ad"] = self.ad * self._affinity(batch.lr, taps, teacher_taps)
        if self.ts:
            terms["ts"] = self.ts * F.l1_loss(output, answer if batch.teacher is None else batch.teacher)
        return terms

    def _affinity(self, lr: Tensor, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        size = lr.shape[2] * lr.shape[3]
        chosen = _drawn(lr, size, self.positions) if 0 < self.positions < size else None
        pairs = zip(student, teacher, strict=True)
        return torch.stack([affinity_distance(*pair, chosen) for pair in pairs]).mean()


def _drawn(lr: Tensor, size: int, count: int) -> Tensor:
    """Different positions for each batch, decided by its pixels: a run that goes on draws as it would have drawn."""
    generator = torch.Generator().manual_seed(round(float(lr.cpu().double().sum() * 255)))
    return torch.randperm(size, generator=generator)[:count].to(lr.device)
