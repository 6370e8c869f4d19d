"""EDSR (arXiv 1707.02921): residual blocks without normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.models.residual import TAIL_HALO, ResidualNetwork, conv3x3, tail_floats

_WIDE, _WIDE_RES_SCALE = 256, 0.1


@dataclass(frozen=True)
class EdsrConfig:
    """Shape of an EDSR; the baseline of the paper unless said otherwise.

    `scale` is 3 or a power of 2. `res_scale` multiplies the branch of each block; no tensor tells it.
    """

    channels: int = 64
    blocks: int = 16
    scale: int = 4
    res_scale: float = 1.0

    @property
    def descriptor(self) -> Descriptor:
        """Two 3x3 convolutions a block, and one at either end of the body."""
        return Descriptor(
            arch="edsr",
            scale=self.scale,
            channels=self.channels,
            blocks=self.blocks,
            halo=2 * self.blocks + 2 + TAIL_HALO,
            floats_per_pixel=tail_floats(self.channels, self.scale),
        )


def usual_res_scale(channels: int) -> float:
    """The `res_scale` of the paper's networks: 0.1 for the one that is 256 wide, where training fails without."""
    return _WIDE_RES_SCALE if channels >= _WIDE else 1.0


class ResidualBlock(nn.Module):
    """Convolution, ReLU, convolution, beside a skip: `(N, C, H, W)` to the same shape."""

    def __init__(self, config: EdsrConfig) -> None:
        super().__init__()
        width = config.channels
        self.body = nn.Sequential(conv3x3(width, width), nn.ReLU(), conv3x3(width, width))
        self.res_scale = config.res_scale

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        branch: Tensor = self.body(x)
        return x + branch * self.res_scale


class EDSR(ResidualNetwork):
    """The network; for shapes and ranges see `Network`."""

    config: EdsrConfig

    def __init__(self, config: EdsrConfig) -> None:
        super().__init__(config, [ResidualBlock(config) for _ in range(config.blocks)])
