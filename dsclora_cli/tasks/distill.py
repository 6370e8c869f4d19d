"""Training with the help of a teacher: adapters over a base (DSCLoRA), or a network of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dsclora_cli.errors import UsageError
from dsclora_cli.imaging.ranges import value_range
from dsclora_cli.imaging.tiling import ArraySink, ArraySource, TileRun, upscale_rows
from dsclora_cli.model.lora import Adapted, Adapters, merge_adapters, ranks
from dsclora_cli.model.network import Network
from dsclora_cli.model.taps import Taps, tap_names
from dsclora_cli.objectives.dsclora import Distillation
from dsclora_cli.recipe import DistillOptions, Recipe
from dsclora_cli.recipefile import completed
from dsclora_cli.runtime.engine import Engine, Ensemble
from dsclora_cli.runtime.torch_engine import TorchEngine
from dsclora_cli.tasks.compiling import compiled
from dsclora_cli.tasks.fit import fit
from dsclora_cli.tasks.initial import initial_network
from dsclora_cli.tasks.train import Truth, network_trainee
from dsclora_cli.tasks.trainee import FitObserver, FitResult, Run, Trainee
from dsclora_cli.tasks.trainset import Rgb, TeacherImages, TrainSet
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.network import open_network
from dsclora_cli.weights.resolve import named_weights

_TILE = 256


@dataclass(frozen=True)
class Known:
    """A network that is there before the run, and the sha256 of its file."""

    network: Network
    sha256: str


@dataclass(frozen=True)
class Lesson:
    """All that a method builds on: the recipe, its pictures, and the networks by their role, on `device`.

    `base` is None for a method that trains a network of its own.
    """

    recipe: Recipe
    options: DistillOptions
    data: TrainSet
    teacher: Network
    base: Known | None
    device: torch.device
    offline: bool
    on_note: Callable[[str], None]

    def objective(self, student: nn.Module, names: tuple[str, ...]) -> Distillation:
        """The weighted terms for a student with taps of these names. Raises UsageError where the teacher lacks one."""
        if absent := set(names) - set(self.teacher.feature_names):
            raise UsageError(f"the teacher has no feature map {min(absent)}", "choose other --taps, or --ad 0")
        truth, choice = Truth(self.recipe.loss), self.recipe.run.compile
        return Distillation(
            student=compiled(student, choice, self.device, self.on_note),
            teacher=compiled(Taps(self.teacher, names), choice, self.device, self.on_note),
            truth=lambda output, hr: torch.stack(list(truth(output, hr).values())).sum(),
            rec=self.options.rec,
            ts=self.options.ts,
            ad=self.options.ad if names else 0.0,
            positions=self.options.positions,
        )


def distill(recipe: Recipe, run: Path, resume: bool, observer: FitObserver, offline: bool = False) -> FitResult:
    """Train by a recipe with a `distill` group in the folder `run`; `resume` goes on with what it holds.

    Adapters, and a base that is trained without them, are kept only if they beat the base on the held-out pictures.
    Raises as `fit` does, UsageError for networks that do not go together, and WeightsError.
    """
    options = recipe.distill
    assert options is not None
    scale = recipe.network.scale
    base = _known(options.base, scale, offline, as_base=True) if options.method == "dsclora" else None
    teacher = _known(options.teacher or options.base, scale, offline)
    if base and options.adapters != "none" and recipe.run.amp == "auto":
        # Half precision resolves 0.1 % of a weight or less, and adapters change 0.5 % in all.
        recipe = replace(recipe, run=replace(recipe.run, amp="off"))

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[Trainee, TrainSet]:
        for known in (teacher, base):
            if known:
                known.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.teacher_images != "patch" and options.ts:
            images = _whole_images(teacher.network, device, options.teacher_images == "ensemble")
            data = data.with_teacher(images, f"{teacher.sha256} {options.teacher_images}")
        lesson = Lesson(
            recipe, options, data, teacher.network.requires_grad_(False), base, device, offline, observer.on_note
        )
        return METHODS[options.method](lesson), data

    recipe = completed(recipe, "adam" if base and options.adapters != "none" else "soap")
    return fit(recipe, Run(run, resume, offline, observer), build)


def _known(name: str | None, scale: int, offline: bool, as_base: bool = False) -> Known:
    assert name is not None
    found = named_weights(name, offline)
    if found.adapter is not None and as_base:
        raise UsageError(f"{found.name} is weights with an adapter already", "merge them first: `dsclora merge`")
    network = open_network(found)
    if network.config.scale != scale:
        raise UsageError(
            f"{found.name} upscales by {network.config.scale}, not by {scale}", f"give --scale {network.config.scale}"
        )
    return Known(network, found.sha256)


def _whole_images(teacher: Network, device: torch.device, ensemble: bool) -> TeacherImages:
    """The teacher on whole pictures, in tiles, clamped to [0, 1]; `ensemble` averages 8 flips and turns."""
    engine: Engine = TorchEngine(teacher, teacher.config.descriptor, device, torch.float32)
    if ensemble:
        engine = Ensemble(engine)

    def upscale(lr: Rgb) -> NDArray[np.float32]:
        unit = value_range(lr).to_unit(lr).astype(np.float32, copy=False)
        height, width = (side * teacher.config.scale for side in lr.shape[:2])
        result = np.empty((height, width, 3), np.float32)
        upscale_rows(ArraySource(unit), ArraySink(result), engine, value_range(unit), TileRun(_TILE, may_halve=True))
        return result

    return upscale


def _dsclora(lesson: Lesson) -> Trainee:
    """Adapters over the base, or without them all its weights."""
    options, base = lesson.options, lesson.base
    assert base is not None
    names = tap_names(base.network, options.taps) if options.ad else ()
    if options.adapters == "none":
        network = copy.deepcopy(base.network)
        trainee = network_trainee(network, lesson.objective(Taps(network, names), names), lesson.recipe, lesson.data)
        return replace(trainee, floor=base.network)
    adapters = Adapters(base.network, ranks(base.network, options.adapters), lesson.recipe.run.seed).to(lesson.device)
    return Trainee(
        trained=adapters,
        objective=lesson.objective(Adapted(Taps(base.network, names), adapters), names),
        finished=lambda average: merge_adapters(base.network, _adapters(average)),
        save=lambda average, path, origin: save_adapters(_adapters(average), path, base.sha256, origin),
        file="adapter.safetensors",
        floor=base.network,
    )


def _adapters(average: nn.Module) -> Adapters:
    assert isinstance(average, Adapters)
    return average


def _logits(lesson: Lesson) -> Trainee:
    """A network of its own that also answers to the teacher's output."""
    network = initial_network(lesson.recipe, lesson.data, lesson.offline)
    network = network.to(lesson.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network_trainee(network, lesson.objective(Taps(network, ()), ()), lesson.recipe, lesson.data)


METHODS: Mapping[str, Callable[[Lesson], Trainee]] = {"dsclora": _dsclora, "logits": _logits}
"""What `--method` names."""
