"""Attention transfer (Zagoruyko and Komodakis, arXiv 1612.03928) as a method of `dsclora distill`.

pip install ./examples/method_plugin
dsclora distill --method attention --teacher teacher.safetensors --student edsr --data photos/ --out student/
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.distillation.distill import DistillContext
from dsclora_cli.distillation.losses import DistillBatch
from dsclora_cli.training.trainer import TrainingSetup


def build(context: DistillContext) -> TrainingSetup:
    """Set up a student that looks where the teacher looks. The entry point in pyproject.toml names this function."""

    def loss(batch: DistillBatch) -> dict[str, Tensor]:
        distances = [(attention(own) - attention(wanted)).square().sum(1) for own, wanted in batch.map_pairs()]
        return {"attention": context.feature_weight * torch.stack(distances).mean()}

    # Attention maps have one channel, so student and teacher may differ in width: "plain" needs no projection.
    return context.student_setup(loss, maps="plain")


def attention(feature_map: Tensor) -> Tensor:
    """Return the mean square over the channels of maps `(N, C, h, w)`, scaled to length 1: `(N, h*w)`."""
    return F.normalize(feature_map.float().square().mean(1).flatten(1))
