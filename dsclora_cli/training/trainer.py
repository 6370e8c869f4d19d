"""The training loop that `train` and `distill` share: set-up, callbacks, steps, scores and checkpoints.

`fit` opens the data and builds the network, `Trainer.run` is the loop, and `Trainer._step` is one optimization step.
A step depends only on the seed and on the step's number, so a resumed run takes exactly the steps of an unbroken run.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.datasets.patches import Batch, HeldOut, TrainSet, open_data
from dsclora_cli.errors import DscloraError, OutOfMemory
from dsclora_cli.inference.device import full_float32, is_out_of_memory, no_subnormals
from dsclora_cli.inference.engine import NotFinite
from dsclora_cli.models.network import Network
from dsclora_cli.paths import is_file
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import recipe_digest
from dsclora_cli.stop_request import StopRequest
from dsclora_cli.training.checkpoint import RunState, TrainingProgress
from dsclora_cli.training.distributed import ProcessGroup, join_process_group
from dsclora_cli.training.optim import EMA, Precision, make_optimizer, rate_at
from dsclora_cli.training.run_dir import RunDir, claimed, is_new_run
from dsclora_cli.training.validation import Sample, mean_psnr, validate
from dsclora_cli.weights.finished import LAST_FILE

LossTerms = dict[str, Tensor]
"""The weighted terms of a loss by name, each a scalar; the loss is the sum of the terms."""


@dataclass(frozen=True)
class TrainingSetup:
    """The module to train, the loss, and how to turn the trained module into a file."""

    module: nn.Module
    """Holds the parameters to optimize, to average and to checkpoint: a network, or adapters over a frozen base."""
    loss_terms: Callable[[Batch], LossTerms]
    """Compute the terms of the loss for a batch, and next to them the terms of `logged_only`."""
    to_network: Callable[[nn.Module], Network]
    """Turn a copy of `module` into the merged network that is scored on the held-out pictures."""
    save: Callable[[nn.Module, Path, str], None]
    """Write a copy of `module` to a file, with a text about the origin of the weights."""
    file_name: str
    """Name of the file in the run folder that holds the best weights."""
    logged_only: tuple[str, ...] = ()
    """Names of the terms that are written to the log and are no part of the loss."""
    lr_scales: Mapping[str, float] = field(default_factory=dict)
    """Factors on the learning rate by parameter name; 1 for a parameter that is absent."""
    weights: tuple[str, ...] = ()
    """Digests of the weights that the run starts from and learns from: a run resumes with no others."""
    meaning: str = ""
    """What the recipe means here and did not mean in earlier versions, if anything: no run of these is resumed."""
    baseline: Network | None = None
    """A network to beat on the held-out pictures: weights that score lower are not kept. None: no condition."""


@dataclass(frozen=True)
class Score:
    """One line of the log: means over the steps since the previous line, and the held-out score."""

    step: int
    """Number of steps taken so far."""
    loss: float | None
    """Mean loss, the sum of `terms`; None where every step was skipped."""
    terms: dict[str, float]
    """Mean of each weighted term of the loss."""
    facts: dict[str, float]
    """Shares in [0, 1] that a method reports next to the loss."""
    psnr_y: float
    """Mean PSNR-Y of the averaged weights on the held-out pictures, in dB."""
    rate: float
    """Learning rate of the last step."""
    images_per_second: float
    """Patches trained on per second, over all processes."""
    waiting: float
    """Share of the time of the steps that passed in waiting for data, in [0, 1]."""
    seconds: float
    """Seconds of training and scoring since the start of the run, resumed parts included."""


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a whole run."""

    run: Path
    """The run folder."""
    file: Path | None
    """The file of the best weights; None where no weights scored above `floor_psnr_y`, or where the file is gone."""
    steps: int
    """Number of steps taken."""
    best_step: int
    """Step of the best weights; 0 where none were kept."""
    best_psnr_y: float
    """PSNR-Y of the best weights on the held-out pictures, in dB."""
    floor_psnr_y: float | None
    """PSNR-Y of the baseline in dB; None for a run without a baseline."""
    skipped: int
    """Number of steps that were skipped because the loss or the gradient was not finite."""
    seconds: float
    """Seconds of training and scoring, resumed parts included."""
    reached_psnr_y: float | None = None
    """Highest PSNR-Y of all scores in the log, in dB, kept or not; None without a score."""


class TrainCallbacks(Callbacks):
    """Callbacks of a training run, called in the thread that called `train` or `distill`."""

    def on_picture(self, done: int, total: int) -> None:
        """Receive how many of the pictures of a folder or set are decoded into the cache, counted from 1."""

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """Receive the number of a finished step, counted from 1, the number of all steps, and the step's loss."""

    def on_score(self, score: Score, best: bool) -> None:
        """Receive a score on the held-out pictures; `best` says that no earlier score was as high."""


@dataclass(frozen=True)
class Run:
    """Where a run is kept, and who follows the run."""

    path: Path
    """The run folder."""
    resume: bool
    """Resume the run in the folder, or start a run where the folder is empty."""
    offline: bool
    """Do not access the internet."""
    callbacks: TrainCallbacks


Builder = Callable[[Recipe, TrainSet, torch.device], tuple[TrainingSetup, TrainSet]]
"""Build the training setup for a recipe, its data and a device; return the data too, with teacher outputs if any."""


def fit(recipe: Recipe, run: Run, build: Builder) -> TrainResult:
    """Open the data, build the training setup, and train.

    Args:
        recipe: Options of the run, defaults resolved.
        run: The run folder and the callbacks.
        build: Makes the training setup once the data is open.

    Raises:
        UsageError: Options contradict each other, the folder holds something else, or another process trains there.
        KeyboardInterrupt: The run was asked to stop; a checkpoint is written.
        OutOfMemory: The network, or a batch, does not fit the device or this machine.
        DscloraError: The loss stays NaN, the folder cannot be written, or `open_data` or `build` fails.
    """
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    with (
        join_process_group(recipe.run.device) as group,
        no_subnormals(),
        _memory_errors_named(group.device),
        # The first process alone writes. The claim comes before the pictures, whose decoding may take minutes.
        claimed(run.path) if group.is_first else nullcontext(),
    ):
        is_new = is_new_run(run.path, run.resume)
        train_set, held_out = open_data(recipe, run.offline, run.callbacks.on_picture)
        for sentence in train_set.notes:
            run.callbacks.note_once(sentence)
        torch.manual_seed(recipe.run.seed)
        setup, train_set = build(recipe, train_set, group.device)
        # A barrier: every process must have looked at the folder before the first process writes into the folder.
        group.mean([0.0])
        return Trainer(recipe, setup, (train_set, held_out), run, group).run(is_new)


@contextmanager
def _memory_errors_named(device: torch.device) -> Iterator[None]:
    """Turn a failure to allocate memory into an error with a next step."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        hint = "lower --batch, --patch or the size of the network, or raise --accumulate"
        raise OutOfMemory(f"the training does not fit the memory of {device}", hint) from error


class Trainer:
    """One training run in one process."""

    def __init__(
        self,
        recipe: Recipe,
        setup: TrainingSetup,
        data: tuple[TrainSet, HeldOut],
        run: Run,
        group: ProcessGroup,
    ) -> None:
        self._recipe, self._setup, self._group = recipe, setup, group
        self._train_set, self._held_out = data
        self._run_dir, self._callbacks, self._stop = RunDir(run.path), run.callbacks, TrainingStop(run.callbacks)
        self._shares = group.shares(recipe.data.batch, recipe.optimiser.accumulate)
        self._optimizer = make_optimizer(recipe.optimiser, setup.module, setup.lr_scales)
        self._ema = EMA(setup.module, recipe.optimiser.ema)
        self._precision = Precision(recipe.run.amp, self._group.device)
        self._progress = TrainingProgress()
        # The names of the parts are keys of the checkpoint file: another name could not resume older runs.
        parts = {
            "trained": setup.module,
            "average": self._ema.module,
            "optimiser": self._optimizer,
            "scaler": self._precision.scaler,
        }
        content = [self._train_set.arrays, self._held_out.arrays, setup.weights]
        digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        self._state = RunState(recipe, digest, parts, self._progress, setup.meaning)
        self._saved = time.monotonic()  # time of the last checkpoint
        self._skips = 0  # steps skipped in a row
        self._last_skipped: Mapping[str, float] = {}  # the loss terms of the last step that was skipped
        self._resumes = run.resume
        self._is_kept = False  # whether the run folder holds anything that was trained
        self._samples: list[Sample] = []  # of the last score, drawn with the next checkpoint

    def run(self, is_new: bool) -> TrainResult:
        """Take the steps that remain, and return the outcome. Raises as `fit` does."""
        self._start(is_new)
        try:
            return self._train()
        except Exception:
            # The same command works again after a repair. With `--resume` the command works anyway.
            if is_new and not self._resumes and self._group.is_first and not self._is_kept:
                self._run_dir.remove()
            raise

    def _train(self) -> TrainResult:
        """Take the steps that remain, and return the outcome."""
        if self._group.is_first and self._progress.best is None and self._setup.baseline is not None:
            floor = mean_psnr(validate(self._setup.baseline, self._held_out, self._group.device))
            self._progress.best = self._progress.floor = floor
        options, progress = self._recipe.run, self._progress
        with self._stop, full_float32(), ThreadPoolExecutor(1) as loader:
            # One thread draws the batch of the next step while the network works on the batch of this step.
            loading = loader.submit(self._draw, progress.step)
            while progress.step < options.steps:
                started = time.monotonic()
                batches = loading.result()
                progress.waited += time.monotonic() - started
                loading = loader.submit(self._draw, progress.step + 1)
                stopped = self._step(batches)
                progress.worked += time.monotonic() - started
                if progress.step % options.validate == 0 or progress.step == options.steps:
                    self._score()
                if stopped:
                    self._checkpoint()
                    self._callbacks.note_once(f"stopped after {progress.step} steps; resume with --resume")
                    raise KeyboardInterrupt
                if time.monotonic() - self._saved > options.checkpoint_minutes * 60:
                    self._checkpoint()
        return self._finish()

    def _start(self, is_new: bool) -> None:
        """Load the checkpoint of an earlier run, and prepare the run folder."""
        if self._precision.note:
            self._callbacks.note_once(self._precision.note)
        if not is_new:
            if changed := self._state.load(self._run_dir.state, self._group.device):
                self._callbacks.note_once(changed)
            self._callbacks.note_once(f"resuming after {self._progress.step} steps")
        if not self._group.is_first:
            return
        self._run_dir.begin(self._recipe, self._progress.step)
        if is_new:
            self._checkpoint()  # from here on --resume works, even after a crash in the first step
        if missing := self._run_dir.missing():
            self._callbacks.note_once(missing)

    def _draw(self, step: int) -> list[Batch]:
        """Return this process's parts of the batch of a step. Runs in the loader thread."""
        return [self._train_set.batch(step, share) for share in self._shares]

    def _step(self, batches: list[Batch]) -> bool:
        """Take one optimization step, and return whether any process was asked to stop.

        Without a finite loss and a finite gradient in every process, the weights stay unchanged.
        """
        options, progress, module = self._recipe.optimiser, self._progress, self._setup.module
        scaler = self._precision.scaler

        # The rate follows from the step's number alone, so a resumed run is on the same schedule.
        rate = rate_at(options, progress.step, self._recipe.run.steps)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate * parameters["scale"]
        self._optimizer.zero_grad(set_to_none=True)

        # Gradients add up over the parts of the batch. Each part is divided by the number of parts, so the sum is the
        # gradient of the mean over the whole batch, and --accumulate saves memory without changing the result.
        sums: LossTerms = {}
        for part in batches:
            batch = part.to(self._group.device)
            with self._precision.autocast():
                terms = {name: term / len(batches) for name, term in self._setup.loss_terms(batch).items()}
            loss = torch.stack([term for name, term in terms.items() if name not in self._setup.logged_only]).sum()
            torch.autograd.backward(scaler.scale(loss))
            for name, term in terms.items():
                sums[name] = sums.get(name, 0) + term.detach()

        # Every process has the gradients of its own share of the batch.
        self._group.average_gradients(module)
        # The loss is scaled so that small float16 gradients do not become zero; clipping needs the true gradients.
        scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(module.parameters(), options.clip or math.inf).item()

        # All processes decide together: a process that skipped or stopped alone would leave the others waiting.
        values = {name: value.item() for name, value in sums.items()}
        finite = math.isfinite(norm + sum(values.values()))
        skipped, stopped, *means = self._group.mean([float(not finite), float(self._stop.count > 0), *values.values()])
        found = dict(zip(values, means, strict=True))
        if skipped:
            self._skip(found)
        else:
            self._skips = 0
            scaler.step(self._optimizer)
            self._ema.update(module, progress.step)
            progress.count(found)
        scaler.update()  # halves the scale after an overflow, and doubles the scale after many steps without

        progress.step += 1
        with self._stop.held():
            shown = sum(term for name, term in found.items() if name not in self._setup.logged_only)
            self._callbacks.on_step(progress.step, self._recipe.run.steps, shown)
        return bool(stopped)

    def _skip(self, terms: Mapping[str, float]) -> None:
        """Count a skipped step. Raises DscloraError, with the terms that are not finite, after too many in a row."""
        self._skips += 1
        self._progress.skipped += 1
        self._last_skipped = terms
        if self._skips > self._recipe.run.most_skips:
            steps = f"{self._skips} steps in a row, up to step {self._progress.step + 1}"
            raise self._not_finite(f"loss or gradient was not finite in {steps}")

    def _not_finite(self, problem: str) -> DscloraError:
        """Return an error whose message and hint name the terms of the last skipped step that are not finite."""
        terms = self._last_skipped
        if not terms:  # a run that was finished by an earlier process
            return DscloraError(problem, "start a new run with a lower --learning-rate, or with --amp off")
        wrong = [name for name, value in terms.items() if not math.isfinite(value)]
        finite = [name for name in terms if name not in wrong]
        flags = weight_flags(
            wrong if wrong and finite else [max(terms, key=lambda name: abs(terms[name]))], self._recipe
        )
        weights = f" a lower {' or '.join(flags)}," if finite and flags else ""
        hint = f"start a new run with a lower --learning-rate,{weights} or with --amp off"
        if wrong and finite:  # weights that grow without limit spoil all terms
            hint = f"look at how {', '.join(wrong)} is computed, or {hint}"
        which = f"{', '.join(wrong) or 'the gradient'}; finite: {', '.join(finite) or 'nothing'}"
        return DscloraError(f"{problem}; in the last step {which}", hint)

    def _score(self) -> None:
        """Score the averaged weights on the held-out pictures, save the weights, and write a line of the log."""
        progress = self._progress
        if self._group.is_first:
            started = time.monotonic()
            self._samples = self._validate()
            progress.seconds += progress.worked + time.monotonic() - started
            score = self._mean_score(mean_psnr(self._samples))
            best = self._has_trained and (progress.best is None or score.psnr_y > progress.best)
            if self._has_trained:
                self._save_weights(LAST_FILE, score.psnr_y)
            if best:
                progress.best, progress.best_step = score.psnr_y, progress.step
                self._save_weights(self._setup.file_name, score.psnr_y)
            self._run_dir.log(vars(score))
            with self._stop.held():
                self._callbacks.on_score(score, best)
        # The sums for the next line of the log start at zero.
        progress.terms, progress.counted, progress.worked, progress.waited = {}, 0, 0.0, 0.0

    def _validate(self) -> list[Sample]:
        """Upscale and score the held-out pictures. Raises DscloraError where the weights have grown without limit."""
        try:
            return validate(self._setup.to_network(self._ema.module), self._held_out, self._group.device)
        except NotFinite as error:
            message = f"the training diverged: after {self._progress.step} steps the network gives NaN or infinity"
            raise DscloraError(message, "start a new run with a lower --learning-rate") from error

    def _mean_score(self, psnr_y: float) -> Score:
        """Return the line of the log for the steps since the previous line."""
        progress, counted = self._progress, max(1, self._progress.counted)
        means = {name: total / counted for name, total in progress.terms.items()}
        terms = {name: mean for name, mean in means.items() if name not in self._setup.logged_only}
        return Score(
            step=progress.step,
            loss=sum(terms.values()) if progress.counted else None,
            terms=terms,
            facts={name: mean for name, mean in means.items() if name not in terms},
            psnr_y=psnr_y,
            rate=rate_at(self._recipe.optimiser, progress.step - 1, self._recipe.run.steps),
            images_per_second=counted * self._recipe.data.batch / progress.worked,
            waiting=progress.waited / progress.worked,
            seconds=progress.seconds,
        )

    def _save_weights(self, name: str, psnr_y: float) -> None:
        """Write the averaged weights to a file of the run folder, with their origin as JSON."""
        origin = {
            "recipe": recipe_digest(self._recipe),
            "data": self._train_set.digest,
            "seed": self._recipe.run.seed,
            "step": self._progress.step,
            "held_out_psnr_y": psnr_y,
            "torch": torch.__version__,
        }
        self._setup.save(self._ema.module, self._run_dir.path / name, json.dumps(origin))
        self._is_kept = True

    def _checkpoint(self) -> None:
        """Write a checkpoint, and draw the plot and the samples of the last score."""
        if self._group.is_first:
            was_kept, self._is_kept = self._is_kept, True  # for the next step of an error: --resume
            self._state.save(self._run_dir.state)
            self._is_kept = was_kept or self._has_trained
            if self._samples:
                self._run_dir.draw(self._samples)
                self._samples = []
        self._saved = time.monotonic()

    @property
    def _has_trained(self) -> bool:
        """Return whether any step has changed the weights."""
        return self._progress.step > self._progress.skipped

    def _finish(self) -> TrainResult:
        """Write the last checkpoint, and return the outcome. Raises DscloraError where every step was skipped."""
        progress = self._progress
        if not self._has_trained:
            # Without a checkpoint: --resume takes the steps again, perhaps with a loss that was repaired.
            steps = f"all {progress.step} steps" if progress.step > 1 else "the only step"
            raise self._not_finite(f"nothing was trained: loss or gradient was not finite in {steps}")
        self._checkpoint()
        file = self._run_dir.path / self._setup.file_name
        # Of a run that resumes, somebody may have moved the file.
        kept = progress.best is not None and progress.best_step > 0 and is_file(file)
        return TrainResult(
            run=self._run_dir.path,
            file=file if kept else None,
            steps=progress.step,
            best_step=progress.best_step,
            best_psnr_y=progress.best or 0.0,
            floor_psnr_y=progress.floor,
            skipped=progress.skipped,
            seconds=progress.seconds,
            reached_psnr_y=max((line["psnr_y"] for line in self._run_dir.lines()), default=None),
        )


_OWN_FLAGS = {"rec": "--rec", "ts": "--ts", "spectrum": "--spectrum", "ad": "--ad", "fft": "--fft"}
"""Options for the weights of terms that every method may have; all other terms are those of a single method."""


def weight_flags(terms: Iterable[str], recipe: Recipe) -> list[str]:
    """Return the options that set the weights of terms of the loss, each once; `pixel` has no weight."""
    method = "--feature-weight" if recipe.distill and recipe.distill.method != "dsclora" else ""
    flags = (_OWN_FLAGS.get(name, "" if name == "pixel" else method) for name in terms)
    return list(dict.fromkeys(filter(None, flags)))


class TrainingStop(StopRequest):
    """A request to stop, with a note for the user."""

    _NOTE = "stopping after this step; a second Ctrl-C stops at once, and loses the steps since the last checkpoint"

    def __init__(self, callbacks: Callbacks) -> None:
        super().__init__()
        self._callbacks, self._is_held = callbacks, False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold back the note while a callback runs, because a signal may interrupt the callback while it prints."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self.count:
            self._callbacks.note_once(self._NOTE)

    def on_request(self) -> None:
        """Report the note at once, because the step in progress may take a minute; stop at the second signal."""
        if self.count > 1:
            raise KeyboardInterrupt
        if not self._is_held:
            self._callbacks.note_once(self._NOTE)
