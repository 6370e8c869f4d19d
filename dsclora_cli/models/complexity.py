"""The size of a network as the NTIRE efficiency challenges count it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SIDE = 256
"""Height and width of the input for which challenges state multiply-adds and activations."""


@dataclass(frozen=True)
class Complexity:
    """`multiply_adds` of all convolutions, biases left out; `activations` are the values that convolutions answer."""

    parameters: int
    multiply_adds: int
    activations: int
    convolutions: int


def complexity(network: nn.Module, side: int = SIDE) -> Complexity:
    """Count for an input `(1, 3, side, side)`. Computes no pixel, and leaves the network as it was.

    Convolutions are the `nn.Conv2d` modules that run: fold a network into its merged form first.
    """
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
