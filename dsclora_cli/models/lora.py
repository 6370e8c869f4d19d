"""Low-rank adapters of convolutions (ConvLoRA of arXiv 2504.11271, in the form of loralib's Conv2d).

A convolution's weight W `(out, in, k, k)` becomes `W + (B @ A).view(out, in, k, k) * alpha / rank`, with A
`(rank*k, in*k)` and B `(out*k, rank*k)`, which starts at zero. Biases stay, and the network itself is never changed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dsclora_cli.errors import UsageError
from dsclora_cli.models.features import FeatureExtractor
from dsclora_cli.models.network import Network

PRESETS = {
    "paper": "block_1.*:8 {last}.*:4 block_*:12 conv_2.*:full upsampler.0:16",
    "small": "block_*:2 conv_2.*:8 upsampler.0:8",
}
"""`paper` is what the singular values of the released student minus its base show, `small` what its code mentions."""


@dataclass(frozen=True)
class Rank:
    """Size and strength of one adapter: its delta is `B @ A` times `alpha / rank`."""

    rank: int
    alpha: float


def parse_ranks(network: Network, rules: str) -> dict[str, Rank]:
    """The rank and alpha of each convolution that gets an adapter, by the convolution's name.

    `rules` is a preset's name or `pattern:rank` and `pattern:rank:alpha` with spaces between them; of all that match a
    name the first decides. A rank above `min(in, out)`, and the word `full`, mean that number, beyond which a delta
    gains no freedom. Alpha is twice the rank unless given. A pattern's `{last}` is the last block's name.
    Raises UsageError for a rule that is not understood or matches no convolution.
    """
    convolutions = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    chosen: dict[str, Rank] = {}
    for rule in PRESETS.get(rules, rules).replace("{last}", f"block_{network.config.blocks}").split():
        pattern, rank, strength = _parse(rule)
        matched = [name for name in convolutions if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(f"no convolution's name matches {pattern!r}", f"there are {', '.join(convolutions)}")
        for name in matched:
            most = min(convolutions[name].in_channels, convolutions[name].out_channels)
            least = most if rank is None else min(rank, most)
            chosen.setdefault(name, Rank(least, least * strength))
    if not chosen:
        raise UsageError("no convolution gets an adapter", f"name a preset: {', '.join(PRESETS)}")
    return chosen


def _parse(rule: str) -> tuple[str, int | None, float]:
    """Pattern, rank (None is full) and alpha / rank."""
    try:
        pattern, size, *alpha = rule.split(":")
        rank = None if size == "full" else int(size)
        strength = float(*alpha) / (rank or 1) if alpha else 2.0
        if (rank is not None and rank < 1) or (alpha and rank is None) or not 0 < strength < math.inf:
            raise ValueError
    except (ValueError, TypeError):
        raise UsageError(
            f"{rule!r} gives no ranks of adapters", f"write {', '.join(PRESETS)}, pattern:rank or pattern:rank:alpha"
        ) from None
    return pattern, rank, strength


class LowRank(nn.Module):
    """The adapter of one convolution: parameters A and B, and alpha as a buffer, so that a file says all."""

    alpha: Tensor

    def __init__(self, layer: nn.Conv2d, rank: Rank, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs, kernel, _ = self.shape = layer.weight.shape
        self.rank = rank.rank
        self.A = nn.Parameter(torch.empty(rank.rank * kernel, inputs * kernel))
        self.B = nn.Parameter(torch.zeros(outputs * kernel, rank.rank * kernel))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5), generator=generator)
        self.register_buffer("alpha", torch.tensor(float(rank.alpha)))

    def forward(self) -> Tensor:
        """What the adapter adds to the convolution's weight, `(out, in, k, k)`."""
        return (self.B @ self.A).view(self.shape) * (self.alpha / self.rank)


class Adapters(nn.Module):
    """The adapters of a network, zero at first: `block_1.c1_r.eval_conv.A` adapts `block_1.c1_r.eval_conv.weight`.

    Only A and B are parameters. `network` gives the shapes and is not kept; `seed` decides A.
    """

    def __init__(self, network: nn.Module, ranks: Mapping[str, Rank], seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, rank in ranks.items():
            layer = network.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            self._place(name, LowRank(layer, rank, generator))

    def _place(self, name: str, adapter: LowRank) -> None:
        """Under the same dotted name as the convolution has in its network."""
        parent: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(leaf, adapter)

    def scale(self, strength: float) -> Adapters:
        """These adapters, which from now on add `strength` times what they added."""
        for layer in self.modules():
            if isinstance(layer, LowRank):
                layer.alpha.mul_(strength)
        return self

    def deltas(self) -> dict[str, Tensor]:
        """What is added to each adapted weight, by the weight's name."""
        return {f"{name}.weight": layer() for name, layer in self.named_modules() if isinstance(layer, LowRank)}


class AdaptedNetwork(nn.Module):
    """A network with taps whose weights are those of a frozen copy of it plus the adapters' deltas, in every pass.

    Answers as the `FeatureExtractor` it is made from; gradients reach the adapters and nothing else.
    """

    def __init__(self, taps: FeatureExtractor, adapters: Adapters) -> None:
        super().__init__()
        self.taps = copy.deepcopy(taps).requires_grad_(False)
        self.adapters = adapters

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`(N, 3, H, W)` to the output and the taps."""
        weights = {
            f"network.{name}": self.taps.network.get_parameter(name) + delta
            for name, delta in self.adapters.deltas().items()
        }
        answer: tuple[Tensor, tuple[Tensor, ...]] = functional_call(self.taps, weights, (x,))
        return answer


def merge_adapters(network: Network, adapters: Adapters) -> Network:
    """A copy of the network with the deltas added to its weights, rounded once; neither argument changes."""
    merged = copy.deepcopy(network)
    with torch.no_grad():
        for name, delta in copy.deepcopy(adapters).cpu().double().deltas().items():
            weight = merged.get_parameter(name)
            weight.copy_(weight.cpu().double() + delta)
    return merged
