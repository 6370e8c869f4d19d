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

import torch
from torch import Tensor, nn

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.datasets.patches import Batch, HeldOut, TrainSet, open_data
from dsclora_cli.errors import DscloraError
from dsclora_cli.inference.device import full_float32, no_subnormals, resolve_device
from dsclora_cli.models.network import Network
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import recipe_digest
from dsclora_cli.training.checkpoint import RunState, TrainingProgress
from dsclora_cli.training.distributed import ProcessGroup, join_process_group, local_device
from dsclora_cli.training.optim import EMA, Precision, make_optimizer, rate_at, set_rate
from dsclora_cli.training.run_dir import RunDir, is_new_run
from dsclora_cli.training.validation import Sample, mean_psnr, validate

Terms = dict[str, Tensor]
"""The weighted terms of a loss by name; the loss is the sum of those that are no facts."""


@dataclass(frozen=True)
class TrainingSetup:
    """What is trained, and what for.

    `trained` holds the parameters that are optimised, averaged and checkpointed; `objective` computes the loss of a
    batch from them, and beside its terms those of `facts`, which are logged and no part of it. `finished` makes of a
    copy of `trained` the merged network that is scored, `save` the file that is kept, with a text about its origin.
    `scales` are learning rates of single parameters beside the schedule's.
    With `floor`, a network to beat on the held-out pictures, nothing is kept that does not beat it.
    """

    module: nn.Module
    loss_terms: Callable[[Batch], Terms]
    to_network: Callable[[nn.Module], Network]
    save: Callable[[nn.Module, Path, str], None]
    file_name: str
    logged_only: tuple[str, ...] = ()
    lr_scales: Mapping[str, float] = field(default_factory=dict)
    baseline: Network | None = None


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
class TrainResult:
    """What a run came to. `file` holds the best weights, None where none was better than `floor_psnr_y`."""

    run: Path
    file: Path | None
    steps: int
    best_step: int
    best_psnr_y: float
    floor_psnr_y: float | None
    skipped: int
    seconds: float


class TrainCallbacks(Callbacks):
    """Hears how a run goes."""

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
    callbacks: TrainCallbacks


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


Builder = Callable[[Recipe, TrainSet, torch.device], tuple[TrainingSetup, TrainSet]]
"""Makes of a recipe, its data and a device what is trained, and the data with whatever the objective needs beside."""


def fit(recipe: Recipe, run: Run, build: Builder) -> TrainResult:
    """Open the data, build what is trained, and train it.

    Raises UsageError for options that do not fit and a folder that holds something else, KeyboardInterrupt after a
    checkpoint when asked to stop, and as `open_data` and `build` do.
    """
    device = resolve_device(local_device(recipe.run.device))
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    with join_process_group(device) as group, no_subnormals():
        is_new = is_new_run(run.path, run.resume)
        train_set, held_out = open_data(recipe, run.offline)
        for sentence in train_set.left_out:
            run.callbacks.note_once(sentence)
        torch.manual_seed(recipe.run.seed)
        setup, train_set = build(recipe, train_set, device)
        group.mean([0.0], device)  # nobody writes before everybody has looked
        return Trainer(recipe, setup, (train_set, held_out), run, group).run(is_new)


class Trainer:
    """One run: `run` takes all steps, and goes on from the checkpoint in the folder where there is one."""

    def __init__(
        self,
        recipe: Recipe,
        setup: TrainingSetup,
        data: tuple[TrainSet, HeldOut],
        run: Run,
        group: ProcessGroup,
    ) -> None:
        self._recipe, self._setup, self._folder = recipe, setup, RunDir(run.path)
        self._train_set, self._held_out = data
        self._group, self._callbacks = group, run.callbacks
        self._device = next(setup.module.parameters()).device
        self._shares = group.shares(recipe.data.batch, recipe.optimiser.accumulate)
        self._optimizer = make_optimizer(recipe.optimiser, setup.module, setup.lr_scales)
        self._average = EMA(setup.module, recipe.optimiser.ema)
        self._precision = Precision(recipe.run.amp, self._device)
        self._progress = TrainingProgress()
        parts = {"trained": setup.module, "average": self._average.module, "optimiser": self._optimizer}
        self._state = RunState(recipe, {**parts, "scaler": self._precision.scaler}, self._progress)
        self._saved, self._skips = time.monotonic(), 0
        self._samples: list[Sample] = []

    def run(self, is_new: bool) -> TrainResult:
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
                    self._callbacks.note_once(f"stopped after {self._progress.step} steps; --resume goes on")
                    raise KeyboardInterrupt
                if time.monotonic() - self._saved > self._recipe.run.checkpoint_minutes * 60:
                    self._checkpoint()
        return self._finish()

    def _start(self, is_new: bool) -> None:
        if not is_new:
            self._state.load(self._folder.state, self._device)
            self._callbacks.note_once(f"going on after {self._progress.step} steps")
        if not self._group.is_first:
            return
        self._folder.begin(self._recipe, self._progress.step)
        if is_new:
            self._checkpoint()  # from now on --resume goes on, whatever happens
        if missing := self._folder.missing():
            self._callbacks.note_once(missing)
        if self._progress.best is None and self._setup.baseline is not None:
            floor = mean_psnr(validate(self._setup.baseline, self._held_out, self._device))
            self._progress.best = self._progress.floor = floor

    def _asked(self) -> None:
        self._callbacks.note_once("stopping after this step; once more stops at once, and loses what no checkpoint has")

    def _load(self, step: int) -> list[Batch]:
        return [self._train_set.batch(step, share) for share in self._shares]

    def _await(self, loading: Future[list[Batch]]) -> list[Batch]:
        started = time.monotonic()
        batches = loading.result()
        self._progress.waited += time.monotonic() - started
        return [batch.to(self._device) for batch in batches]

    def _step(self, batches: list[Batch], stop: bool) -> bool:
        """One step, or none where the loss or a gradient is not finite; whether any worker was asked to stop."""
        options, progress, trained = self._recipe.optimiser, self._progress, self._setup.module
        set_rate(self._optimizer, rate_at(options, progress.step, self._recipe.run.steps))
        self._optimizer.zero_grad(set_to_none=True)
        terms = self._accumulate(batches)
        self._group.average_gradients(trained)
        self._precision.scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(trained.parameters(), options.clip or math.inf).item()
        values = {name: value.item() for name, value in terms.items()}
        lost, stopped, *means = self._group.mean(
            [float(not math.isfinite(norm + sum(values.values()))), float(stop), *values.values()], self._device
        )
        if lost:
            self._skip()
        else:
            self._skips = 0
            self._precision.scaler.step(self._optimizer)
            self._average.update(trained, progress.step)
            progress.count(dict(zip(values, means, strict=True)))
        self._precision.scaler.update()
        progress.step += 1
        self._callbacks.on_step(progress.step, self._recipe.run.steps, sum(means))
        return bool(stopped)

    def _accumulate(self, batches: list[Batch]) -> Terms:
        """Gradients of the mean loss over the parts of a batch; its terms."""
        sums: Terms = {}
        for batch in batches:
            with self._precision.autocast():
                terms = {name: term / len(batches) for name, term in self._setup.loss_terms(batch).items()}
            loss = torch.stack([term for name, term in terms.items() if name not in self._setup.logged_only]).sum()
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
        if self._group.is_first:
            started = time.monotonic()
            finished = self._setup.to_network(self._average.module)
            self._samples = validate(finished, self._held_out, self._device)
            progress.seconds += progress.worked + time.monotonic() - started
            score = self._line(mean_psnr(self._samples))
            best = progress.best is None or score.psnr_y > progress.best
            self._save("last.safetensors", score.psnr_y)
            if best:
                progress.best, progress.best_step = score.psnr_y, progress.step
                self._save(self._setup.file_name, score.psnr_y)
            self._folder.log(vars(score))
            self._callbacks.on_score(score, best)
        progress.begin_line()

    def _line(self, psnr_y: float) -> Score:
        progress, counted = self._progress, max(1, self._progress.counted)
        means = {name: total / counted for name, total in progress.terms.items()}
        terms = {name: mean for name, mean in means.items() if name not in self._setup.logged_only}
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
        self._setup.save(self._average.module, self._folder.path / name, json.dumps(origin))

    def _checkpoint(self) -> None:
        if self._group.is_first:
            self._state.save(self._folder.state)
            if self._samples:
                self._folder.draw(self._samples)
                self._samples = []
        self._saved = time.monotonic()

    def _finish(self) -> TrainResult:
        self._checkpoint()
        progress = self._progress
        kept = progress.best is not None and progress.best_step > 0
        return TrainResult(
            run=self._folder.path,
            file=self._folder.path / self._setup.file_name if kept else None,
            steps=progress.step,
            best_step=progress.best_step,
            best_psnr_y=progress.best or 0.0,
            floor_psnr_y=progress.floor,
            skipped=progress.skipped,
            seconds=progress.seconds,
        )
