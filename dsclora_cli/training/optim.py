"""How weights follow gradients: the optimiser, its learning rate over time, and the moving average that is kept.

SOAP (arXiv 2409.11321): Adam in the slowly turning eigenbasis of Shampoo's preconditioner.

A network of 131 thousand parameters makes its matrices tiny, so the basis costs a few per cent of a step on a CPU;
docs/training.md has what it brings.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from dsclora_cli.recipe import OptimiserOptions

_EMA_WARMUP = 4  # steps: the average follows closely at first, so that early scores mean something


def make_optimizer(options: OptimiserOptions, trained: nn.Module, scales: Mapping[str, float]) -> Optimizer:
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
        return SOAP(groups, rate, betas=betas)
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


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Let every parameter move at its scale times `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


class EMA:
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


_LARGEST = 1024
_NOTHING = 1e-10  # a gradient that is rounding: without this a layer that is dead would wander
_LONGEST = 2.0  # change of a direction in a step, for a unit rate: a steady gradient gives 1


class SOAP(Optimizer):
    """Steps for tensors seen as matrices, a convolution as `(out, in * k * k)`.

    Vectors, and sides above 1,024, have no basis of their own, which for a vector leaves Adam. The first step only
    finds the bases.

    `lr` is the change of an entry in the eigenbasis per step; `every` counts the steps between turns of the basis;
    `eps` is the least size of a direction's gradient, as a share of their mean, so that none is divided by noise.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.97),
        every: int = 5,
        eps: float = 1e-4,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "every": every, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient. A closure is refused: nothing here evaluates a loss."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
                if not self.state[parameter]:
                    self.state[parameter].update(_start(gradient))
                else:
                    change = _advance(self.state[parameter], gradient, group)
                    parameter.add_(change.view_as(parameter), alpha=-group["lr"])


def _start(gradient: Tensor) -> dict[str, Any]:
    state: dict[str, Any] = {"steps": 1, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    for side, size, product in (("left", 0, gradient @ gradient.T), ("right", 1, gradient.T @ gradient)):
        if 1 < gradient.shape[size] <= _LARGEST and gradient.shape[1] > 1:
            state[side] = product
            state[f"{side}_basis"] = torch.linalg.eigh(product.double())[1].to(gradient.dtype)
    return state


def _advance(state: dict[str, Any], gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """The step for a unit learning rate, like `gradient`; `state` moves on."""
    first, second = group["betas"]
    mean, square = state["mean"], state["square"]
    mean.lerp_(gradient, 1 - first)
    turned = _turn(state, gradient)
    square.lerp_(turned * turned, 1 - second)
    steps = state["steps"]
    size = (square / (1 - second**steps)).sqrt_()
    size += group["eps"] * size.mean() + _NOTHING
    # Second moments stay behind when the basis turns, so a direction may have a mean and next to no second moment.
    change = (_turn(state, mean) / (1 - first**steps) / size).clamp_(-_LONGEST, _LONGEST)
    unturned = _turn_back(state, change)
    for side, product in (("left", gradient @ gradient.T), ("right", gradient.T @ gradient)):
        if side in state:
            state[side].lerp_(product, 1 - second)
            if steps < 5 or steps % group["every"] == 0:
                _renew_basis(state, side)
    state["steps"] = steps + 1
    return unturned


def _turn(state: dict[str, Any], matrix: Tensor) -> Tensor:
    if "left" in state:
        matrix = state["left_basis"].T @ matrix
    return matrix @ state["right_basis"] if "right" in state else matrix


def _turn_back(state: dict[str, Any], matrix: Tensor) -> Tensor:
    if "left" in state:
        matrix = state["left_basis"] @ matrix
    return matrix @ state["right_basis"].T if "right" in state else matrix


def _renew_basis(state: dict[str, Any], side: str) -> None:
    """One power iteration, by falling eigenvalue; the second moments follow their directions."""
    basis = state[f"{side}_basis"]
    image = state[side] @ basis
    order = (basis * image).sum(0).argsort(descending=True)
    state["square"] = state["square"][order] if side == "left" else state["square"][:, order]
    # Lengths differ by the square of the gradients' range, and the squares of short ones would be no float32.
    unit = image / image.abs().amax(0).clamp_min(torch.finfo(image.dtype).tiny)
    state[f"{side}_basis"] = torch.linalg.qr(unit[:, order])[0]
