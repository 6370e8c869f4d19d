"""How weights follow gradients: the optimiser, its learning rate over time, and the moving average that is kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from dsclora_cli.recipe import OptimiserOptions
from dsclora_cli.tasks.soap import Soap

_EMA_WARMUP = 4  # steps: the average follows closely at first, so that early scores mean something


def make_optimiser(options: OptimiserOptions, trained: nn.Module, scales: Mapping[str, float]) -> Optimizer:
    """The optimiser of a completed recipe for the parameters that require gradients, one group for each.

    A parameter's learning rate is the schedule's times its entry in `scales`, or times 1.
    """
    groups = [
        {"params": [parameter], "scale": scales.get(name, 1.0)}
        for name, parameter in trained.named_parameters()
        if parameter.requires_grad
    ]
    rate, betas = options.learning_rate, options.betas
    assert rate is not None
    assert betas is not None
    if options.optimiser == "soap":
        return Soap(groups, rate, betas=betas)
    kind = Adam if options.optimiser == "adam" else AdamW
    return kind(groups, rate, betas=betas, weight_decay=options.weight_decay)


def rate_at(options: OptimiserOptions, step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0: a linear rise, then the schedule."""
    assert options.learning_rate is not None
    warmup = max(1, round(options.warmup * steps))
    if step < warmup:
        return options.learning_rate * (step + 1) / warmup
    if options.schedule == "constant":
        return options.learning_rate
    if options.schedule == "multistep":
        falls = sum(step >= milestone * steps for milestone in options.milestones)
        return float(options.learning_rate * options.gamma**falls)
    progress = (step - warmup) / max(1, steps - warmup)
    share = options.final + (1 - options.final) * (1 + math.cos(math.pi * progress)) / 2
    return options.learning_rate * share


def set_rate(optimiser: Optimizer, rate: float) -> None:
    """Let every parameter move at its scale times `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


class Average:
    """A moving average of a module's parameters, in a copy of it."""

    def __init__(self, trained: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(trained).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, trained: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 0."""
        decay = min(self._decay, 1 - 1 / (1 + step / _EMA_WARMUP))
        for average, value in zip(self.module.parameters(), trained.parameters(), strict=True):
            average.lerp_(value, 1 - decay)


class Precision:
    """Mixed precision, which only CUDA has here.

    `auto` is float16 with a scaled loss: with inputs in +-128, bfloat16 costs this network half a grey level of noise,
    eight times what float16 does.
    """

    def __init__(self, choice: str, device: torch.device) -> None:
        self._device = device
        self._dtype: torch.dtype | None = None
        if choice != "off" and device.type == "cuda":
            self._dtype = torch.bfloat16 if choice == "bfloat16" else torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """A context for the forward pass."""
        return torch.autocast(self._device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None)
