"""The interface of every network: sizes, feature maps and the forward pass.

`span.py`, `compact.py`, `edsr.py` and `rcan.py` hold the architectures of this project, and `spandrel_network.py` holds
networks of the library spandrel.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn

from dsclora_cli.inference.engine import Descriptor

FeatureCallback = Callable[[str, Tensor], Tensor]
"""Callback `(name, feature_map) -> feature_map`; may store the map, must return it."""


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which layers compute in the dtype of their weights, also under autocast.

    For the first and the last layers of a network. Their maps hold whole gray values, and a bfloat16 of 100 is exact to
    0.25 only; with all layers of a trained SPAN in bfloat16, the gradient points to another direction.

    Args:
        x: A tensor on the device of the layers.
    """
    kind = x.device.type
    is_on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if is_on else nullcontext()


class NetworkConfig(Protocol):
    """Sizes of a network, from which the network can be built."""

    @property
    def channels(self) -> int:
        """Return the number of channels between the layers of the body."""

    @property
    def blocks(self) -> int:
        """Return the number of blocks in the body (RCAN: in every group of the body)."""

    @property
    def scale(self) -> int:
        """Return the factor between the sides of the output and the sides of the input."""

    @property
    def descriptor(self) -> Descriptor:
        """Return the facts that engines and tiling need, in a form without torch."""


class Network(nn.Module):
    """A super-resolution network.

    Input: `(N, 3, H, W)`, floating-point RGB in [0, 1]. Output: `(N, 3, scale*H, scale*W)`, same dtype, not clamped.
    """

    config: NetworkConfig

    @property
    @abstractmethod
    def feature_names(self) -> tuple[str, ...]:
        """Return the names of all feature maps, in the order in which `forward` computes the maps."""

    @property
    @abstractmethod
    def thirds(self) -> tuple[str, str, str]:
        """Return the names of the feature maps after one third, two thirds and all of the body."""

    @abstractmethod
    def forward(self, x: Tensor, features: FeatureCallback | None = None) -> Tensor:
        """Upscale a batch.

        Args:
            x: `(N, 3, H, W)`, RGB in [0, 1].
            features: Called once for every name in `feature_names`, with a map `(N, C, H, W)`.

        Returns:
            `(N, 3, scale*H, scale*W)`, RGB, nominally in [0, 1], not clamped.
        """

    @property
    def upsampling_prefixes(self) -> tuple[str, ...]:
        """Return the first parts of the names of all parameters that depend on the scale."""
        return "upsampler.", "tail."

    def merged(self) -> Network:
        """Return the network in the form for upscaling: equal outputs, less work. Most networks have one form only."""
        return self

    def padded(self, multiple: int) -> Network:  # noqa: ARG002 - for networks with any number of channels
        """Return a network with equal outputs, and with a multiple of `multiple` channels where the class has a way."""
        return self


def interpolate(network: Network, other: Network, share: float) -> Network:
    """Return a copy of the network with all weights moved towards the weights of another network.

    Between a network and a network that was trained on from the first, all weights along the straight line work (linear
    mode connectivity, arXiv 1912.05671). Between networks of different origins the line leads through useless weights.

    Args:
        network: The network at a share of 0; not changed.
        other: The network at a share of 1, of the same sizes and form.
        share: Share of the way: 0 gives exactly the weights of `network`, 1 exactly the weights of `other`.
    """
    result, target, mixed = copy.deepcopy(network), other.state_dict(), {}
    for name, value in network.state_dict().items():
        # Whole numbers, such as positions of a window, are no weights.
        mixed[name] = torch.lerp(value, target[name], share) if value.is_floating_point() else value
    result.load_state_dict(mixed)
    return result


def report_nothing(_: str, feature_map: Tensor) -> Tensor:
    """Return a feature map `(N, C, H, W)` unchanged: the callback for callers that want the output only."""
    return feature_map


def thirds_of(names: Sequence[str]) -> tuple[str, str]:
    """Return the names of the blocks where the first third and the second third of a body end."""
    return names[max(0, round(len(names) / 3) - 1)], names[max(0, round(2 * len(names) / 3) - 1)]
