"""EDSR (arXiv 1707.02921): residual blocks without batch normalization."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.models.residual import TAIL_HALO, ResidualNetwork, conv3x3, tail_floats

_WIDE, _WIDE_RES_SCALE = 256, 0.1


@dataclass(frozen=True)
class EdsrConfig:
    """Sizes of an EDSR. The defaults are the baseline of the paper."""

    channels: int = 64
    """Channels between the layers."""

    blocks: int = 16
    """Number of residual blocks."""

    scale: int = 4
    """Factor between the sides of the output and the input: 3 or a power of 2."""

    res_scale: float = 1.0
    """Factor of the branch of every block. No tensor shows the factor; see `usual_res_scale`."""

    @property
    def descriptor(self) -> Descriptor:
        """Return the facts for engines. Two 3x3 convolutions a block, and one at both ends of the body."""
        return Descriptor(
            arch="edsr",
            scale=self.scale,
            halo=2 * self.blocks + 2 + TAIL_HALO,
            floats_per_pixel=tail_floats(self.channels, self.scale),
        )


def usual_res_scale(channels: int) -> float:
    """Return the `res_scale` of the paper's network with this width.

    0.1 for the network of 256 channels, where training fails without scaling, and 1 for narrower networks.
    """
    return _WIDE_RES_SCALE if channels >= _WIDE else 1.0


class ResidualBlock(nn.Module):
    """Residual block: `x + res_scale * conv(ReLU(conv(x)))`, `(N, C, H, W)` to the same shape."""

    def __init__(self, config: EdsrConfig) -> None:
        super().__init__()
        width = config.channels
        self.body = nn.Sequential(conv3x3(width, width), nn.ReLU(), conv3x3(width, width))
        self.res_scale = config.res_scale

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        branch: Tensor = self.body(x)
        return x + branch * self.res_scale


class EDSR(ResidualNetwork):
    """Enhanced deep super-resolution network: `(N, 3, H, W)` in [0, 1] to `(N, 3, scale*H, scale*W)`."""

    config: EdsrConfig

    def __init__(self, config: EdsrConfig) -> None:
        super().__init__(config, [ResidualBlock(config) for _ in range(config.blocks)])
