"""Training a network towards HR pictures.

The network that a training run starts from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dsclora_cli.datasets.patches import Batch, TrainSet
from dsclora_cli.errors import UsageError
from dsclora_cli.models.edsr import EDSR, EdsrConfig, usual_res_scale
from dsclora_cli.models.features import ProjectedFeatures
from dsclora_cli.models.initialization import fit_last_layer, lsuv_init, step_scales
from dsclora_cli.models.network import Network
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.recipe import LossOptions, NetworkOptions, Recipe
from dsclora_cli.recipe_toml import resolve_defaults
from dsclora_cli.training.compile import compiled
from dsclora_cli.training.losses import PIXEL_LOSSES, spectral
from dsclora_cli.training.trainer import Run, TrainCallbacks, TrainingSetup, TrainResult, fit
from dsclora_cli.weights.checkpoint import load_network, save_network
from dsclora_cli.weights.resolve import find_named_weights


@dataclass(frozen=True)
class ReconstructionLoss:
    """The distance to HR that a recipe asks for: `pixel`, and `fft` where it has a weight."""

    options: LossOptions

    def __call__(self, output: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Both `(N, 3, sH, sW)`, float."""
        terms = {"pixel": PIXEL_LOSSES[self.options.loss](output, hr)}
        if self.options.fft:
            terms["fft"] = self.options.fft * spectral(output, hr)
        return terms


def train(recipe: Recipe, run: Path, resume: bool, callbacks: TrainCallbacks, offline: bool = False) -> TrainResult:
    """Train by a recipe in the folder `run`; `resume` goes on with what it holds.

    Raises as `fit` does, and WeightsError for weights to start from that cannot be had.
    """

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[TrainingSetup, TrainSet]:
        network = initial_network(recipe, data, offline).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = compiled(network, recipe.run.compile, device, callbacks.note_once)
        truth = ReconstructionLoss(recipe.loss)
        return network_setup(network, lambda batch: truth(forward(batch.lr), batch.hr), recipe, data), data

    return fit(resolve_defaults(recipe), Run(run, resume, offline, callbacks), build)


def network_setup(
    network: Network | ProjectedFeatures,
    loss_terms: Callable[[Batch], dict[str, Tensor]],
    recipe: Recipe,
    data: TrainSet,
) -> TrainingSetup:
    """All weights of a network, and of regressors beside it, as what is trained; the merged network is what is kept."""
    lr_scales = {}
    if recipe.optimiser.optimiser == "soap":
        device = next(network.parameters()).device
        lr_scales = step_scales(network, next(first_batches(data, 1)).to(device).lr)
    return TrainingSetup(
        module=network,
        loss_terms=loss_terms,
        to_network=_merged,
        save=lambda average, path, origin: save_network(_merged(average), path, origin),
        file_name="best.safetensors",
        lr_scales=lr_scales,
    )


def _merged(network: nn.Module) -> Network:
    student = network.taps.network if isinstance(network, ProjectedFeatures) else network
    assert isinstance(student, Network)
    return student.merged()


_FIRST = 4  # batches that the upsampler is fitted to
_UPSAMPLERS = ("upsampler.", "tail.")


def initial_network(recipe: Recipe, data: TrainSet, offline: bool = False) -> Network:
    """Random weights, of a SPAN at their working scale, or those of `init`; a SPAN's upsampler is fitted to the data.

    Raises UsageError where `init` has another shape, and WeightsError.
    """
    network = new_network(recipe.network)
    if recipe.network.init is not None:
        complete = _take_over(network, find_named_weights(recipe.network.init, offline).path)
        if not complete and isinstance(network, SPAN):
            fit_last_layer(network, _first_pairs(data))
    elif recipe.network.expanded:
        assert isinstance(network, SPAN)
        _quieten(network)
    elif isinstance(network, SPAN):
        lsuv_init(network, next(first_batches(data, 1)).lr)
        fit_last_layer(network, _first_pairs(data))
    return network


def new_network(options: NetworkOptions) -> Network:
    """PyTorch's usual random weights in the shape that a resolve_defaults recipe asks for."""
    channels, blocks, scale = options.channels, options.blocks, options.scale
    assert channels is not None
    assert blocks is not None
    if options.arch == "edsr":
        return EDSR(EdsrConfig(channels, blocks, scale, usual_res_scale(channels)))
    if options.arch == "rcan":
        assert options.groups is not None
        return RCAN(RcanConfig(channels, blocks, scale, options.groups, max(1, channels // 16)))
    return SPAN(SpanConfig(channels, blocks, scale, expanded=options.expanded))


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


def _quieten(network: SPAN) -> None:
    """The training form's start: a last convolution that is nearly silent and centred on mid-grey."""
    last = network.upsampler[0]
    with torch.no_grad():
        last.get_parameter("weight").mul_(0.01)
        last.get_parameter("bias").fill_(0.45)


def _first_pairs(data: TrainSet) -> Iterator[tuple[Tensor, Tensor]]:
    return ((batch.lr, batch.hr) for batch in first_batches(data, _FIRST))
