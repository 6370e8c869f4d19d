"""What the training loop is handed, and what it tells: data types only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from dsclora_cli.model.network import Network
from dsclora_cli.tasks.trainset import Batch

Terms = dict[str, Tensor]
"""The weighted terms of a loss by name; the loss is the sum of those that are no facts."""


@dataclass(frozen=True)
class Trainee:
    """What is trained, and what for.

    `trained` holds the parameters that are optimised, averaged and checkpointed; `objective` computes the loss of a
    batch from them, and beside its terms those of `facts`, which are logged and no part of it. `finished` makes of a
    copy of `trained` the merged network that is scored, `save` the file that is kept, with a text about its origin.
    `scales` are learning rates of single parameters beside the schedule's.
    With `floor`, a network to beat on the held-out pictures, nothing is kept that does not beat it.
    """

    trained: nn.Module
    objective: Callable[[Batch], Terms]
    finished: Callable[[nn.Module], Network]
    save: Callable[[nn.Module, Path, str], None]
    file: str
    facts: tuple[str, ...] = ()
    scales: Mapping[str, float] = field(default_factory=dict)
    floor: Network | None = None


@dataclass(frozen=True)
class Score:
    """One line of the log: means over the steps since the line before it. `psnr_y` in dB on the held-out pictures.

    `facts`, shares in [0, 1], are logged beside the terms and no part of the loss.
    `waiting` is the share of the steps' time that went by waiting for data; `seconds` is that of the whole run so far.
    """

    step: int
    loss: float
    terms: dict[str, float]
    facts: dict[str, float]
    psnr_y: float
    rate: float
    images_per_second: float
    waiting: float
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """What a run came to. `file` holds the best weights, None where none was better than `floor_psnr_y`."""

    run: Path
    file: Path | None
    steps: int
    best_step: int
    best_psnr_y: float
    floor_psnr_y: float | None
    skipped: int
    seconds: float


class FitObserver(Protocol):
    """Hears how a run goes."""

    def on_note(self, note: str) -> None:
        """A sentence about the whole run."""

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """A step is done, counted from 1."""

    def on_score(self, score: Score, best: bool) -> None:
        """The held-out pictures were scored; `best` if no score before was as high."""


@dataclass(frozen=True)
class Run:
    """Where a run is and how it is told of: `resume` goes on with what the folder `path` holds, or starts there."""

    path: Path
    resume: bool
    offline: bool
    observer: FitObserver
