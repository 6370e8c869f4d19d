"""Train with a teacher: `dsclora distill`. Every method of dsclora has one builder in this file, listed in `BUILDERS`.

`distill` opens the base and the teacher and hands a builder to the training loop (`training.trainer.fit`). A builder
takes a `DistillContext` and returns what to train with which loss; the losses are in `distillation.losses`. Other
packages add builders as entry points, see `dsclora_cli.methods`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dsclora_cli.datasets.patches import TeacherImages, TrainSet
from dsclora_cli.datasets.teacher_pictures import with_teacher_pictures
from dsclora_cli.distillation.losses import (
    AffinityLoss,
    AugmentedLoss,
    ContrastiveLoss,
    DistillationLoss,
    FeatureLoss,
    FeatureTerm,
)
from dsclora_cli.distillation.plugin_checks import checked_features, checked_setup, errors_named
from dsclora_cli.errors import UsageError
from dsclora_cli.inference.engine import Engine, Ensemble
from dsclora_cli.inference.tiling import TileOptions, upscale_array, value_range
from dsclora_cli.inference.torch_cpu import open_torch_engine
from dsclora_cli.methods import MethodPlugin, find_plugin, load_method
from dsclora_cli.models.features import FeatureExtractor, ProjectedFeatures, select_feature_maps
from dsclora_cli.models.lora import AdaptedNetwork, Adapters, merge_adapters, parse_ranks
from dsclora_cli.models.network import Network
from dsclora_cli.models.span import SPAN
from dsclora_cli.paths import is_taken, sha256_of
from dsclora_cli.recipe import (
    DEFAULT_FEATURE_DISTANCE,
    DEFAULT_FEATURE_WEIGHTS,
    PLUGIN_FEATURE_WEIGHT,
    DistillOptions,
    Recipe,
)
from dsclora_cli.recipe_toml import read_recipe, resolve_defaults
from dsclora_cli.training.compile import compiled
from dsclora_cli.training.losses import ReconstructionLoss
from dsclora_cli.training.train import initial_digest, initial_network, network_setup, settings_of_init
from dsclora_cli.training.trainer import Run, TrainCallbacks, TrainingSetup, TrainResult, fit
from dsclora_cli.weights.adapters import build_adapters, load_adapters, save_adapters
from dsclora_cli.weights.finished import ADAPTER_FILE
from dsclora_cli.weights.resolve import open_named_weights

MapChoice = Literal["none", "plain", "projected"]
"""Feature maps that the loss of a method gets, see `DistillContext.student_setup`."""

_TILE = 256
"""Tile for whole pictures, in LR pixels: small enough for any device that trains."""


def distill(recipe: Recipe, run: Path, resume: bool, callbacks: TrainCallbacks, offline: bool = False) -> TrainResult:
    """Train with a teacher in the folder `run`.

    Adapters, and a base with all weights trained, are kept only if they beat the base on the held-out pictures.

    Args:
        recipe: Recipe with `distill` options.
        run: Folder of the run.
        resume: Resume from the checkpoint in `run`, if there is a checkpoint.
        callbacks: Callbacks for notes, steps and scores.
        offline: Do not access the internet.

    Raises:
        UsageError: The networks do not fit together, a method cannot be imported, or as in `fit`.
        WeightsError: Weights cannot be found, downloaded or read.
    """
    options = recipe.distill
    assert options is not None
    # Open everything with a name before the run folder is made, so that a wrong name leaves nothing behind.
    builder = _find_builder(options.method)
    teacher_name = None if options.method == "none" else options.teacher or options.base
    base = _open_base(options, recipe.network.scale, offline)
    option = "--teacher" if options.teacher else "--base"
    teacher = open_weights(teacher_name, recipe.network.scale, offline, option) if teacher_name else None
    adapters = _initial_adapters(base, options, recipe.run.seed)
    if adapters and recipe.run.amp == "auto":
        # Half precision resolves 0.1 % of a weight at best, and adapters change weights by 0.5 % in all.
        recipe = replace(recipe, run=replace(recipe.run, amp="off"))
    if options.method == "facd" and options.feature_distance is None:
        options = replace(options, feature_distance=_facd_distance(run, resume))
        recipe = replace(recipe, distill=options)

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[TrainingSetup, TrainSet]:
        for opened in (teacher, base):
            if opened:
                opened.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.teacher_folder is not None:
            data = with_teacher_pictures(data, options.teacher_folder, callbacks.on_picture)
        if teacher:
            teacher.network.requires_grad_(False)
            # Outputs for whole pictures are computed once and stored; without `ts` nothing reads the outputs.
            if options.teacher_images in {"whole", "ensemble"} and options.ts:
                images = teacher_on_whole_pictures(teacher.network, device, options.teacher_images == "ensemble")
                name = f"{teacher.sha256} {options.teacher_images}"
                data = data.with_teacher(images, name, callbacks.on_picture)
        network = teacher.network if teacher else None
        context = DistillContext(recipe, options, data, network, base, adapters, device, offline, callbacks.note_once)
        digests = [opened.sha256 if opened else "" for opened in (base, teacher)]
        if options.method == "dsclora":
            init = sha256_of(options.init_adapter) if options.init_adapter else ""
        else:
            init = initial_digest(recipe.network, offline)
        return replace(builder(context), weights=(*digests, init)), data

    return fit(resolve_defaults(recipe), Run(run, resume, offline, callbacks), build)


def _open_base(options: DistillOptions, scale: int, offline: bool) -> OpenedWeights | None:
    """Open the base of method dsclora; None for every other method. Raises as `open_weights`, and for a merged base."""
    if options.method != "dsclora":
        return None
    assert options.base is not None
    base = open_weights(options.base, scale, offline, "--base")
    if base.has_adapter:
        hint = f"name its own base, or a file of both: `dsclora export {options.base} -o FILE.safetensors`"
        raise UsageError(f"{options.base} already contains an adapter", hint)
    return base


def _initial_adapters(base: OpenedWeights | None, options: DistillOptions, seed: int) -> Adapters | None:
    """Return the adapters that a run starts from: zero, or the adapters in the file of `init_adapter`.

    None for a run that trains no adapters.

    Raises:
        UsageError: Rules for the ranks that do not fit the base, or other ranks in the file.
        WeightsError: A file that cannot be read, or an adapter for other weights.
    """
    if base is None or options.adapters == "none":
        return None
    adapters = Adapters(base.network, parse_ranks(base.network, options.adapters), seed)
    if options.init_adapter is None:
        return adapters
    found = build_adapters(base.network, base.sha256, load_adapters(options.init_adapter))
    # The recipe of the new run names the ranks, so other ranks in the file are an error.
    own, wanted = (
        {name: tuple(each.shape) for name, each in module.named_parameters()} for module in (found, adapters)
    )
    if own != wanted:
        name = min(name for name in own.keys() | wanted.keys() if own.get(name) != wanted.get(name))
        raise UsageError(
            f"{options.init_adapter} has other ranks than --adapters {options.adapters}, at {name.rpartition('.')[0]}",
            "give --adapters as for the run that made the adapter",
        )
    return found


def _find_builder(method: str) -> MethodBuilder:
    """Return the builder of a method. Raises UsageError for a method that is unknown or cannot be imported."""
    plugin = find_plugin(method)
    if plugin is None:
        return BUILDERS[method]
    build = load_method(plugin)

    def checked(context: DistillContext) -> TrainingSetup:
        with errors_named(plugin):
            setup = build(_PluginContext(**vars(context), plugin=plugin))
        return checked_setup(plugin, setup)

    return checked


def _facd_distance(run: Path, resume: bool) -> str | None:
    """Return the distance between feature maps for FACD if a recipe names none.

    New runs name the distance in `recipe.toml`; a run without the name was started when "l1" was the default. That run
    resumes with None, which `build_facd` reads as "l1", because a named distance would change the recipe's digest.
    """
    begun = run / "recipe.toml"
    if resume and is_taken(begun):
        started_with = read_recipe(begun).distill
        if started_with and started_with.method == "facd" and started_with.feature_distance is None:
            return None
    return DEFAULT_FEATURE_DISTANCE


@dataclass(frozen=True)
class OpenedWeights:
    """A network read from a file of weights."""

    network: Network
    sha256: str
    """Digest of the file, in hex."""
    has_adapter: bool
    """True if an adapter was merged into the network."""


def open_weights(name: str, scale: int, offline: bool, option: str) -> OpenedWeights:
    """Open a network by file or model name, given with `option`.

    Raises WeightsError, and UsageError if the scale is not `scale`.
    """
    found, network = open_named_weights(name, offline, option)
    if network.config.scale != scale:
        raise UsageError(
            f"{found.name} upscales by {network.config.scale}, not by {scale}", f"give --scale {network.config.scale}"
        )
    return OpenedWeights(network, found.sha256, found.adapter is not None)


def teacher_on_whole_pictures(teacher: Network, device: torch.device, ensemble: bool) -> TeacherImages:
    """Return a function from a whole LR picture `(H, W, 3)` to the teacher's output `(sH, sW, 3)` in [0, 1].

    With `ensemble` the output is the mean over 8 flips and turns of the picture.
    """
    engine: Engine = open_torch_engine(teacher, teacher.config.descriptor, device, torch.float32)
    if ensemble:
        engine = Ensemble(engine)

    def upscale(lr: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Floats in, floats out: the output is not rounded to 8 bits.
        unit = value_range(lr).to_unit(lr).astype(np.float32, copy=False)
        return upscale_array(unit, engine, TileOptions(_TILE, may_halve=True)).astype(np.float32, copy=False)

    return upscale


@dataclass(frozen=True)
class DistillContext:
    """Everything that a builder needs."""

    recipe: Recipe
    """Recipe with all defaults resolved."""
    options: DistillOptions
    """Options of `[distill]`."""
    data: TrainSet
    teacher: Network | None
    """Teacher on `device`, without gradients; None without `--teacher`, and for method none."""
    base: OpenedWeights | None
    """Base on `device`; None for every method but dsclora."""
    adapters: Adapters | None
    """Adapters at the start, not yet on `device`; None for every method but dsclora, and for adapters "none"."""
    device: torch.device
    offline: bool
    on_note: Callable[[str], None]
    """Callback for a sentence about the whole run."""

    def student_setup(self, features: FeatureTerm | None = None, maps: MapChoice = "none") -> TrainingSetup:
        """Return the setup of a new student that learns from HR, from the teacher's output, and by one more loss.

        Args:
            features: The loss of the method; None for no further loss.
            maps: Feature maps that `features` gets. "none": no maps. "plain": the maps of student and teacher, which
                may differ in channels. "projected": a 1x1 convolution, trained with the student and not saved, takes
                each map of the student to the teacher's channels.

        Raises:
            UsageError: A loss without a teacher, or maps that do not pair.
            ValueError: Another text as `maps`.
        """
        if maps not in get_args(MapChoice):
            raise ValueError(f"maps of student_setup is {maps!r}, not one of {', '.join(get_args(MapChoice))}")
        student = self.new_student()
        if features and self.teacher is None:
            raise UsageError(f"method {self.options.method} needs a teacher", "name its weights: --teacher FILE|NAME")
        names, teacher_names = compared_maps(self, student) if maps != "none" else ((), ())
        module: Network | ProjectedFeatures = student
        forward: nn.Module = FeatureExtractor(student, names)
        if maps == "projected":
            assert self.teacher is not None
            forward = ProjectedFeatures(FeatureExtractor(student, names), self.teacher.config.channels).to(self.device)
            module = forward
        setup = network_setup(module, self.loss(forward, teacher_names, features), self.recipe, self.data)
        meanings = settings_of_init(student, self.recipe.network), _order_of_taps(self.teacher, teacher_names)
        return replace(setup, meaning=", ".join(filter(None, meanings)))

    def new_student(self) -> Network:
        """Return a network of the shape in `[network]`, with initial weights, on `device`."""
        student = initial_network(self.recipe, self.data, self.offline)
        student.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return student

    def loss(
        self, student: nn.Module, teacher_maps: tuple[str, ...] = (), features: FeatureTerm | None = None
    ) -> DistillationLoss:
        """Return the loss of a student.

        Args:
            student: Module from LR to an output and as many feature maps as `teacher_maps` has names.
            teacher_maps: Names of the teacher's feature maps to compare.
            features: Loss between the feature maps.
        """
        pixel_loss, choice = ReconstructionLoss(self.recipe.loss), self.recipe.run.compile
        teacher = None if self.teacher is None else FeatureExtractor(self.teacher, teacher_maps)
        return DistillationLoss(
            student=compiled(student, choice, self.device, self.on_note),
            teacher=teacher and compiled(teacher, choice, self.device, self.on_note),
            pixel_loss=lambda output, hr: torch.stack(list(pixel_loss(output, hr).values())).sum(),
            rec=self.options.rec,
            # Method none has a weight, but no teacher.
            ts=self.options.ts if teacher or self.options.teacher_folder else 0.0,
            features=features,
            spectrum=self.options.spectrum,
            spectrum_block=self.options.spectrum_block,
        )

    @property
    def feature_weight(self) -> float:
        """Return the weight of the loss of fd, fakd, facd, augkd or the method of a plugin."""
        weight = self.options.feature_weight
        return DEFAULT_FEATURE_WEIGHTS.get(self.options.method, PLUGIN_FEATURE_WEIGHT) if weight is None else weight


@dataclass(frozen=True)
class _PluginContext(DistillContext):
    """Everything that a builder of another package needs; the loss that the package hands over is checked."""

    plugin: MethodPlugin

    def loss(
        self, student: nn.Module, teacher_maps: tuple[str, ...] = (), features: FeatureTerm | None = None
    ) -> DistillationLoss:
        """Return the loss of a student, as for every other builder."""
        return super().loss(student, teacher_maps, checked_features(self.plugin, features) if features else None)


def build_dsclora(context: DistillContext) -> TrainingSetup:
    """Set up adapters for the base or, with adapters "none", all weights of the base (DSCLoRA, arXiv 2504.11271)."""
    options, base = context.options, context.base
    assert base is not None
    usual = _DSCLORA_MAPS if isinstance(base.network, SPAN) else base.network.thirds
    maps, teacher_maps = _pairs(context, base.network, options.taps or usual) if options.ad else ((), ())
    meaning = _order_of_taps(context.teacher, teacher_maps)
    term = AffinityLoss(options.ad, options.positions) if options.ad else None
    adapters = context.adapters
    if adapters is None:
        # A copy: the base stays unchanged as the baseline to beat, and may be the teacher as well.
        network = copy.deepcopy(base.network)
        loss = context.loss(FeatureExtractor(network, maps), teacher_maps, term)
        setup = network_setup(network, loss, context.recipe, context.data)
        return replace(setup, baseline=base.network, meaning=meaning)
    adapters.to(context.device)
    student = AdaptedNetwork(FeatureExtractor(base.network, maps), adapters)

    def merged(average: nn.Module) -> Network:
        assert isinstance(average, Adapters)
        return merge_adapters(base.network, average)

    def save(average: nn.Module, path: Path, origin: str) -> None:
        assert isinstance(average, Adapters)
        save_adapters(average, path, base.sha256, origin)

    return TrainingSetup(
        module=adapters,
        loss_terms=context.loss(student, teacher_maps, term),
        to_network=merged,
        save=save,
        file_name=ADAPTER_FILE,
        baseline=base.network,  # adapters that do not beat the base are not kept
        meaning=meaning,
    )


_DSCLORA_MAPS = ("block_1.*", "block_2.*", "block_3.*")
"""The nine maps of the first three blocks, which an early version of the authors' code compares.

The figures of the paper draw other maps: the recipe examples/recipes/dsclora-paper.toml names these.
"""


def build_logits(context: DistillContext) -> TrainingSetup:
    """Set up a network that learns from HR and the teacher's output; for method none, from HR alone."""
    return context.student_setup()


def build_fakd(context: DistillContext) -> TrainingSetup:
    """Set up a network that learns from spatial affinities as well; maps may differ in channels (FAKD, ICIP 2020)."""
    term = AffinityLoss(context.feature_weight, context.options.positions, summed=True, name="fakd")
    return context.student_setup(term, "plain")


def build_fd(context: DistillContext) -> TrainingSetup:
    """Set up a network that learns from the teacher's feature maps as well (FitNets, arXiv 1412.6550)."""
    distance = context.options.feature_distance or DEFAULT_FEATURE_DISTANCE
    return context.student_setup(FeatureLoss(context.feature_weight, distance), "projected")


def build_facd(context: DistillContext) -> TrainingSetup:
    """Set up a network that learns from a contrast between feature maps as well (FACD, arXiv 2211.15951)."""
    options = context.options
    term = ContrastiveLoss(
        weight=context.feature_weight,
        distance=options.feature_distance or "l1",  # None: see `_facd_distance`
        form=options.contrast,
        negatives=options.negatives,
        condition=options.condition,
        margin=options.margin,
        temperature=options.temperature,
    )
    return replace(context.student_setup(term, "projected"), logged_only=("passed",))


def build_augkd(context: DistillContext) -> TrainingSetup:
    """Set up a network that learns the teacher's output on zoomed and changed inputs as well (AugKD, ICLR 2025)."""
    return context.student_setup(AugmentedLoss(context.feature_weight))


MethodBuilder = Callable[[DistillContext], TrainingSetup]
"""Function of a method: returns what to train with which loss."""

BUILDERS: Mapping[str, MethodBuilder] = {
    "dsclora": build_dsclora,
    "none": build_logits,
    "logits": build_logits,
    "fd": build_fd,
    "fakd": build_fakd,
    "facd": build_facd,
    "augkd": build_augkd,
}
"""Builders by name of the method, as in `--method`."""


def compared_maps(context: DistillContext, student: Network) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names of the student's and the teacher's maps to compare; by default the end of each third of the body."""
    assert context.teacher is not None
    if not context.options.taps and not context.options.teacher_taps:
        return student.thirds, context.teacher.thirds
    return _pairs(context, student, context.options.taps or student.thirds)


def _pairs(
    context: DistillContext, student: Network, patterns: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names of the student's maps that match patterns, and of the teacher's maps, by default the same names.

    The first map of the student is compared with the first of the teacher, and so on, in the order of the patterns of
    both. The order of the pairs themselves is that of the student: sums do not depend on the order of patterns.

    Raises UsageError if a network does not have these maps, or if the numbers of maps differ.
    """
    teacher, chosen = context.teacher, context.options.teacher_taps
    assert teacher is not None
    maps = select_feature_maps(student, patterns)
    if absent := set() if chosen else set(maps) - set(teacher.feature_names):
        raise UsageError(f"the teacher has no feature map {min(absent)}", "name its maps with --teacher-taps")
    found = select_feature_maps(teacher, chosen) if chosen else maps
    if len(found) != len(maps):
        raise UsageError(
            f"{len(maps)} feature maps of the student are compared with {len(found)} of the teacher",
            "name as many with --taps as with --teacher-taps",
        )
    order = sorted(zip(maps, found, strict=True), key=lambda pair: student.feature_names.index(pair[0]))
    return tuple(own for own, _ in order), tuple(other for _, other in order)


def _order_of_taps(teacher: Network | None, teacher_maps: tuple[str, ...]) -> str:
    """Return the words on pairs that cross, for `TrainingSetup.meaning`; empty for pairs that do not.

    Earlier versions compared the maps of both networks in the order of the networks, so that no pairs crossed.
    """
    places = [teacher.feature_names.index(name) for name in teacher_maps] if teacher else []
    return "" if places == sorted(places) else "the order of --taps and --teacher-taps"
