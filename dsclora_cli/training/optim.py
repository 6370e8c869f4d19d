"""Optimizers, the learning rate over time, the moving average of the weights, and mixed precision.

SOAP (arXiv 2409.11321) is Adam in the slowly turning eigenbasis of Shampoo's preconditioner. The matrices of a network
of 131 thousand parameters are tiny, so the basis costs a few per cent of a step on a CPU; docs/training.md has
measurements.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from dsclora_cli.recipe import OptimizerOptions

_EMA_WARMUP = 4  # steps: the average follows closely at first, so that early scores mean something


def make_optimizer(options: OptimizerOptions, module: nn.Module, lr_scales: Mapping[str, float]) -> Optimizer:
    """Return the optimizer of a recipe, with one group for each parameter of `module` that requires gradients.

    Args:
        options: Options of the recipe, defaults resolved.
        module: Holds the parameters to optimize.
        lr_scales: Factors on the learning rate by parameter name; 1 for a parameter that is absent. The training loop
            multiplies the rate of the schedule by the `scale` of each group.
    """
    groups = [
        {"params": [parameter], "scale": lr_scales.get(name, 1.0)}
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    ]
    rate, betas = options.learning_rate, options.betas
    assert rate is not None
    assert betas is not None
    if options.optimiser == "soap":
        return SOAP(groups, rate, betas)
    optimizer = Adam if options.optimiser == "adam" else AdamW
    return optimizer(groups, rate, betas=betas, weight_decay=options.weight_decay)


def rate_at(options: OptimizerOptions, step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0, out of `steps`: a linear warmup, then the schedule."""
    assert options.learning_rate is not None
    warmup = max(1, round(options.warmup * steps))
    if step < warmup:
        # Counted from 1, so that the first step has a rate above zero.
        return options.learning_rate * (step + 1) / warmup
    if options.schedule == "constant":
        return options.learning_rate
    if options.schedule == "multistep":
        falls = sum(step >= milestone * steps for milestone in options.milestones)
        return float(options.learning_rate * options.gamma**falls)
    progress = (step - warmup) / max(1, steps - warmup)
    share = options.final + (1 - options.final) * (1 + math.cos(math.pi * progress)) / 2
    return options.learning_rate * share


class EMA:
    """An exponential moving average of a module's parameters, in a copy of the module."""

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(source).requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, source: nn.Module, step: int) -> None:
        """Move the average towards the weights of `source` after a step, counted from 0."""
        # The decay grows with the step: at step 0 the average is a copy of the weights.
        decay = min(self._decay, 1 - 1 / (1 + step / _EMA_WARMUP))
        for average, value in zip(self.module.parameters(), source.parameters(), strict=True):
            average.lerp_(value, 1 - decay)


class Precision:
    """Mixed precision: float16 or bfloat16 on CUDA, bfloat16 on CPUs with instructions for bfloat16.

    `auto` is float16 with a scaled loss on CUDA, and float32 elsewhere. The first and the last layers of SPAN, EDSR and
    RCAN stay in float32 (`without_autocast`). In trained networks the gradient in bfloat16 and the gradient in float32
    have a cosine of 0.98 or more over 16 patches of 48x48; 0.96 was seen over 4 patches of 24x24.

    Attributes:
        note: A sentence if the device cannot do what `choice` asks for, else empty.
    """

    def __init__(self, choice: str, device: torch.device) -> None:
        self._device = device
        self._dtype: torch.dtype | None = None
        self.note = ""
        if device.type == "cuda" and choice != "off":
            self._dtype = torch.bfloat16 if choice == "bfloat16" else torch.float16
        elif device.type == "cpu" and choice == "bfloat16" and _cpu_has_bfloat16():
            self._dtype = torch.bfloat16
        elif choice in {"bfloat16", "float16"}:
            or_cpu = ", or a CPU with instructions for bfloat16" if choice == "bfloat16" else ""
            self.note = f"training in float32, because --amp {choice} needs CUDA{or_cpu}"
        # bfloat16 has the exponent range of float32, so only float16 needs a scaled loss.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._dtype is torch.float16)

    def autocast(self) -> torch.autocast:
        """Return a context for the forward pass."""
        return torch.autocast(self._device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None)


def _cpu_has_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 in hardware; without it, bfloat16 is slower than float32."""
    # Older releases of PyTorch cannot tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


_MAX_SIDE = 1024
_MIN_GRADIENT = 1e-10  # so small a gradient is rounding error: without this term, a dead layer would wander
_MAX_CHANGE = 2.0  # limit of the change of a direction in a step, for a rate of 1: a steady gradient gives 1
_RELATIVE_EPS = 1e-4  # least size of a direction's gradient, as a share of the mean size: never divide by noise
_BASIS_INTERVAL = 5  # steps between two turns of the basis


class SOAP(Optimizer):
    """SOAP for tensors seen as matrices, where a convolution is a matrix `(out, in * k * k)`.

    A vector, or a side longer than 1,024, gets no basis; without any basis, SOAP is Adam. The first step only finds
    the bases and changes no parameter.

    Args:
        params: Parameters, or groups of parameters.
        lr: Change of an entry in the eigenbasis per step.
        betas: Decays of the averages of the gradient and of the squared gradient.
    """

    def __init__(self, params: Iterable[Any], lr: float, betas: tuple[float, float]) -> None:
        # `every` and `eps` are in the groups because the groups are part of a checkpoint.
        super().__init__(params, {"lr": lr, "betas": betas, "every": _BASIS_INTERVAL, "eps": _RELATIVE_EPS})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient. A closure is refused: SOAP evaluates no loss."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
                if not self.state[parameter]:
                    self.state[parameter].update(_first_state(gradient))
                else:
                    change = _advance(self.state[parameter], gradient, group)
                    parameter.add_(change.view_as(parameter), alpha=-group["lr"])


def _first_state(gradient: Tensor) -> dict[str, Any]:
    """Return the state after the first gradient `(rows, columns)`: Shampoo's matrices and their eigenbases."""
    state: dict[str, Any] = {"steps": 1, "mean": torch.zeros_like(gradient), "square": torch.zeros_like(gradient)}
    for side, size, product in (("left", 0, gradient @ gradient.T), ("right", 1, gradient.T @ gradient)):
        if 1 < gradient.shape[size] <= _MAX_SIDE and gradient.shape[1] > 1:
            state[side] = product
            state[f"{side}_basis"] = torch.linalg.eigh(product.double())[1].to(gradient.dtype)
    return state


def _advance(state: dict[str, Any], gradient: Tensor, group: dict[str, Any]) -> Tensor:
    """Update `state` with a gradient, and return the change for a learning rate of 1, both `(rows, columns)`."""
    first, second = group["betas"]
    mean, square = state["mean"], state["square"]
    mean.lerp_(gradient, 1 - first)
    rotated = _to_basis(state, gradient)
    square.lerp_(rotated * rotated, 1 - second)
    steps = state["steps"]
    size = (square / (1 - second**steps)).sqrt_()
    size += group["eps"] * size.mean() + _MIN_GRADIENT
    # Second moments stay behind when the basis turns, so a direction may have a mean and next to no second moment.
    change: Tensor = (_to_basis(state, mean) / (1 - first**steps) / size).clamp_(-_MAX_CHANGE, _MAX_CHANGE)
    # The change is for this step's basis, so rotate back before the basis turns.
    if "left" in state:
        change = state["left_basis"] @ change
    if "right" in state:
        change = change @ state["right_basis"].T
    for side, product in (("left", gradient @ gradient.T), ("right", gradient.T @ gradient)):
        if side in state:
            state[side].lerp_(product, 1 - second)
            # In the first steps the matrices change much, so the basis turns in every step.
            if steps < 5 or steps % group["every"] == 0:
                _turn_basis(state, side)
    state["steps"] = steps + 1
    return change


def _to_basis(state: dict[str, Any], matrix: Tensor) -> Tensor:
    """Return a matrix `(rows, columns)` in the eigenbasis."""
    if "left" in state:
        matrix = state["left_basis"].T @ matrix
    return matrix @ state["right_basis"] if "right" in state else matrix


def _turn_basis(state: dict[str, Any], side: str) -> None:
    """Turn a basis by one power iteration, sorted by falling eigenvalue; second moments follow their directions."""
    basis = state[f"{side}_basis"]
    image = state[side] @ basis
    order = (basis * image).sum(0).argsort(descending=True)
    state["square"] = state["square"][order] if side == "left" else state["square"][:, order]
    # Lengths differ by the square of the range of the gradients, so the squares of short columns would underflow.
    unit = image / image.abs().amax(0).clamp_min(torch.finfo(image.dtype).tiny)
    state[f"{side}_basis"] = torch.linalg.qr(unit[:, order])[0]
