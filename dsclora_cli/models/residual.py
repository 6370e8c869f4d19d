"""What EDSR (arXiv 1707.02921) and RCAN (arXiv 1807.02758) share: all but the units of the body.

Parameter names are those of the official checkpoints, so that these load strictly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsclora_cli.models.network import PIXEL_RANGE, RGB_MEAN, Keep, Network, NetworkConfig, thirds_of

TAIL_HALO = 2
"""Radius in LR pixels of the tail: 1 for the first convolution, and less than 1 for those at larger sizes together."""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class MeanShift(nn.Module):
    """Takes the mean of DIV2K off a picture in [0, 255], or with `sign` 1 adds it. A 1x1 convolution in the files."""

    weight: Tensor
    bias: Tensor

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(3).view(3, 3, 1, 1))
        self.register_buffer("bias", sign * PIXEL_RANGE * torch.tensor(RGB_MEAN))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, 3, H, W)` to the same shape."""
        return F.conv2d(x, self.weight, self.bias)


def upsampler(channels: int, scale: int) -> nn.Sequential:
    """Convolutions and pixel shuffles: one pair for each factor of 2, or one for 3."""
    factors = [3] if scale == 3 else [2] * round(math.log2(scale))
    pairs = ((conv3x3(channels, factor**2 * channels), nn.PixelShuffle(factor)) for factor in factors)
    return nn.Sequential(*(layer for pair in pairs for layer in pair))


def tail_floats(channels: int, scale: int) -> int:
    """Activation values alive at once per LR pixel where the tail has most: a map before and after the last shuffle."""
    return 2 * channels * scale**2


class ResidualNetwork(Network):
    """A head, a body of `units` with a skip over all of it, and a tail that upscales; see `Network`.

    Its feature maps are `head`, the output of each unit `body.i`, and that of the body's last convolution, which has
    the next number.
    """

    def __init__(self, config: NetworkConfig, units: Sequence[nn.Module]) -> None:
        super().__init__()
        width = config.channels
        self.config = config
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = nn.Sequential(conv3x3(3, width))
        self.body = nn.Sequential(*units, conv3x3(width, width))
        self.tail = nn.Sequential(upsampler(width, config.scale), conv3x3(width, 3))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """See `Network`."""
        return "head", *(f"body.{index}" for index in range(len(self.body)))

    @property
    def thirds(self) -> tuple[str, str, str]:
        """See `Network`."""
        *units, last = self.feature_names[1:]
        first, second = thirds_of(units)
        return first, second, last

    def run(self, x: Tensor, keep: Keep) -> Tensor:
        """See `Network`."""
        head = body = keep("head", self.head(self.sub_mean(x * PIXEL_RANGE)))
        for index, unit in enumerate(self.body):
            body = keep(f"body.{index}", unit(body))
        sr: Tensor = self.add_mean(self.tail(body + head)) / PIXEL_RANGE
        return sr
