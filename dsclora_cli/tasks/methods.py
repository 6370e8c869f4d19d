"""The methods of `dsclora distill`: from a lesson to what is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn

from dsclora_cli.model.lora import Adapted, Adapters, merge_adapters, ranks
from dsclora_cli.model.network import Network
from dsclora_cli.model.taps import Regressed, Taps, tap_names
from dsclora_cli.objectives.contrast import Contrast
from dsclora_cli.objectives.distillation import FeatureTerm
from dsclora_cli.objectives.features import Affinity, Euclidean
from dsclora_cli.recipe import DISTANCES, FEATURE_WEIGHTS, DistillOptions
from dsclora_cli.tasks.initial import initial_network
from dsclora_cli.tasks.lesson import Lesson
from dsclora_cli.tasks.train import network_trainee
from dsclora_cli.tasks.trainee import Trainee
from dsclora_cli.weights.adapters import save_adapters

_DSCLORA_TAPS = ("block_1.*", "block_2.*", "block_3.*")


def _dsclora(lesson: Lesson) -> Trainee:
    """Adapters over the base, or without them all its weights."""
    options, base = lesson.options, lesson.base
    assert base is not None
    names = tap_names(base.network, options.taps or _DSCLORA_TAPS) if options.ad else ()
    others = lesson.teacher_taps(names)
    term = Affinity(options.ad, options.positions) if options.ad else None
    if options.adapters == "none":
        network = copy.deepcopy(base.network)
        trainee = network_trainee(
            network, lesson.objective(Taps(network, names), others, term), lesson.recipe, lesson.data
        )
        return replace(trainee, floor=base.network)
    adapters = Adapters(base.network, ranks(base.network, options.adapters), lesson.recipe.run.seed).to(lesson.device)
    return Trainee(
        trained=adapters,
        objective=lesson.objective(Adapted(Taps(base.network, names), adapters), others, term),
        finished=lambda average: merge_adapters(base.network, _adapters(average)),
        save=lambda average, path, origin: save_adapters(_adapters(average), path, base.sha256, origin),
        file="adapter.safetensors",
        floor=base.network,
    )


def _adapters(average: nn.Module) -> Adapters:
    assert isinstance(average, Adapters)
    return average


def _logits(lesson: Lesson) -> Trainee:
    """A network of its own that also answers to the teacher's output, or without a teacher to HR alone."""
    network = _student(lesson)
    return network_trainee(network, lesson.objective(Taps(network, ())), lesson.recipe, lesson.data)


def _student(lesson: Lesson) -> Network:
    network = initial_network(lesson.recipe, lesson.data, lesson.offline)
    network.to(lesson.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _fakd(lesson: Lesson) -> Trainee:
    """Spatial affinities, which maps of different widths have in common."""
    options, network = lesson.options, _student(lesson)
    names, others = _thirds(lesson, network)
    term = Affinity(_weight(options), options.positions, summed=True, name="fakd")
    return network_trainee(network, lesson.objective(Taps(network, names), others, term), lesson.recipe, lesson.data)


def _regressed(
    term: Callable[[DistillOptions], FeatureTerm], facts: tuple[str, ...] = ()
) -> Callable[[Lesson], Trainee]:
    """Methods that compare maps channel by channel: the student's pass a 1x1 convolution to the teacher's width."""

    def build(lesson: Lesson) -> Trainee:
        network = _student(lesson)
        names, others = _thirds(lesson, network)
        assert lesson.teacher is not None
        student = Regressed(Taps(network, names), lesson.teacher.config.channels).to(lesson.device)
        objective = lesson.objective(student, others, term(lesson.options))
        return replace(network_trainee(student, objective, lesson.recipe, lesson.data), facts=facts)

    return build


def _thirds(lesson: Lesson, student: Network) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The maps that are compared, of the student and of the teacher: unless named, after each third of the body."""
    assert lesson.teacher is not None
    if not lesson.options.taps and not lesson.options.teacher_taps:
        return student.thirds, lesson.teacher.thirds
    names = tap_names(student, lesson.options.taps or student.thirds)
    return names, lesson.teacher_taps(names)


def _weight(options: DistillOptions) -> float:
    return FEATURE_WEIGHTS[options.method] if options.feature_weight is None else options.feature_weight


def _fd(options: DistillOptions) -> FeatureTerm:
    return Euclidean(_weight(options), options.feature_distance or DISTANCES["fd"])


def _facd(options: DistillOptions) -> FeatureTerm:
    return Contrast(
        weight=_weight(options),
        distance=options.feature_distance or DISTANCES["facd"],
        form=options.contrast,
        negatives=options.negatives,
        condition=options.condition,
        margin=options.margin,
        temperature=options.temperature,
    )


METHODS: Mapping[str, Callable[[Lesson], Trainee]] = {
    "dsclora": _dsclora,
    "none": _logits,
    "logits": _logits,
    "fd": _regressed(_fd),
    "fakd": _fakd,
    "facd": _regressed(_facd, facts=("passed",)),
}
"""What `--method` names."""
