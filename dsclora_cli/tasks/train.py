"""Training a network towards HR pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dsclora_cli.model.initial import step_scales
from dsclora_cli.model.network import Network
from dsclora_cli.model.taps import Regressed
from dsclora_cli.objectives.pixel import DISTANCES, spectral
from dsclora_cli.recipe import LossOptions, Recipe
from dsclora_cli.recipefile import completed
from dsclora_cli.tasks.compiling import compiled
from dsclora_cli.tasks.fit import fit
from dsclora_cli.tasks.initial import first_batches, initial_network
from dsclora_cli.tasks.trainee import FitObserver, FitResult, Run, Trainee
from dsclora_cli.tasks.trainset import Batch, TrainSet
from dsclora_cli.weights.checkpoint import save_network


@dataclass(frozen=True)
class Truth:
    """The distance to HR that a recipe asks for: `pixel`, and `fft` where it has a weight."""

    options: LossOptions

    def __call__(self, output: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Both `(N, 3, sH, sW)`, float."""
        terms = {"pixel": DISTANCES[self.options.loss](output, hr)}
        if self.options.fft:
            terms["fft"] = self.options.fft * spectral(output, hr)
        return terms


def train(recipe: Recipe, run: Path, resume: bool, observer: FitObserver, offline: bool = False) -> FitResult:
    """Train by a recipe in the folder `run`; `resume` goes on with what it holds.

    Raises as `fit` does, and WeightsError for weights to start from that cannot be had.
    """

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[Trainee, TrainSet]:
        network = initial_network(recipe, data, offline).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        forward = compiled(network, recipe.run.compile, device, observer.on_note)
        truth = Truth(recipe.loss)
        return network_trainee(network, lambda batch: truth(forward(batch.lr), batch.hr), recipe, data), data

    return fit(completed(recipe), Run(run, resume, offline, observer), build)


def network_trainee(
    network: Network | Regressed, objective: Callable[[Batch], dict[str, Tensor]], recipe: Recipe, data: TrainSet
) -> Trainee:
    """All weights of a network, and of regressors beside it, as what is trained; the merged network is what is kept."""
    scales = {}
    if recipe.optimiser.optimiser == "soap":
        device = next(network.parameters()).device
        scales = step_scales(network, next(first_batches(data, 1)).to(device).lr)
    return Trainee(
        trained=network,
        objective=objective,
        finished=_merged,
        save=lambda average, path, origin: save_network(_merged(average), path, origin),
        file="best.safetensors",
        scales=scales,
    )


def _merged(network: nn.Module) -> Network:
    student = network.taps.network if isinstance(network, Regressed) else network
    assert isinstance(student, Network)
    return student.merged()
