"""What a student is trained towards: the truth, a teacher's output, and what is compared of their feature maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.objectives.answers import Answers

Tapped = Callable[[Tensor], tuple[Tensor, tuple[Tensor, ...]]]
"""`(N, 3, H, W)` to an output `(N, 3, sH, sW)` and feature maps, as `Taps` and `Adapted` answer."""

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
