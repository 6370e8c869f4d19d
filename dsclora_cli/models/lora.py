"""Low-rank adapters of convolutions: ConvLoRA (arXiv 2504.11271), in the form of loralib's Conv2d.

A weight W `(out, in, k, k)` becomes `W + (B @ A).view(out, in, k, k) * alpha / rank`, with A `(rank*k, in*k)` and
B `(out*k, rank*k)`. B starts at zero. Biases are not adapted. The adapted network itself is never changed.
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
    # Ranks that the singular values of (released student - its base) show.
    "paper": "block_1.*:8 {last}.*:4 block_*:12 conv_2.*:full upsampler.0:16",
    # The same, and the convolution after the concatenation, where the paper's figures draw an adapter. The released
    # student has none there.
    "figure": "block_1.*:8 {last}.*:4 block_*:12 conv_2.*:full conv_cat:full upsampler.0:16",
    # Ranks in a commented-out configuration of the authors' code.
    "small": "block_*:2 conv_2.*:8 upsampler.0:8",
}
"""Rules for `parse_ranks`, by name; `{last}` stands for the name of the last block."""

_ELSEWHERE = {"paper": "*:8", "figure": "*:8", "small": "*:2"}
"""Rules of the presets for networks without the names of a SPAN."""


@dataclass(frozen=True)
class Rank:
    """Size and strength of one adapter: the delta of the weight is `B @ A * alpha / rank`."""

    rank: int
    alpha: float


def parse_ranks(network: Network, rules: str) -> dict[str, Rank]:
    """Return the rank and alpha of every convolution that gets an adapter, by the name of the convolution.

    Args:
        network: Network to adapt.
        rules: Name of a preset, or rules separated by spaces: `pattern:rank` or `pattern:rank:alpha`. The first rule
            that matches a convolution decides. The word `full` means the rank `min(in, out)`, and larger ranks are
            reduced to `min(in, out)`, because a delta gains no freedom beyond. Alpha is twice the rank unless given.

    Raises:
        UsageError: A rule cannot be parsed or matches no convolution.
    """
    convolutions = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    chosen: dict[str, Rank] = {}
    presets = PRESETS if any(name.startswith("block_1.") for name in convolutions) else _ELSEWHERE
    for rule in presets.get(rules, rules).replace("{last}", f"block_{network.config.blocks}").split():
        pattern, asked, strength = _parse(rule)
        matched = [name for name in convolutions if fnmatchcase(name, pattern)]
        if not matched:
            raise UsageError(f"no convolution's name matches {pattern!r}", f"there are {', '.join(convolutions)}")
        for name in matched:
            full = min(convolutions[name].in_channels, convolutions[name].out_channels)
            rank = full if asked is None else min(asked, full)
            # `strength` is alpha / rank, so a reduced rank keeps the strength of the adapter.
            chosen.setdefault(name, Rank(rank, rank * strength))
    if not chosen:
        raise UsageError("no convolution gets an adapter", f"name a preset: {', '.join(PRESETS)}")
    return chosen


def _parse(rule: str) -> tuple[str, int | None, float]:
    """Return pattern, rank (None means full) and alpha / rank of one rule."""
    try:
        pattern, size, *alpha = rule.split(":")
        rank = None if size == "full" else int(size)
        strength = float(*alpha) / (rank or 1) if alpha else 2.0
        if (rank is not None and rank < 1) or (alpha and rank is None) or not 0 < strength < math.inf:
            raise ValueError
    except (ValueError, TypeError):  # TypeError: more than one alpha
        raise UsageError(
            f"cannot parse {rule!r} as a rule for adapters",
            f"write {', '.join(PRESETS)}, pattern:rank or pattern:rank:alpha",
        ) from None
    return pattern, rank, strength


class LowRank(nn.Module):
    """The adapter of one convolution, zero at first: parameters A and B, and alpha.

    Alpha is a buffer and not an attribute, so that an adapter file holds all that `forward` needs.
    """

    alpha: Tensor

    def __init__(self, layer: nn.Conv2d, rank: Rank, generator: torch.Generator) -> None:
        super().__init__()
        outputs, inputs, kernel, _ = self.shape = layer.weight.shape
        self.rank = rank.rank
        self.A = nn.Parameter(torch.empty(rank.rank * kernel, inputs * kernel))
        self.B = nn.Parameter(torch.zeros(outputs * kernel, rank.rank * kernel))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5), generator=generator)  # as loralib does
        self.register_buffer("alpha", torch.tensor(float(rank.alpha)))

    def forward(self) -> Tensor:
        """Return the delta of the convolution's weight, `(out, in, k, k)`."""
        return (self.B @ self.A).view(self.shape) * (self.alpha / self.rank)


class Adapters(nn.Module):
    """The adapters of a network, zero at first. Only A and B are parameters.

    An adapter has the dotted name of its convolution: `block_1.c1_r.eval_conv.A` adapts
    `block_1.c1_r.eval_conv.weight`. These names are keys in adapter files and checkpoints.

    Args:
        network: Network that the adapters are for. The module reads shapes and does not keep the network.
        ranks: Rank and alpha by the name of the convolution.
        seed: Seed for A.
    """

    def __init__(self, network: nn.Module, ranks: Mapping[str, Rank], seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, rank in ranks.items():
            layer = network.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            self._add(name, LowRank(layer, rank, generator))

    def _add(self, name: str, adapter: LowRank) -> None:
        """Add an adapter under a dotted name, with empty modules as parents."""
        parent: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(leaf, adapter)

    def scale(self, strength: float) -> Adapters:
        """Multiply all deltas by `strength`, in place; return the adapters."""
        for layer in self.modules():
            if isinstance(layer, LowRank):
                layer.alpha.mul_(strength)
        return self

    def deltas(self) -> dict[str, Tensor]:
        """Return the delta `(out, in, k, k)` of every adapted weight, by the name of the weight."""
        return {f"{name}.weight": layer() for name, layer in self.named_modules() if isinstance(layer, LowRank)}


class AdaptedNetwork(nn.Module):
    """A feature extractor with frozen weights and trainable adapters: gradients reach the adapters only.

    In every pass the weights are the frozen weights plus the deltas of the adapters.
    """

    def __init__(self, taps: FeatureExtractor, adapters: Adapters) -> None:
        super().__init__()
        # A copy, because the caller's network stays trainable.
        self.taps = copy.deepcopy(taps).requires_grad_(False)
        self.adapters = adapters

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Upscale `(N, 3, H, W)`; return the output `(N, 3, scale*H, scale*W)` and maps `(N, C, H, W)`."""
        weights = {
            f"network.{name}": self.taps.network.get_parameter(name) + delta
            for name, delta in self.adapters.deltas().items()
        }
        result: tuple[Tensor, tuple[Tensor, ...]] = functional_call(self.taps, weights, (x,))
        return result


def merge_adapters(network: Network, adapters: Adapters) -> Network:
    """Return a copy of the network with the deltas added to the weights; neither argument changes.

    The sum is computed in float64 and rounded once. Merging is a function and not a switch between train and eval
    mode: a switch adds the deltas twice after a save and a load.
    """
    merged = copy.deepcopy(network)
    with torch.no_grad():
        for name, delta in copy.deepcopy(adapters).cpu().double().deltas().items():
            weight = merged.get_parameter(name)
            weight.copy_(weight.cpu().double() + delta)
    return merged
