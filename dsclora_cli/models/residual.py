"""The parts that EDSR (arXiv 1707.02921) and RCAN (arXiv 1807.02758) share: all but the blocks of the body.

Parameter names equal the names in the official checkpoints, so that official checkpoints load strictly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsclora_cli.inference.engine import PIXEL_RANGE, RGB_MEAN
from dsclora_cli.models.network import (
    FeatureCallback,
    Network,
    NetworkConfig,
    report_nothing,
    thirds_of,
    without_autocast,
)

TAIL_HALO = 2
"""Receptive-field radius of the tail in LR pixels: 1 for the first convolution, less than 1 for all later ones.

Later convolutions run on larger maps, where a pixel is a half, a quarter, ... of an LR pixel.
"""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the size: `(N, in, H, W) -> (N, out, H, W)`."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class MeanShift(nn.Module):
    """Layer that subtracts (`sign` -1) or adds (`sign` 1) the mean color, for pixels in [0, 255]; keeps `(N, 3, H, W)`.

    The official checkpoints store the shift as a 1x1 convolution.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, sign: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(3).view(3, 3, 1, 1))
        self.register_buffer("bias", sign * PIXEL_RANGE * torch.tensor(RGB_MEAN))

    def forward(self, x: Tensor) -> Tensor:
        """Shift every pixel."""
        return F.conv2d(x, self.weight, self.bias)


def upsampler(channels: int, scale: int) -> nn.Sequential:
    """Return convolutions and pixel shuffles, `(N, C, H, W) -> (N, C, scale*H, scale*W)`.

    One pair of convolution and shuffle for every factor of 2, or a single pair for 3.
    """
    factors = [3] if scale == 3 else [2] * round(math.log2(scale))
    pairs = ((conv3x3(channels, factor**2 * channels), nn.PixelShuffle(factor)) for factor in factors)
    return nn.Sequential(*(layer for pair in pairs for layer in pair))


def tail_floats(channels: int, scale: int) -> int:
    """Return the activations alive at once in the tail at its peak, per LR pixel.

    The peak is the last pixel shuffle: the map before and the map after the shuffle.
    """
    return 2 * channels * scale**2


class ResidualNetwork(Network):
    """A head, a body of `units` with one skip over the whole body, and a tail that upscales.

    Feature maps are `(N, channels, H, W)`: `head`, the output of every unit (`body.0`, `body.1`, ...), and the output
    of the last convolution of the body, with the next number.
    """

    def __init__(self, config: NetworkConfig, units: Sequence[nn.Module]) -> None:
        super().__init__()
        width = config.channels
        self.config = config
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.head = nn.Sequential(conv3x3(3, width))
        self.body = nn.Sequential(*units, conv3x3(width, width))
        self.tail = nn.Sequential(upsampler(width, config.scale), conv3x3(width, 3))

    def forward(self, x: Tensor, features: FeatureCallback | None = None) -> Tensor:
        """Upscale a batch; shapes and ranges stand in `Network.forward`."""
        report = features or report_nothing
        with without_autocast(x):
            head = report("head", self.head(self.sub_mean(x * PIXEL_RANGE)))
        body = head
        for index, unit in enumerate(self.body):
            body = report(f"body.{index}", unit(body))
        to_scale, to_rgb = self.tail
        body = to_scale(body + head).to(head.dtype)
        with without_autocast(x):
            sr: Tensor = self.add_mean(to_rgb(body)) / PIXEL_RANGE
        return sr

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return the names of all feature maps, in the order in which `forward` computes the maps."""
        return "head", *(f"body.{index}" for index in range(len(self.body)))

    @property
    def thirds(self) -> tuple[str, str, str]:
        """Return the names of the feature maps after one third, two thirds and all of the body."""
        *units, last = self.feature_names[1:]
        first, second = thirds_of(units)
        return first, second, last
