"""Count parameters, multiply-adds and activations of a network as the NTIRE efficiency challenges do."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SIDE = 256
"""Height and width of the input for which challenges state multiply-adds and activations."""


@dataclass(frozen=True)
class Complexity:
    """Size of a network, for an input of given height and width."""

    parameters: int

    multiply_adds: int
    """Multiply-adds of all convolutions, without biases."""

    activations: int
    """Values that all convolutions put out."""

    convolutions: int


def complexity(network: nn.Module, side: int = SIDE) -> Complexity:
    """Count for an input `(1, 3, side, side)`. The network is not changed.

    Only `nn.Conv2d` modules that run are counted: merge a network before counting.
    """
    # On the meta device shapes are computed and pixels are not.
    ghost = copy.deepcopy(network).to("meta")
    sizes: list[tuple[int, int]] = []

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        per_value = module.weight[0].numel()
        sizes.append((output.numel(), per_value))

    for module in ghost.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        ghost(torch.empty(1, 3, side, side, device="meta"))
    return Complexity(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        multiply_adds=sum(values * per_value for values, per_value in sizes),
        activations=sum(values for values, _ in sizes),
        convolutions=len(sizes),
    )
