"""Contrast in the feature domain, for the patches where the teacher knows better: a re-implementation of FACD.

The paper (arXiv 2211.15951) published no code, and neither its formula, distance and weight nor its condition are
public. What is configurable here is what had to be read into its figure; docs/distillation.md says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsclora_cli.errors import UsageError
from dsclora_cli.objectives.answers import Answers
from dsclora_cli.objectives.features import FEATURE_DISTANCES, rows

_EPSILON = 1e-8


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
        return near / ((far.sum(1) if self.form == "sums" else far.mean(1)) + _EPSILON)
