"""The network that a training run starts from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dsclora_cli.errors import UsageError
from dsclora_cli.model.edsr import Edsr, EdsrConfig, usual_res_scale
from dsclora_cli.model.initial import fit_upsampler, settle
from dsclora_cli.model.network import Network
from dsclora_cli.model.rcan import Rcan, RcanConfig
from dsclora_cli.model.span import Span, SpanConfig
from dsclora_cli.recipe import NetworkOptions, Recipe
from dsclora_cli.tasks.trainset import Batch, TrainSet
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.resolve import named_weights

_FIRST = 4  # batches that the upsampler is fitted to
_UPSAMPLERS = ("upsampler.", "tail.")


def initial_network(recipe: Recipe, data: TrainSet, offline: bool = False) -> Network:
    """Random weights, of a SPAN at their working scale, or those of `init`; a SPAN's upsampler is fitted to the data.

    Raises UsageError where `init` has another shape, and WeightsError.
    """
    network = new_network(recipe.network)
    if recipe.network.init is not None:
        complete = _take_over(network, named_weights(recipe.network.init, offline).path)
        if not complete and isinstance(network, Span):
            fit_upsampler(network, _first_pairs(data))
    elif recipe.network.expanded:
        assert isinstance(network, Span)
        _quieten(network)
    elif isinstance(network, Span):
        settle(network, next(first_batches(data, 1)).lr)
        fit_upsampler(network, _first_pairs(data))
    return network


def new_network(options: NetworkOptions) -> Network:
    """PyTorch's usual random weights in the shape that a completed recipe asks for."""
    channels, blocks, scale = options.channels, options.blocks, options.scale
    assert channels is not None
    assert blocks is not None
    if options.arch == "edsr":
        return Edsr(EdsrConfig(channels, blocks, scale, usual_res_scale(channels)))
    if options.arch == "rcan":
        assert options.groups is not None
        return Rcan(RcanConfig(channels, blocks, scale, options.groups, max(1, channels // 16)))
    return Span(SpanConfig(channels, blocks, scale, expanded=options.expanded))


def first_batches(data: TrainSet, count: int) -> Iterator[Batch]:
    """The batches that the first steps see."""
    return (data.batch(step, slice(None)) for step in range(count))


def _take_over(network: Network, path: Path) -> bool:
    """Load all weights of a file that fit; whether the upsampler's did."""
    source, mine = load_network(path).state_dict(), network.state_dict()
    other = {name for name, value in mine.items() if name not in source or source[name].shape != value.shape}
    if any(not name.startswith(_UPSAMPLERS) for name in other | (source.keys() - mine.keys())):
        shape = f"{network.config.channels} channels and {network.config.blocks} blocks"
        raise UsageError(f"{path} is no network of {shape} in the form that is trained", "give --channels and --blocks")
    network.load_state_dict({name: mine[name] if name in other else source[name] for name in mine})
    return not other


def _quieten(network: Span) -> None:
    """The training form's start: a last convolution that is nearly silent and centred on mid-grey."""
    last = network.upsampler[0]
    with torch.no_grad():
        last.get_parameter("weight").mul_(0.01)
        last.get_parameter("bias").fill_(0.45)


def _first_pairs(data: TrainSet) -> Iterator[tuple[Tensor, Tensor]]:
    return ((batch.lr, batch.hr) for batch in first_batches(data, _FIRST))
