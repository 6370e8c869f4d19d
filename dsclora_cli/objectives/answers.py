"""What a student and its teacher make of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


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
