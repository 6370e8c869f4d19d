"""RCAN (arXiv 1807.02758): groups of residual blocks whose channels are weighted by what the whole picture holds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.models.residual import TAIL_HALO, ResidualNetwork, conv3x3, tail_floats

_USEFUL_HALO = 32


@dataclass(frozen=True)
class RcanConfig:
    """Shape of an RCAN; that of the paper unless said otherwise.

    `blocks` counts the blocks of each of `groups` groups, `attention` is the width inside the channel attention, in the
    paper a 16th of `channels`. `scale` is 3 or a power of 2.
    """

    channels: int = 64
    blocks: int = 20
    scale: int = 4
    groups: int = 10
    attention: int = 4

    @property
    def descriptor(self) -> Descriptor:
        """The attention sees the whole picture, so no halo makes tiles exact; 32 pixels hide their edges."""
        convolutions = self.groups * (2 * self.blocks + 1) + 2
        return Descriptor(
            arch="rcan",
            scale=self.scale,
            channels=self.channels,
            blocks=self.blocks,
            halo=min(convolutions + TAIL_HALO, _USEFUL_HALO),
            floats_per_pixel=tail_floats(self.channels, self.scale),
            exact_tiles=False,
        )


class ChannelAttention(nn.Module):
    """Each channel times a weight in (0, 1) that follows from the means of all channels."""

    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        width, inside = config.channels, config.attention
        self.conv_du = nn.Sequential(nn.Conv2d(width, inside, 1), nn.ReLU(), nn.Conv2d(inside, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, H, W)` to the same shape."""
        weights: Tensor = self.conv_du(x.mean((2, 3), keepdim=True))
        return x * weights


class AttentionBlock(nn.Module):
    """Convolution, ReLU, convolution and channel attention, beside a skip: `(N, C, H, W)` to the same shape."""

    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        width = config.channels
        self.body = nn.Sequential(conv3x3(width, width), nn.ReLU(), conv3x3(width, width), ChannelAttention(config))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        branch: Tensor = self.body(x)
        return x + branch


class Group(nn.Module):
    """Blocks and a convolution, beside a skip: `(N, C, H, W)` to the same shape."""

    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        blocks = (AttentionBlock(config) for _ in range(config.blocks))
        self.body = nn.Sequential(*blocks, conv3x3(config.channels, config.channels))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        branch: Tensor = self.body(x)
        return x + branch


class RCAN(ResidualNetwork):
    """The network; for shapes and ranges see `Network`."""

    config: RcanConfig

    def __init__(self, config: RcanConfig) -> None:
        super().__init__(config, [Group(config) for _ in range(config.groups)])
