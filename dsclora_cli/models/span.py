"""SPAN (arXiv 2311.12770), and the DSCLoRA student (arXiv 2504.11271), a SPAN with merged low-rank adapters.

A SPAN has two forms with equal outputs:

- training form: every 3x3 convolution is a `Conv3XC`, three convolutions in a row and a skip;
- merged form: every 3x3 convolution is a plain one. Released files have the merged form; upscaling uses it.

Parameter names equal the names in the released files, so that released files load strictly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsclora_cli.inference.engine import PIXEL_RANGE, RGB_MEAN, Descriptor, span_descriptor
from dsclora_cli.models.network import FeatureCallback, Network, report_nothing, thirds_of, without_autocast

EXPANSION = 2
"""Width of the inner layers of a `Conv3XC`, relative to the outer width ("gain" in the authors' code)."""


@dataclass(frozen=True)
class SpanConfig:
    """Sizes and form of a SPAN. The defaults are the DSCLoRA student."""

    channels: int = 26
    """Channels between the layers."""

    blocks: int = 6
    """Number of attention blocks (SPAB)."""

    scale: int = 4
    """Factor between the sides of the output and the input."""

    norm: bool = True
    """Whether the network subtracts the mean color and multiplies by 255; False in some community files."""

    expanded: bool = False
    """Whether the network has the training form."""

    @property
    def block_names(self) -> tuple[str, ...]:
        """Return the names of the attention blocks, first to last."""
        return tuple(f"block_{i}" for i in range(1, self.blocks + 1))

    @property
    def descriptor(self) -> Descriptor:
        """Return the facts for engines."""
        return span_descriptor(self.channels, self.blocks, self.scale)


class MergedConv(nn.Module):
    """The merged form of a 3x3 convolution: `(N, in, H, W) -> (N, out, H, W)`."""

    eval_conv: nn.Conv2d

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution."""
        y: Tensor = self.eval_conv(x)
        return y


class Conv3XC(nn.Module):
    """The training form of a 3x3 convolution, trained at the cost of a plain one: `(N, in, H, W) -> (N, out, H, W)`.

    `conv` is 1x1 (to twice the width), 3x3, 1x1; the 1x1 skip `sk` is added to the result. The input is padded before
    the first 1x1, so the sum is linear in the padded input and equals one 3x3 convolution exactly. `forward` merges
    the small kernels instead of convolving the picture four times; gradients equal the gradients of the explicit form.
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
        """Return weight `(out, in, 3, 3)` and bias `(out,)` of the equal 3x3 convolution."""
        (w1, b1), (w2, b2), (w3, b3), (skip, skip_bias) = (_parameters(layer) for layer in (*self.conv, self.sk))
        first, last = w1[:, :, 0, 0], w3[:, :, 0, 0]
        weight = torch.einsum("ob,bahw,ai->oihw", last, w2, first)
        # The bias of the first 1x1 passes through all nine taps of the 3x3, hence the sum over h and w.
        bias = last @ (torch.einsum("bahw,a->b", w2, b1) + b2) + b3
        # A 1x1 kernel is a 3x3 kernel with zeros around the center.
        return weight + F.pad(skip, (1, 1, 1, 1)), bias + skip_bias

    def factors(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Return values of the parameters, by name, with which `kernel` returns exactly `weight` and `bias`.

        The first 1x1 copies the input, the 3x3 holds the kernel in one corner, the last 1x1 takes the result out of
        the corner, and the skip is zero.

        Args:
            weight: `(out, in, 3, 3)`.
            bias: `(out,)`.
        """
        values = {name: torch.zeros_like(tensor) for name, tensor in self.state_dict().items()}
        outputs, inputs = weight.shape[:2]
        values["conv.0.weight"][:inputs, :, 0, 0].fill_diagonal_(1)
        values["conv.1.weight"][:outputs, :inputs], values["conv.1.bias"][:outputs] = weight, bias
        values["conv.2.weight"][:, :outputs, 0, 0].fill_diagonal_(1)
        return values

    def forward(self, x: Tensor) -> Tensor:
        """Apply the equal 3x3 convolution."""
        weight, bias = self.kernel()
        return F.conv2d(x, weight, bias, padding=1)


def _parameters(layer: nn.Module) -> tuple[Tensor, Tensor]:
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return weight, bias


class SPAB(nn.Module):
    """Swift parameter-free attention block: three convolutions, and an attention without weights.

    With input x and H = c3(SiLU(c2(SiLU(c1(x))))), the output is `(x + H) * (sigmoid(H) - 0.5)`.
    """

    def __init__(self, channels: int, conv: type[MergedConv] | type[Conv3XC]) -> None:
        super().__init__()
        self.c1_r = conv(channels, channels)
        self.c2_r = conv(channels, channels)
        self.c3_r = conv(channels, channels)

    def forward(self, x: Tensor, name: str, report: FeatureCallback) -> tuple[Tensor, Tensor]:
        """Apply the block.

        Args:
            x: `(N, C, H, W)`.
            name: Name of the block, prefix of the names of inner feature maps.
            report: Callback for feature maps.

        Returns:
            Output of the block, and SiLU(c1(x)); both `(N, C, H, W)`.
        """
        o1 = report(f"{name}.o1", F.silu(self.c1_r(x)))
        o2 = report(f"{name}.o2", F.silu(self.c2_r(o1)))
        o3 = report(f"{name}.o3", self.c3_r(o2))
        return report(name, (o3 + x) * (torch.sigmoid(o3) - 0.5)), o1


class SPAN(Network):
    """Swift parameter-free attention network: `(N, 3, H, W)` in [0, 1] to `(N, 3, scale*H, scale*W)`.

    Feature maps are `(N, channels, H, W)`. `block_i.o1` and `block_i.o2` come after the activation, `block_i.o3`
    before the attention; `block_i` is the output of the block.
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
        # Not persistent: released files hold no mean, and loading is strict.
        self.register_buffer("mean", torch.tensor(RGB_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor, features: FeatureCallback | None = None) -> Tensor:
        """Upscale a batch; shapes and ranges stand in `Network.forward`."""
        report = features or report_nothing
        if self.config.norm:
            x = (x - self.mean) * PIXEL_RANGE
        with without_autocast(x):
            head = report("conv_1", self.conv_1(x))

        # The blocks. conv_cat reads the output of the first block and the SiLU(c1) of the last block.
        first, *others = self.config.block_names
        body, o1 = self.get_submodule(first)(head, first, report)
        first_body = body
        for name in others:
            body, o1 = self.get_submodule(name)(body, name, report)

        with without_autocast(x):
            body = report("conv_2", self.conv_2(body))
            # Trap: o1 is the *activated* map. The authors' code returns c1 before SiLU, but SiLU works in place on c1.
            joined = torch.cat([head, body, first_body, o1], dim=1)  # (N, 4C, H, W)
            joined = report("conv_cat", self.conv_cat(joined))  # (N, C, H, W)
            sr: Tensor = self.upsampler(joined)  # (N, 3, sH, sW)
        return sr

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Return the names of all feature maps, in the order in which `forward` computes the maps."""
        inside = (f"{block}{part}" for block in self.config.block_names for part in (".o1", ".o2", ".o3", ""))
        return "conv_1", *inside, "conv_2", "conv_cat"

    @property
    def thirds(self) -> tuple[str, str, str]:
        """Return the names of the feature maps after one third, two thirds and all of the body."""
        first, second = thirds_of(self.config.block_names)
        return first, second, "conv_2"

    def merged(self) -> SPAN:
        """Return a new network in the merged form; a network in the merged form returns itself."""
        if not self.config.expanded:
            return self
        reference = next(self.parameters())
        merged = SPAN(replace(self.config, expanded=False)).to(device=reference.device, dtype=reference.dtype)
        # conv_cat and the upsampler are the same in both forms; only `Conv3XC` modules change.
        expected = merged.state_dict()
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items() if name in expected}
        for name, module in self.named_modules():
            if isinstance(module, Conv3XC):
                weight, bias = module.kernel()
                state[f"{name}.eval_conv.weight"], state[f"{name}.eval_conv.bias"] = weight.detach(), bias.detach()
        merged.load_state_dict(state, strict=True)
        return merged

    def padded(self, multiple: int) -> SPAN:
        """Return a new network, in the merged form, with zero channels up to a multiple; else the network itself.

        The results are exactly equal, up to the order in which a library adds products: a channel of zeros stays zero
        in convolutions without bias, in SiLU and in the attention, and the next layer reads zeros with weights of zero.
        """
        network = self.merged()
        width = network.config.channels
        wide = -(-width // multiple) * multiple
        if wide == width:
            return network
        reference = next(network.parameters())
        padded = SPAN(replace(network.config, channels=wide)).to(device=reference.device, dtype=reference.dtype)
        state = padded.state_dict()
        for name, tensor in network.state_dict().items():
            # conv_cat reads four maps one after the other, and every map gets zero channels of its own.
            maps = 4 if name == "conv_cat.weight" else 1
            dimension = min(1, tensor.dim() - 1)
            state[name] = torch.zeros_like(state[name])
            parts = zip(tensor.chunk(maps, dimension), state[name].chunk(maps, dimension), strict=True)
            for narrow, padded_part in parts:
                padded_part[tuple(map(slice, narrow.shape))] = narrow.detach()
        padded.load_state_dict(state, strict=True)
        return padded.train(network.training)

    def expand(self) -> SPAN:
        """Return a new network in the training form, of exactly equal kernels; the training form returns itself.

        Programs that know only the training form, spandrel among them, can then read merged weights. `merged` returns
        the same bits again: all products but those with the merged weights are products with 0 or 1.
        """
        if self.config.expanded:
            return self
        reference = next(self.parameters())
        expanded = SPAN(replace(self.config, expanded=True)).to(device=reference.device, dtype=reference.dtype)
        own = self.state_dict()
        state = {name: tensor.detach().clone() for name, tensor in own.items() if ".eval_conv." not in name}
        for name, module in expanded.named_modules():
            if isinstance(module, Conv3XC):
                weight, bias = own[f"{name}.eval_conv.weight"], own[f"{name}.eval_conv.bias"]
                state |= {f"{name}.{key}": tensor for key, tensor in module.factors(weight, bias).items()}
        expanded.load_state_dict(state, strict=True)
        return expanded
