"""Training with the help of a teacher: adapters over a base (DSCLoRA), or a network of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from dsclora_cli.recipe import Recipe
from dsclora_cli.recipefile import completed
from dsclora_cli.tasks.fit import fit
from dsclora_cli.tasks.lesson import Lesson, open_known, whole_images
from dsclora_cli.tasks.methods import METHODS
from dsclora_cli.tasks.trainee import FitObserver, FitResult, Run, Trainee
from dsclora_cli.tasks.trainset import TrainSet


def distill(recipe: Recipe, run: Path, resume: bool, observer: FitObserver, offline: bool = False) -> FitResult:
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

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[Trainee, TrainSet]:
        for known in (teacher, base):
            if known:
                known.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if teacher:
            teacher.network.requires_grad_(False)
            if options.teacher_images != "patch" and options.ts:
                images = whole_images(teacher.network, device, options.teacher_images == "ensemble")
                data = data.with_teacher(images, f"{teacher.sha256} {options.teacher_images}")
        network = teacher.network if teacher else None
        lesson = Lesson(recipe, options, data, network, base, device, offline, observer.on_note)
        return METHODS[options.method](lesson), data

    return fit(completed(recipe), Run(run, resume, offline, observer), build)
