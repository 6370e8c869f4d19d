"""What every network of this program is, whatever its architecture."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from torch import Tensor, nn

from dsclora_cli.inference.engine import Descriptor

RGB_MEAN = (0.4488, 0.4371, 0.4040)
PIXEL_RANGE = 255.0

Keep = Callable[[str, Tensor], Tensor]
"""Hears the name of a feature map and hands the map on; whether it stays alive is its own choice."""


class NetworkConfig(Protocol):
    """The shape of a network: its width, how many blocks it has, and its factor of the sides."""

    @property
    def channels(self) -> int:
        """Width of its body."""

    @property
    def blocks(self) -> int:
        """Blocks of its body."""

    @property
    def scale(self) -> int:
        """Factor of the sides."""

    @property
    def descriptor(self) -> Descriptor:
        """What its callers must know."""


class Network(nn.Module):
    """A super-resolution network: `(N, 3, H, W)` float RGB in [0, 1] to `(N, 3, scale*H, scale*W)`, not clamped."""

    config: NetworkConfig

    @property
    @abstractmethod
    def feature_names(self) -> tuple[str, ...]:
        """The feature maps that `features` can keep, each `(N, C, H, W)`, in the order in which they arise."""

    @property
    @abstractmethod
    def thirds(self) -> tuple[str, str, str]:
        """Of `feature_names` those after one and two thirds of the body and at its end."""

    @abstractmethod
    def run(self, x: Tensor, keep: Keep) -> Tensor:
        """What `forward` answers; each feature map goes through `keep` as it arises."""

    def merged(self) -> Network:
        """The network in the form that upscales pictures, with equal outputs; itself unless it has another form."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Upscale a batch; see the class for shapes and ranges."""
        return self.run(x, lambda _, value: value)

    def features(self, x: Tensor, names: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """What `forward` answers, and those of `feature_names` that are in `names`; all others are let go at once."""
        kept: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor) -> Tensor:
            if name in names:
                kept[name] = value
            return value

        return self.run(x, keep), kept


def thirds_of(names: Sequence[str]) -> tuple[str, str]:
    """Of the blocks of a body, those that end its first and its second third."""
    return names[max(0, round(len(names) / 3) - 1)], names[max(0, round(2 * len(names) / 3) - 1)]
