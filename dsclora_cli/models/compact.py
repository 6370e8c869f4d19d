"""Compact, the SRVGGNetCompact of Real-ESRGAN: plain 3x3 convolutions, and a sum with the enlarged input.

The network stands in the paper's repository only (arXiv 2107.10833 names the program). Parameter names equal the names
in the released files, so that released files load strictly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.models.network import FeatureCallback, Network, report_nothing, thirds_of

PRELU, RELU, LEAKY_RELU = "prelu", "relu", "leakyrelu"
"""Activations of released files: PReLU with a slope for each channel, ReLU, and leaky ReLU."""

_LEAK = 0.1
"""Slope of the leaky ReLU for negative values."""


@dataclass(frozen=True)
class CompactConfig:
    """Sizes of a Compact network. The defaults are Real-ESRGAN's model for animations."""

    channels: int = 64
    """Channels between the layers."""

    blocks: int = 16
    """Number of convolutions between the first and the last one."""

    scale: int = 4
    """Factor between the sides of the output and the input; 1 for a network that restores pictures."""

    activation: str = PRELU
    """Activation after every convolution but the last: prelu, relu or leakyrelu."""

    @property
    def descriptor(self) -> Descriptor:
        """Return the facts for engines. Every 3x3 convolution adds one pixel of radius; all run on LR pixels."""
        # At the body: input and output of a convolution. At the end: the last map, and the output twice.
        peak = max(2 * self.channels, self.channels + 6 * self.scale**2)
        return Descriptor(arch="compact", scale=self.scale, halo=self.blocks + 2, floats_per_pixel=peak)


class Compact(Network):
    """Compact network: `(N, 3, H, W)` in [0, 1] to `(N, 3, scale*H, scale*W)`; no color is subtracted.

    Feature maps are `(N, channels, H, W)`: `body.1`, `body.3`, ..., each after its activation.
    """

    config: CompactConfig

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        layers: list[nn.Module] = []
        for inputs in (3, *[width] * config.blocks):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), _activation(config)]
        self.body = nn.ModuleList([*layers, nn.Conv2d(width, 3 * config.scale**2, 3, padding=1)])

    def forward(self, x: Tensor, features: FeatureCallback | None = None) -> Tensor:
        """Upscale a batch; shapes and ranges stand in `Network.forward`."""
        report = features or report_nothing
        body = x
        *layers, last = self.body
        for index in range(0, len(layers), 2):
            body = report(f"body.{index + 1}", layers[index + 1](layers[index](body)))
        residual = F.pixel_shuffle(last(body), self.config.scale)
        # The network learns the difference to the input enlarged by repeated pixels.
        return residual + F.interpolate(x, scale_factor=float(self.config.scale), mode="nearest")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return the names of all feature maps, in the order in which `forward` computes the maps."""
        return tuple(f"body.{2 * index + 1}" for index in range(self.config.blocks + 1))

    @property
    def thirds(self) -> tuple[str, str, str]:
        """Return the names of the feature maps after one third, two thirds and all of the body."""
        first, second = thirds_of(self.feature_names)
        return first, second, self.feature_names[-1]

    @property
    def upsampling_prefixes(self) -> tuple[str, ...]:
        """Return the first parts of the names of all parameters that depend on the scale: the last convolution."""
        return (f"body.{2 * self.config.blocks + 2}.",)


def _activation(config: CompactConfig) -> nn.Module:
    if config.activation == PRELU:
        return nn.PReLU(config.channels)
    return nn.ReLU() if config.activation == RELU else nn.LeakyReLU(_LEAK)
