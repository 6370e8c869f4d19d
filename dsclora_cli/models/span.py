"""SPAN (arXiv 2311.12770) and the DSCLoRA student (arXiv 2504.11271), which is a SPAN with merged adapters.

One network, two forms with equal outputs:

- *training form*: each 3x3 convolution is three (1x1, 3x3, 1x1) beside a 1x1 skip, `Conv3XC` in the paper's code;
- *merged form*: each is one 3x3 convolution. This is what is released and what upscales pictures.

Parameter names are those of the released files, so that every such file loads strictly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.models.network import PIXEL_RANGE, RGB_MEAN, Keep, Network, thirds_of

EXPANSION = 2


@dataclass(frozen=True)
class SpanConfig:
    """Shape of a SPAN. `norm` is False for the community files that take RGB in [0, 1] as it is."""

    channels: int = 26
    blocks: int = 6
    scale: int = 4
    norm: bool = True
    expanded: bool = False

    @property
    def block_names(self) -> tuple[str, ...]:
        """The attention blocks in order."""
        return tuple(f"block_{i}" for i in range(1, self.blocks + 1))

    @property
    def descriptor(self) -> Descriptor:
        """Three 3x3 convolutions a block, and conv_1, conv_2 and the upsampler: 3 * blocks + 3 pixels of radius."""
        return Descriptor(
            arch="span",
            scale=self.scale,
            channels=self.channels,
            blocks=self.blocks,
            halo=3 * self.blocks + 3,
            floats_per_pixel=15 * self.channels,
        )


class MergedConv(nn.Module):
    """One 3x3 convolution: `(N, in, H, W) -> (N, out, H, W)`."""

    eval_conv: nn.Conv2d

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution."""
        y: Tensor = self.eval_conv(x)
        return y


class Conv3XC(nn.Module):
    """The training form of a 3x3 convolution, trained at the cost of one.

    `conv` (1x1 to twice the width, 3x3, 1x1) beside the 1x1 skip `sk`. The input is padded before the first 1x1, so
    the whole is linear in the padded input and equals one 3x3 convolution exactly: `forward` merges the kernels,
    which are small, instead of convolving the picture four times. Gradients are those of the explicit form.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.sk = nn.Conv2d(inputs, outputs, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, inputs * EXPANSION, 1),
            nn.Conv2d(inputs * EXPANSION, outputs * EXPANSION, 3),
            nn.Conv2d(outputs * EXPANSION, outputs, 1),
        )

    def kernel(self) -> tuple[Tensor, Tensor]:
        """The equal 3x3 convolution: weight `(out, in, 3, 3)` and bias `(out,)`."""
        (w1, b1), (w2, b2), (w3, b3), (skip, skip_bias) = (_parameters(layer) for layer in (*self.conv, self.sk))
        first, last = w1[:, :, 0, 0], w3[:, :, 0, 0]
        weight = torch.einsum("ob,bahw,ai->oihw", last, w2, first)
        bias = last @ (torch.einsum("bahw,a->b", w2, b1) + b2) + b3
        return weight + F.pad(skip, (1, 1, 1, 1)), bias + skip_bias

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in, H, W) -> (N, out, H, W)`."""
        weight, bias = self.kernel()
        return F.conv2d(x, weight, bias, padding=1)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return weight, bias


class SPAB(nn.Module):
    """Swift parameter-free attention block: three convolutions and an attention that has no weights of its own."""

    def __init__(self, channels: int, conv: type[MergedConv] | type[Conv3XC]) -> None:
        super().__init__()
        self.c1_r = conv(channels, channels)
        self.c2_r = conv(channels, channels)
        self.c3_r = conv(channels, channels)

    def forward(self, x: Tensor, keep: Keep) -> tuple[Tensor, Tensor]:
        """`(N, C, H, W)` to the block's output and its first activated feature map, both of that shape."""
        first = keep("o1", F.silu(self.c1_r(x)))
        third = keep("o3", self.c3_r(keep("o2", F.silu(self.c2_r(first)))))
        return (third + x) * (torch.sigmoid(third) - 0.5), first


class SPAN(Network):
    """The network; for shapes and ranges see `Network`.

    `block_i.o1` and `block_i.o2` of its feature maps are activated, `block_i.o3` is not, and `block_i` is the block's
    output. All have the width of the body.
    """

    config: SpanConfig
    mean: Tensor

    def __init__(self, config: SpanConfig) -> None:
        super().__init__()
        conv = Conv3XC if config.expanded else MergedConv
        width = config.channels
        self.config = config
        self.conv_1 = conv(3, width)
        for name in config.block_names:
            self.add_module(name, SPAB(width, conv))
        self.conv_cat = nn.Conv2d(width * 4, width, 1)
        self.conv_2 = conv(width, width)
        to_pixels = nn.Conv2d(width, 3 * config.scale**2, 3, padding=1)
        self.upsampler = nn.Sequential(to_pixels, nn.PixelShuffle(config.scale))
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """See `Network`."""
        inside = (f"{block}{part}" for block in self.config.block_names for part in (".o1", ".o2", ".o3", ""))
        return "conv_1", *inside, "conv_2", "conv_cat"

    @property
    def thirds(self) -> tuple[str, str, str]:
        """See `Network`."""
        first, second = thirds_of(self.config.block_names)
        return first, second, "conv_2"

    def merged(self) -> SPAN:
        """The merged form as a new network, which this one is left beside; itself where it has that form."""
        if not self.config.expanded:
            return self
        reference = next(self.parameters())
        merged = SPAN(replace(self.config, expanded=False)).to(device=reference.device, dtype=reference.dtype)
        expected = merged.state_dict()
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items() if name in expected}
        for name, module in self.named_modules():
            if isinstance(module, Conv3XC):
                weight, bias = module.kernel()
                state[f"{name}.eval_conv.weight"], state[f"{name}.eval_conv.bias"] = weight.detach(), bias.detach()
        merged.load_state_dict(state, strict=True)
        return merged

    def run(self, x: Tensor, keep: Keep) -> Tensor:
        """See `Network`."""

        def through(block: str, x: Tensor) -> tuple[Tensor, Tensor]:
            output, activated = self.get_submodule(block)(x, lambda part, value: keep(f"{block}.{part}", value))
            return keep(block, output), activated

        if self.config.norm:
            x = (x - self.mean) * PIXEL_RANGE
        first, *others = self.config.block_names
        head = keep("conv_1", self.conv_1(x))
        first_block, activated = through(first, head)
        body = first_block
        for block in others:
            body, activated = through(block, body)
        # The last block's *activated* c1 is concatenated: the original's SiLU works in place on the tensor it returns.
        joined = torch.cat([head, keep("conv_2", self.conv_2(body)), first_block, activated], dim=1)  # (N, 4C, H, W)
        sr: Tensor = self.upsampler(keep("conv_cat", self.conv_cat(joined)))  # (N, 3, sH, sW)
        return sr
