"""`dsclora train` as a function, and the network that a training run starts from.

The training loop is in `trainer.py`; `distill` starts from the same networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dsclora_cli.datasets.patches import Batch, TrainSet
from dsclora_cli.errors import UsageError
from dsclora_cli.models.compact import Compact, CompactConfig
from dsclora_cli.models.edsr import EDSR, EdsrConfig, usual_res_scale
from dsclora_cli.models.features import ProjectedFeatures
from dsclora_cli.models.initialization import fit_last_layer, lsuv_init, step_scales
from dsclora_cli.models.network import Network, NetworkConfig
from dsclora_cli.models.rcan import RCAN, RcanConfig
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.names import ARCHITECTURES
from dsclora_cli.recipe import NetworkOptions, Recipe
from dsclora_cli.recipe_toml import resolve_defaults
from dsclora_cli.training.compile import compiled
from dsclora_cli.training.losses import ReconstructionLoss
from dsclora_cli.training.trainer import LossTerms, Run, TrainCallbacks, TrainingSetup, TrainResult, fit
from dsclora_cli.weights.checkpoint import save_network
from dsclora_cli.weights.finished import NETWORK_FILE
from dsclora_cli.weights.resolve import find_named_weights, open_named_weights

_FITTED_BATCHES = 4  # batches that the upsampler is fitted to


def train(recipe: Recipe, run: Path, resume: bool, callbacks: TrainCallbacks, offline: bool = False) -> TrainResult:
    """Train a network on the pictures of a recipe.

    Args:
        recipe: Options of the run.
        run: Folder for everything that the run writes.
        resume: Resume the run in the folder, or start a run where the folder is empty.
        callbacks: Receives progress, scores and notes.
        offline: Do not access the internet.

    Raises:
        WeightsError: The weights to start from are not available.
        DscloraError: The run cannot continue; `fit` lists the reasons.
    """

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[TrainingSetup, TrainSet]:
        network = initial_network(recipe, data, offline).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = compiled(network, recipe.run.compile, device, callbacks.note_once)
        loss = ReconstructionLoss(recipe.loss)
        setup = network_setup(network, lambda batch: loss(forward(batch.lr), batch.hr), recipe, data)
        meaning = settings_of_init(network, recipe.network)
        return replace(setup, weights=(initial_digest(recipe.network, offline),), meaning=meaning), data

    return fit(resolve_defaults(recipe), Run(run, resume, offline, callbacks), build)


def network_setup(
    network: Network | ProjectedFeatures, loss_terms: Callable[[Batch], LossTerms], recipe: Recipe, data: TrainSet
) -> TrainingSetup:
    """Return the setup for training every weight of a network and keeping the merged network.

    Args:
        network: The network, or the network with projections of feature maps: projections are trained, but not kept.
        loss_terms: Computes the terms of the loss.
        recipe: Options of the run, defaults resolved.
        data: Training pictures; SOAP's learning rates are scaled by features of the first batch.
    """
    lr_scales = {}
    if recipe.optimiser.optimiser == "soap":
        device = next(network.parameters()).device
        lr_scales = step_scales(network, data.batch(0, slice(None)).to(device).lr)
    return TrainingSetup(
        module=network,
        loss_terms=loss_terms,
        to_network=_merged,
        save=lambda average, path, origin: save_network(_merged(average), path, origin),
        file_name=NETWORK_FILE,
        lr_scales=lr_scales,
    )


def _merged(module: nn.Module) -> Network:
    """Return the network inside a trained module in merged form."""
    network = module.taps.network if isinstance(module, ProjectedFeatures) else module
    assert isinstance(network, Network)
    return network.merged()


def initial_network(recipe: Recipe, data: TrainSet, offline: bool = False) -> Network:
    """Return the network that a run starts from: with random weights, or with the weights and settings of `init`.

    A SPAN starts at its working scale, with an upsampler fitted to the first batches of the data.

    Raises:
        UsageError: The network of `init` contradicts the recipe.
        WeightsError: The weights of `init` are not available.
    """
    network, complete = new_network(recipe.network), False
    if recipe.network.init is not None:
        network, complete = _started_from(network, recipe.network, offline)
    elif recipe.network.expanded:
        assert isinstance(network, SPAN)
        # The training form starts with a last convolution that is nearly silent, around mid-gray.
        last = network.upsampler[0]
        with torch.no_grad():
            last.get_parameter("weight").mul_(0.01)
            last.get_parameter("bias").fill_(0.45)
        return network
    elif isinstance(network, SPAN):
        lsuv_init(network, data.batch(0, slice(None)).lr)
    if isinstance(network, SPAN) and not complete:
        batches = (data.batch(step, slice(None)) for step in range(_FITTED_BATCHES))
        fit_last_layer(network, ((batch.lr, batch.hr) for batch in batches))
    return network


def initial_digest(options: NetworkOptions, offline: bool) -> str:
    """Return the sha256 of the file of `init`; empty without `init`. Raises WeightsError."""
    return "" if options.init is None else find_named_weights(options.init, offline, "--init").sha256


def new_network(options: NetworkOptions) -> Network:
    """Return a network with PyTorch's usual random weights, in the shape that `options` (defaults resolved) ask for."""
    config = _config(options)
    return _NETWORKS[type(config)](config)


_NETWORKS: Mapping[type, Callable[[Any], Network]] = {
    SpanConfig: SPAN, CompactConfig: Compact, EdsrConfig: EDSR, RcanConfig: RCAN
}  # fmt: skip
"""Networks that can be trained, by the class of their sizes."""


def _config(options: NetworkOptions) -> NetworkConfig:
    channels, blocks, scale = options.channels, options.blocks, options.scale
    assert channels is not None
    assert blocks is not None
    if options.arch == "compact":
        return CompactConfig(channels, blocks, scale)
    if options.arch == "edsr":
        return EdsrConfig(channels, blocks, scale, usual_res_scale(channels))
    if options.arch == "rcan":
        assert options.groups is not None
        return RcanConfig(channels, blocks, scale, options.groups, max(1, channels // 16))
    return SpanConfig(channels, blocks, scale, expanded=options.expanded)


def settings_of_init(network: Network, options: NetworkOptions) -> str:
    """Return the settings that a network has from `init` and not from `options`; empty where there are none.

    For `TrainingSetup.meaning`: earlier versions read the weights alone, and trained another network.
    """
    usual = vars(_config(options))
    return ", ".join(f"{key} {value} of --init" for key, value in vars(network.config).items() if value != usual[key])


def _started_from(network: Network, options: NetworkOptions, offline: bool) -> tuple[Network, bool]:
    """Return a network with the weights and settings of `init`, and whether all of the weights are from there.

    A network of another scale gives all weights but those of the upsampler. Settings without an option in the recipe,
    such as the factor of EDSR's branches, are those of `init`: the weights belong to them.

    Args:
        network: The network that the recipe asks for.
        options: The options of that network, defaults resolved.
        offline: Do not access the internet.

    Raises:
        UsageError: `init` holds a network of another architecture, of other sizes or in another form.
    """
    assert options.init is not None
    _, source = open_named_weights(options.init, offline, "--init")
    own = {key: value for key, value in vars(network.config).items() if key in _OPTIONS}
    found = vars(source.config)
    same_kind = type(source.config) is type(network.config)
    if not same_kind or any(found[key] != own[key] for key in own.keys() - {"scale"}):
        raise _contradiction(source.config, network.config, options)
    settings = {**found, **own}
    if settings != vars(network.config):
        network = _NETWORKS[type(network.config)](type(network.config)(**settings))
    state, weights = network.state_dict(), source.state_dict()
    # Of equal sizes, so only an upsampler for another scale differs.
    other = {key for key in state if key not in weights or weights[key].shape != state[key].shape}
    network.load_state_dict({key: state[key] if key in other else weights[key] for key in state})
    return network, not other


_OPTIONS = frozenset(option.name for option in fields(NetworkOptions))


def _contradiction(found: NetworkConfig, own: NetworkConfig, options: NetworkOptions) -> UsageError:
    """Return the error for a network of `init` that is not the network of the recipe; the hint names the options."""
    arch, same_kind = found.descriptor.arch, type(found) is type(own)
    if type(found) not in _NETWORKS:
        hint = f"start from one of these: {', '.join(each.title for each in ARCHITECTURES.values())}"
        return UsageError(f"{options.init} holds {arch}, which cannot be trained", hint)
    sizes = {key: value for key, value in vars(found).items() if key in {"channels", "blocks", "groups"}}
    shown = ", ".join([arch, *(f"{value} {key}" for key, value in sizes.items()), *["merged"] * options.expanded])
    steps = []
    if not same_kind or any(getattr(own, key) != value for key, value in sizes.items()):
        flags = [f"--{key} {value}" for key, value in sizes.items()]
        steps.append(f"give {' '.join(flags if same_kind else [f'--arch {arch}', *flags])}")
    if options.expanded:
        steps.append("leave --expanded out")
    return UsageError(f"{options.init} holds another network than the recipe: {shown}", " and ".join(steps))
