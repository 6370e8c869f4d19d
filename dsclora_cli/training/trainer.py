"""What the training loop is handed, and what it tells: data types only.

Ctrl-C and SIGTERM during a run: asked for, and obeyed between two steps.

The one training loop: `train` and `distill` hand it what is trained and what for.

Everything that a step needs follows from the seed and the step's number, so a run that goes on from a checkpoint
takes exactly the steps that it would have taken.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch
from torch import Tensor, nn

from dsclora_cli.datasets.patches import Batch, HeldOut, TrainSet, open_data
from dsclora_cli.errors import DscloraError
from dsclora_cli.inference.device import full_float32, no_subnormals, resolve_device
from dsclora_cli.models.network import Network
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import recipe_digest
from dsclora_cli.training.checkpoint import Progress, RunState
from dsclora_cli.training.distributed import Workers, joined, local_device
from dsclora_cli.training.optim import Average, Precision, make_optimiser, rate_at, set_rate
from dsclora_cli.training.run_dir import RunFolder, is_new_run
from dsclora_cli.training.validation import Sample, mean_psnr, validate

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


@contextmanager
def stoppable(on_ask: Callable[[], None]) -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set an event instead of raising, so that a step is never cut; the second one raises.

    The first calls `on_ask`, from another thread: a signal may come while the one it interrupts is writing.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(_: int, __: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        threading.Thread(target=on_ask).start()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


Builder = Callable[[Recipe, TrainSet, torch.device], tuple[Trainee, TrainSet]]
"""Makes of a recipe, its data and a device what is trained, and the data with whatever the objective needs beside."""


def fit(recipe: Recipe, run: Run, build: Builder) -> FitResult:
    """Open the data, build what is trained, and train it.

    Raises UsageError for options that do not fit and a folder that holds something else, KeyboardInterrupt after a
    checkpoint when asked to stop, and as `open_data` and `build` do.
    """
    device = resolve_device(local_device(recipe.run.device))
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    with joined(device) as workers, no_subnormals():
        is_new = is_new_run(run.path, run.resume)
        train_set, held_out = open_data(recipe, run.offline)
        for sentence in train_set.left_out:
            run.observer.on_note(sentence)
        torch.manual_seed(recipe.run.seed)
        trainee, train_set = build(recipe, train_set, device)
        workers.mean([0.0], device)  # nobody writes before everybody has looked
        return Fit(recipe, trainee, (train_set, held_out), run, workers).run(is_new)


class Fit:
    """One run: `run` takes all steps, and goes on from the checkpoint in the folder where there is one."""

    def __init__(
        self,
        recipe: Recipe,
        trainee: Trainee,
        data: tuple[TrainSet, HeldOut],
        run: Run,
        workers: Workers,
    ) -> None:
        self._recipe, self._trainee, self._folder = recipe, trainee, RunFolder(run.path)
        self._train_set, self._held_out = data
        self._workers, self._observer = workers, run.observer
        self._device = next(trainee.trained.parameters()).device
        self._shares = workers.shares(recipe.data.batch, recipe.optimiser.accumulate)
        self._optimiser = make_optimiser(recipe.optimiser, trainee.trained, trainee.scales)
        self._average = Average(trainee.trained, recipe.optimiser.ema)
        self._precision = Precision(recipe.run.amp, self._device)
        self._progress = Progress()
        parts = {"trained": trainee.trained, "average": self._average.module, "optimiser": self._optimiser}
        self._state = RunState(recipe, {**parts, "scaler": self._precision.scaler}, self._progress)
        self._saved, self._skips = time.monotonic(), 0
        self._samples: list[Sample] = []

    def run(self, is_new: bool) -> FitResult:
        """Take the steps that remain.

        Raises KeyboardInterrupt after a checkpoint when asked to stop, and DscloraError where the loss stays NaN or
        the folder cannot be written.
        """
        self._start(is_new)
        steps = self._recipe.run.steps
        with stoppable(self._asked) as stop, full_float32(), ThreadPoolExecutor(1) as loader:
            loading = loader.submit(self._load, self._progress.step)
            while self._progress.step < steps:
                started = time.monotonic()
                batches = self._await(loading)
                loading = loader.submit(self._load, self._progress.step + 1)
                stopped = self._step(batches, stop.is_set())
                self._progress.worked += time.monotonic() - started
                if self._progress.step % self._recipe.run.validate == 0 or self._progress.step == steps:
                    self._score()
                if stopped:
                    self._checkpoint()
                    self._observer.on_note(f"stopped after {self._progress.step} steps; --resume goes on")
                    raise KeyboardInterrupt
                if time.monotonic() - self._saved > self._recipe.run.checkpoint_minutes * 60:
                    self._checkpoint()
        return self._finish()

    def _start(self, is_new: bool) -> None:
        if not is_new:
            self._state.load(self._folder.state, self._device)
            self._observer.on_note(f"going on after {self._progress.step} steps")
        if not self._workers.is_first:
            return
        self._folder.begin(self._recipe, self._progress.step)
        if is_new:
            self._checkpoint()  # from now on --resume goes on, whatever happens
        if missing := self._folder.missing():
            self._observer.on_note(missing)
        if self._progress.best is None and self._trainee.floor is not None:
            floor = mean_psnr(validate(self._trainee.floor, self._held_out, self._device))
            self._progress.best = self._progress.floor = floor

    def _asked(self) -> None:
        self._observer.on_note("stopping after this step; once more stops at once, and loses what no checkpoint has")

    def _load(self, step: int) -> list[Batch]:
        return [self._train_set.batch(step, share) for share in self._shares]

    def _await(self, loading: Future[list[Batch]]) -> list[Batch]:
        started = time.monotonic()
        batches = loading.result()
        self._progress.waited += time.monotonic() - started
        return [batch.to(self._device) for batch in batches]

    def _step(self, batches: list[Batch], stop: bool) -> bool:
        """One step, or none where the loss or a gradient is not finite; whether any worker was asked to stop."""
        options, progress, trained = self._recipe.optimiser, self._progress, self._trainee.trained
        set_rate(self._optimiser, rate_at(options, progress.step, self._recipe.run.steps))
        self._optimiser.zero_grad(set_to_none=True)
        terms = self._accumulate(batches)
        self._workers.average_gradients(trained)
        self._precision.scaler.unscale_(self._optimiser)
        norm = nn.utils.clip_grad_norm_(trained.parameters(), options.clip or math.inf).item()
        values = {name: value.item() for name, value in terms.items()}
        lost, stopped, *means = self._workers.mean(
            [float(not math.isfinite(norm + sum(values.values()))), float(stop), *values.values()], self._device
        )
        if lost:
            self._skip()
        else:
            self._skips = 0
            self._precision.scaler.step(self._optimiser)
            self._average.update(trained, progress.step)
            progress.count(dict(zip(values, means, strict=True)))
        self._precision.scaler.update()
        progress.step += 1
        self._observer.on_step(progress.step, self._recipe.run.steps, sum(means))
        return bool(stopped)

    def _accumulate(self, batches: list[Batch]) -> Terms:
        """Gradients of the mean loss over the parts of a batch; its terms."""
        sums: Terms = {}
        for batch in batches:
            with self._precision.autocast():
                terms = {name: term / len(batches) for name, term in self._trainee.objective(batch).items()}
            loss = torch.stack([term for name, term in terms.items() if name not in self._trainee.facts]).sum()
            torch.autograd.backward(self._precision.scaler.scale(loss))
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach()
        return sums

    def _skip(self) -> None:
        self._skips += 1
        self._progress.skipped += 1
        if self._skips > self._recipe.run.most_skips:
            raise DscloraError(
                f"{self._skips} steps in a row up to step {self._progress.step + 1} had a loss that is not finite",
                "start a new run with a lower --learning-rate, or with --amp off",
            )

    def _score(self) -> None:
        """Score the average on the held-out pictures, keep it as the last and perhaps the best, and log."""
        progress = self._progress
        if self._workers.is_first:
            started = time.monotonic()
            finished = self._trainee.finished(self._average.module)
            self._samples = validate(finished, self._held_out, self._device)
            progress.seconds += progress.worked + time.monotonic() - started
            score = self._line(mean_psnr(self._samples))
            best = progress.best is None or score.psnr_y > progress.best
            self._save("last.safetensors", score.psnr_y)
            if best:
                progress.best, progress.best_step = score.psnr_y, progress.step
                self._save(self._trainee.file, score.psnr_y)
            self._folder.log(vars(score))
            self._observer.on_score(score, best)
        progress.begin_line()

    def _line(self, psnr_y: float) -> Score:
        progress, counted = self._progress, max(1, self._progress.counted)
        means = {name: total / counted for name, total in progress.terms.items()}
        terms = {name: mean for name, mean in means.items() if name not in self._trainee.facts}
        return Score(
            step=progress.step,
            loss=sum(terms.values()),
            terms=terms,
            facts={name: mean for name, mean in means.items() if name not in terms},
            psnr_y=psnr_y,
            rate=rate_at(self._recipe.optimiser, progress.step - 1, self._recipe.run.steps),
            images_per_second=counted * self._recipe.data.batch / progress.worked,
            waiting=progress.waited / progress.worked,
            seconds=progress.seconds,
        )

    def _save(self, name: str, psnr_y: float) -> None:
        origin = {
            "recipe": recipe_digest(self._recipe),
            "data": self._train_set.digest,
            "seed": self._recipe.run.seed,
            "step": self._progress.step,
            "held_out_psnr_y": psnr_y,
            "torch": torch.__version__,
        }
        self._trainee.save(self._average.module, self._folder.path / name, json.dumps(origin))

    def _checkpoint(self) -> None:
        if self._workers.is_first:
            self._state.save(self._folder.state)
            if self._samples:
                self._folder.draw(self._samples)
                self._samples = []
        self._saved = time.monotonic()

    def _finish(self) -> FitResult:
        self._checkpoint()
        progress = self._progress
        kept = progress.best is not None and progress.best_step > 0
        return FitResult(
            run=self._folder.path,
            file=self._folder.path / self._trainee.file if kept else None,
            steps=progress.step,
            best_step=progress.best_step,
            best_psnr_y=progress.best or 0.0,
            floor_psnr_y=progress.floor,
            skipped=progress.skipped,
            seconds=progress.seconds,
        )
