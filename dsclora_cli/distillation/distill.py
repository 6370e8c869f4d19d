"""Training with the help of a teacher: adapters over a base (DSCLoRA), or a network of its own.

What every method of distillation builds on: the networks by their role, and the teacher's answers.

The methods of `dsclora distill`: from a lesson to what is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dsclora_cli.datasets.patches import TeacherImages, TrainSet
from dsclora_cli.distillation.losses import Affinity, Contrast, Distillation, Euclidean, FeatureTerm
from dsclora_cli.errors import UsageError
from dsclora_cli.inference.engine import Engine, Ensemble
from dsclora_cli.inference.tiling import TileOptions, upscale_array, value_range
from dsclora_cli.inference.torch_cpu import open_torch_engine
from dsclora_cli.models.features import FeatureExtractor, ProjectedFeatures, select_feature_maps
from dsclora_cli.models.lora import AdaptedNetwork, Adapters, merge_adapters, parse_ranks
from dsclora_cli.models.network import Network
from dsclora_cli.recipe import DEFAULT_FEATURE_DISTANCE, DEFAULT_FEATURE_WEIGHTS, DistillOptions, Recipe
from dsclora_cli.recipe_toml import resolve_defaults
from dsclora_cli.training.compile import compiled
from dsclora_cli.training.train import ReconstructionLoss, initial_network, network_setup
from dsclora_cli.training.trainer import Run, TrainCallbacks, TrainingSetup, TrainResult, fit
from dsclora_cli.weights.adapters import save_adapters
from dsclora_cli.weights.resolve import find_named_weights, open_network


def distill(recipe: Recipe, run: Path, resume: bool, callbacks: TrainCallbacks, offline: bool = False) -> TrainResult:
    """Train by a recipe with a `distill` group in the folder `run`; `resume` goes on with what it holds.

    Adapters, and a base that is trained without them, are kept only if they beat the base on the held-out pictures.
    Raises as `fit` does, UsageError for networks that do not go together, and WeightsError.
    """
    options = recipe.distill
    assert options is not None
    scale = recipe.network.scale
    base_name = options.base if options.method == "dsclora" else None
    teacher_name = None if options.method == "none" else options.teacher or options.base
    base = open_known(base_name, scale, offline, as_base=True) if base_name else None
    teacher = open_known(teacher_name, scale, offline) if teacher_name else None
    if base and options.adapters != "none" and recipe.run.amp == "auto":
        # Half precision resolves 0.1 % of a weight or less, and adapters change 0.5 % in all.
        recipe = replace(recipe, run=replace(recipe.run, amp="off"))

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[TrainingSetup, TrainSet]:
        for known in (teacher, base):
            if known:
                known.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if teacher:
            teacher.network.requires_grad_(False)
            if options.teacher_images != "patch" and options.ts:
                images = whole_images(teacher.network, device, options.teacher_images == "ensemble")
                data = data.with_teacher(images, f"{teacher.sha256} {options.teacher_images}")
        network = teacher.network if teacher else None
        lesson = Lesson(recipe, options, data, network, base, device, offline, callbacks.note_once)
        return METHODS[options.method](lesson), data

    return fit(resolve_defaults(recipe), Run(run, resume, offline, callbacks), build)


_TILE = 256


@dataclass(frozen=True)
class Known:
    """A network that is there before the run, and the sha256 of its file."""

    network: Network
    sha256: str


@dataclass(frozen=True)
class Lesson:
    """All that a method builds on: the recipe, its pictures, and the networks by their role, on `device`.

    `base` and `teacher` are None where the method has none.
    """

    recipe: Recipe
    options: DistillOptions
    data: TrainSet
    teacher: Network | None
    base: Known | None
    device: torch.device
    offline: bool
    on_note: Callable[[str], None]

    def objective(
        self, student: nn.Module, teacher_taps: tuple[str, ...] = (), features: FeatureTerm | None = None
    ) -> Distillation:
        """The weighted terms for a student that answers as many maps as `teacher_taps` names."""
        truth, choice = ReconstructionLoss(self.recipe.loss), self.recipe.run.compile
        taps = None if self.teacher is None else FeatureExtractor(self.teacher, teacher_taps)
        return Distillation(
            student=compiled(student, choice, self.device, self.on_note),
            teacher=taps and compiled(taps, choice, self.device, self.on_note),
            truth=lambda output, hr: torch.stack(list(truth(output, hr).values())).sum(),
            rec=self.options.rec,
            ts=self.options.ts if taps else 0.0,
            features=features,
        )

    def teacher_taps(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The teacher's maps beside the student's of these names: those that are asked for, or of the same names.

        Raises UsageError where there are none, or not as many.
        """
        assert self.teacher is not None
        if self.options.teacher_taps:
            found = select_feature_maps(self.teacher, self.options.teacher_taps)
        elif absent := set(names) - set(self.teacher.feature_names):
            raise UsageError(f"the teacher has no feature map {min(absent)}", "name its maps with --teacher-taps")
        else:
            found = names
        if len(found) != len(names):
            raise UsageError(
                f"{len(names)} feature maps of the student are compared with {len(found)} of the teacher",
                "name as many with --taps as with --teacher-taps",
            )
        return found


def open_known(name: str, scale: int, offline: bool, as_base: bool = False) -> Known:
    """A network by its file or name. Raises UsageError where it has another scale or is no base, and WeightsError."""
    found = find_named_weights(name, offline)
    if found.adapter is not None and as_base:
        raise UsageError(f"{found.name} is weights with an adapter already", "merge them first: `dsclora merge`")
    network = open_network(found)
    if network.config.scale != scale:
        raise UsageError(
            f"{found.name} upscales by {network.config.scale}, not by {scale}", f"give --scale {network.config.scale}"
        )
    return Known(network, found.sha256)


def whole_images(teacher: Network, device: torch.device, ensemble: bool) -> TeacherImages:
    """The teacher on whole pictures, in tiles, clamped to [0, 1]; `ensemble` averages 8 flips and turns."""
    engine: Engine = open_torch_engine(teacher, teacher.config.descriptor, device, torch.float32)
    if ensemble:
        engine = Ensemble(engine)

    def upscale(lr: NDArray[np.uint8]) -> NDArray[np.float32]:
        unit = value_range(lr).to_unit(lr).astype(np.float32, copy=False)
        return upscale_array(unit, engine, TileOptions(_TILE, may_halve=True)).astype(np.float32, copy=False)

    return upscale


_DSCLORA_TAPS = ("block_1.*", "block_2.*", "block_3.*")


def _dsclora(lesson: Lesson) -> TrainingSetup:
    """Adapters over the base, or without them all its weights."""
    options, base = lesson.options, lesson.base
    assert base is not None
    names = select_feature_maps(base.network, options.taps or _DSCLORA_TAPS) if options.ad else ()
    others = lesson.teacher_taps(names)
    term = Affinity(options.ad, options.positions) if options.ad else None
    if options.adapters == "none":
        network = copy.deepcopy(base.network)
        setup = network_setup(
            network, lesson.objective(FeatureExtractor(network, names), others, term), lesson.recipe, lesson.data
        )
        return replace(setup, baseline=base.network)
    adapters = Adapters(base.network, parse_ranks(base.network, options.adapters), lesson.recipe.run.seed).to(
        lesson.device
    )
    return TrainingSetup(
        module=adapters,
        loss_terms=lesson.objective(AdaptedNetwork(FeatureExtractor(base.network, names), adapters), others, term),
        to_network=lambda average: merge_adapters(base.network, _adapters(average)),
        save=lambda average, path, origin: save_adapters(_adapters(average), path, base.sha256, origin),
        file_name="adapter.safetensors",
        baseline=base.network,
    )


def _adapters(average: nn.Module) -> Adapters:
    assert isinstance(average, Adapters)
    return average


def _logits(lesson: Lesson) -> TrainingSetup:
    """A network of its own that also answers to the teacher's output, or without a teacher to HR alone."""
    network = _student(lesson)
    return network_setup(network, lesson.objective(FeatureExtractor(network, ())), lesson.recipe, lesson.data)


def _student(lesson: Lesson) -> Network:
    network = initial_network(lesson.recipe, lesson.data, lesson.offline)
    network.to(lesson.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _fakd(lesson: Lesson) -> TrainingSetup:
    """Spatial affinities, which maps of different widths have in common."""
    options, network = lesson.options, _student(lesson)
    names, others = _thirds(lesson, network)
    term = Affinity(_weight(options), options.positions, summed=True, name="fakd")
    return network_setup(
        network, lesson.objective(FeatureExtractor(network, names), others, term), lesson.recipe, lesson.data
    )


def _regressed(
    term: Callable[[DistillOptions], FeatureTerm], facts: tuple[str, ...] = ()
) -> Callable[[Lesson], TrainingSetup]:
    """Methods that compare maps channel by channel: the student's pass a 1x1 convolution to the teacher's width."""

    def build(lesson: Lesson) -> TrainingSetup:
        network = _student(lesson)
        names, others = _thirds(lesson, network)
        assert lesson.teacher is not None
        student = ProjectedFeatures(FeatureExtractor(network, names), lesson.teacher.config.channels).to(lesson.device)
        objective = lesson.objective(student, others, term(lesson.options))
        return replace(network_setup(student, objective, lesson.recipe, lesson.data), logged_only=facts)

    return build


def _thirds(lesson: Lesson, student: Network) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The maps that are compared, of the student and of the teacher: unless named, after each third of the body."""
    assert lesson.teacher is not None
    if not lesson.options.taps and not lesson.options.teacher_taps:
        return student.thirds, lesson.teacher.thirds
    names = select_feature_maps(student, lesson.options.taps or student.thirds)
    return names, lesson.teacher_taps(names)


def _weight(options: DistillOptions) -> float:
    return DEFAULT_FEATURE_WEIGHTS[options.method] if options.feature_weight is None else options.feature_weight


def _fd(options: DistillOptions) -> FeatureTerm:
    return Euclidean(_weight(options), options.feature_distance or DEFAULT_FEATURE_DISTANCE)


def _facd(options: DistillOptions) -> FeatureTerm:
    return Contrast(
        weight=_weight(options),
        distance=options.feature_distance or "l1",
        form=options.contrast,
        negatives=options.negatives,
        condition=options.condition,
        margin=options.margin,
        temperature=options.temperature,
    )


METHODS: Mapping[str, Callable[[Lesson], TrainingSetup]] = {
    "dsclora": _dsclora,
    "none": _logits,
    "logits": _logits,
    "fd": _regressed(_fd),
    "fakd": _fakd,
    "facd": _regressed(_facd, facts=("passed",)),
}
"""What `--method` names."""
