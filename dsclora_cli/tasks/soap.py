"""SOAP (arXiv 2409.11321): Adam in the slowly turning eigenbasis of Shampoo's preconditioner.

A network of 131 thousand parameters makes its matrices tiny, so the basis costs a few per cent of a step on a CPU;
docs/training.md has what it brings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_LARGEST = 1024
_NOTHING = 1e-10  # a gradient that is rounding: without this a layer that is dead would wander
_LONGEST = 2.0  # change of a direction in a step, for a unit rate: a steady gradient gives 1


class Soap(Optimizer):
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
