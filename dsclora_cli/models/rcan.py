"""RCAN (arXiv 1807.02758): groups of residual blocks with channel attention over the whole picture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.models.residual import TAIL_HALO, ResidualNetwork, conv3x3, tail_floats

_USEFUL_HALO = 32


@dataclass(frozen=True)
class RcanConfig:
    """Sizes of an RCAN. The defaults are the network of the paper."""

    channels: int = 64
    """Channels between the layers."""

    blocks: int = 20
    """Number of residual blocks in every group."""

    scale: int = 4
    """Factor between the sides of the output and the input: 3 or a power of 2."""

    groups: int = 10
    """Number of residual groups."""

    attention: int = 4
    """Channels inside the channel attention; in the paper a 16th of `channels`."""

    @property
    def descriptor(self) -> Descriptor:
        """Return the facts for engines.

        The attention reads the whole picture, so no halo makes tiles equal to the whole; 32 pixels hide the seams.
        """
        convolutions = self.groups * (2 * self.blocks + 1) + 2
        return Descriptor(
            arch="rcan",
            scale=self.scale,
            halo=min(convolutions + TAIL_HALO, _USEFUL_HALO),
            floats_per_pixel=tail_floats(self.channels, self.scale),
            exact_tiles=False,
        )


class ChannelAttention(nn.Module):
    """Channel attention: `x * sigmoid(W_up(ReLU(W_down(mean(x)))))`, the mean over H and W.

    `(N, C, H, W)` to the same shape. Every channel is multiplied by one weight in (0, 1).
    """

    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        width, inside = config.channels, config.attention
        self.conv_du = nn.Sequential(nn.Conv2d(width, inside, 1), nn.ReLU(), nn.Conv2d(inside, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Apply the attention."""
        weights: Tensor = self.conv_du(x.mean((2, 3), keepdim=True))  # (N, C, 1, 1)
        return x * weights


class AttentionBlock(nn.Module):
    """Residual channel attention block: `x + attention(conv(ReLU(conv(x))))`, `(N, C, H, W)` to the same shape."""

    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        width = config.channels
        self.body = nn.Sequential(conv3x3(width, width), nn.ReLU(), conv3x3(width, width), ChannelAttention(config))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        branch: Tensor = self.body(x)
        return x + branch


class Group(nn.Module):
    """Residual group: `x + conv(blocks(x))`, `(N, C, H, W)` to the same shape."""

    def __init__(self, config: RcanConfig) -> None:
        super().__init__()
        blocks = (AttentionBlock(config) for _ in range(config.blocks))
        self.body = nn.Sequential(*blocks, conv3x3(config.channels, config.channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the group."""
        branch: Tensor = self.body(x)
        return x + branch


class RCAN(ResidualNetwork):
    """Residual channel attention network: `(N, 3, H, W)` in [0, 1] to `(N, 3, scale*H, scale*W)`."""

    config: RcanConfig

    def __init__(self, config: RcanConfig) -> None:
        super().__init__(config, [Group(config) for _ in range(config.groups)])
