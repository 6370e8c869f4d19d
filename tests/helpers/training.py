"""Small training runs for the tests: pictures, recipes, and callbacks that record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dsclora_cli.recipe import DataOptions, NetworkOptions, OptimizerOptions, Recipe, RunOptions
from dsclora_cli.recipe_toml import resolve_defaults
from dsclora_cli.training.trainer import Score, TrainCallbacks


def photographs(folder: Path, count: int = 6, side: int = 40) -> Path:
    """Write pictures of soft waves and hard edges, all different, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:side, 0:side] / side
    for index in range(count):
        fx, fy, phase = rng.uniform(2, 14, 3), rng.uniform(2, 14, 3), rng.uniform(0, 6, 3)
        waves = 128 + 90 * np.sin(fx * x[..., None] + fy * y[..., None] + phase)
        waves[(x + y > 0.8 + 0.1 * index) & (x < 0.7)] *= 0.4
        Image.fromarray(waves.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png")
    return folder


def tiny_recipe(folder: Path, steps: int = 12, optimiser: str = "adam", **data: object) -> Recipe:
    """Return a recipe for a network of a few hundred weights, x2, on 8-pixel patches, scored every 4 steps."""
    recipe = Recipe(
        network=NetworkOptions(channels=4, blocks=1, scale=2),
        data=replace(DataOptions(data=(str(folder),), batch=4, patch=8, val_share=0.3), **data),  # type: ignore[arg-type]
        optimiser=OptimizerOptions(optimiser=optimiser, learning_rate=0.02, ema=0.8),
        run=RunOptions(steps=steps, validate=4, compile="off", device="cpu", checkpoint_minutes=60),
    )
    return resolve_defaults(recipe)


class Recorder(TrainCallbacks):
    """Callbacks that record a run; `at_step` is called after each step with the step's number."""

    def __init__(self, at_step: Callable[[int], None] = lambda step: None) -> None:
        self.notes: list[str] = []
        self.scores: list[Score] = []
        self.losses: list[float] = []
        self._at_step = at_step

    def on_note(self, note: str) -> None:
        self.notes.append(note)

    def on_step(self, step: int, steps: int, loss: float) -> None:
        self.losses.append(loss)
        self._at_step(step)

    def on_score(self, score: Score, best: bool) -> None:
        self.scores.append(score)
