"""What every method of distillation builds on: the networks by their role, and the teacher's answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dsclora_cli.errors import UsageError
from dsclora_cli.imaging.picture import stacked
from dsclora_cli.imaging.ranges import value_range
from dsclora_cli.imaging.tiling import ArraySource, TileRun, upscale_bands
from dsclora_cli.model.network import Network
from dsclora_cli.model.taps import Taps, tap_names
from dsclora_cli.objectives.distillation import Distillation, FeatureTerm
from dsclora_cli.recipe import DistillOptions, Recipe
from dsclora_cli.runtime.engine import Engine, Ensemble
from dsclora_cli.runtime.torch_engine import open_engine
from dsclora_cli.tasks.compiling import compiled
from dsclora_cli.tasks.train import Truth
from dsclora_cli.tasks.trainset import Rgb, TeacherImages, TrainSet
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
        truth, choice = Truth(self.recipe.loss), self.recipe.run.compile
        taps = None if self.teacher is None else Taps(self.teacher, teacher_taps)
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
            found = tap_names(self.teacher, self.options.teacher_taps)
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
    found = named_weights(name, offline)
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
    engine: Engine = open_engine(teacher, teacher.config.descriptor, device, torch.float32)
    if ensemble:
        engine = Ensemble(engine)

    def upscale(lr: Rgb) -> NDArray[np.float32]:
        unit = value_range(lr).to_unit(lr).astype(np.float32, copy=False)
        height, width = (side * teacher.config.scale for side in lr.shape[:2])
        bands = upscale_bands(ArraySource(unit), engine, value_range(unit), TileRun(_TILE, may_halve=True))
        return stacked(bands, (height, width, 3)).astype(np.float32, copy=False)

    return upscale
