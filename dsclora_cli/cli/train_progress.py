"""How a training run looks: a bar on a terminal, a line for each score, and at the end what was kept."""

from __future__ import annotations

import math
import os
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dsclora_cli.cli import console
from dsclora_cli.errors import ExitCode
from dsclora_cli.training.trainer import Score, TrainCallbacks, TrainResult

_SMOOTH = 0.98  # of the loss on the bar; the lines have means


class TrainView(TrainCallbacks):
    """A context manager that shows a run on stderr, and on stdout as JSON where asked; of several workers, the first's.

    `end` says what a run came to and gives the exit code.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self._mute = os.environ.get("RANK", "0") != "0"
        self._json, self._quiet = as_json and not self._mute, quiet or self._mute
        self._reached = -math.inf
        self._clock: _Clock | None = None
        stderr = console.err()
        self._bar = _Bar(stderr) if stderr.is_terminal and not self._quiet else None

    def __enter__(self) -> TrainView:
        """The view itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def on_note(self, note: str) -> None:
        """Print the sentence."""
        if not self._quiet:
            console.say("note", note, "cyan")

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        self._clock = self._clock or _Clock(step, steps)
        if self._bar:
            self._bar.move(step, steps, loss)

    def on_score(self, score: Score, best: bool) -> None:
        """One line, and one JSON object."""
        self._reached = max(self._reached, score.psnr_y)
        if self._json:
            console.show_json(score)
        if self._bar:
            self._bar.score(score)
        if not self._quiet and self._clock:
            console.err().print(
                f"{self._clock.at(score.step)}: {score_line(score, best)}{self._clock.left(score.step)}"
            )

    def end(self, result: TrainResult) -> int:
        """Say what was kept, by how much it is better and where it is; 1 where nothing was.

        Only the first worker has scored and knows; torchrun would end it if another left with 1.
        """
        if self._mute:
            return ExitCode.DONE
        if self._json:
            console.show_json(result)
        if result.skipped:
            self.note_once(f"{result.skipped} steps were skipped: their loss or gradient was not finite")
        if result.file is None:
            console.say("not kept", self._shortfall(result), "yellow")
            return ExitCode.SOME_FAILED
        if not self._quiet:
            console.say("kept", f"{result.file}, {_merit(result)}", "green")
        return ExitCode.DONE

    def _shortfall(self, result: TrainResult) -> str:
        if result.floor_psnr_y is None:
            return "nothing was scored"
        floor = f"no step was better than the base's {result.floor_psnr_y:.3f} dB on the held-out pictures"
        if self._reached == -math.inf:
            return floor
        return f"{floor}; the best was {result.floor_psnr_y - self._reached:.4f} dB below"


def score_line(score: Score, best: bool) -> str:
    """A score for people, with the terms of the loss where there are several, and facts, which are shares."""
    terms = ", ".join(f"{name} {value:.5f}" for name, value in score.terms.items())
    facts = "".join(f", {name} {value:.0%}" for name, value in score.facts.items())
    loss = f"loss {score.loss:.5f}" + (f" ({terms})" if len(score.terms) > 1 else "") + facts
    psnr = f"PSNR-Y {score.psnr_y:.3f} dB" + (" (best)" if best else "")
    return f"{loss}, {psnr}, {_pace(score)} for data"


def _pace(score: Score) -> str:
    return f"{score.images_per_second:.3g} images/s, {score.waiting:.0%} waiting"


def _merit(result: TrainResult) -> str:
    when = f"step {result.best_step} of {result.steps}, {console.duration(result.seconds)}"
    score = f"PSNR-Y {result.best_psnr_y:.3f} dB on the held-out pictures"
    if result.floor_psnr_y is not None:
        score += f", {result.best_psnr_y - result.floor_psnr_y:.4f} dB above the base"
    return f"{score} ({when})"


class _Clock:
    """How long the steps that remain will take, as long as those since the first that was heard of."""

    def __init__(self, step: int, steps: int) -> None:
        self._first, self._steps, self._since = step, steps, monotonic()

    def at(self, step: int) -> str:
        return f"step {step} of {self._steps}"

    def left(self, step: int) -> str:
        if step in {self._first, self._steps}:
            return ""
        seconds = (monotonic() - self._since) / (step - self._first) * (self._steps - step)
        return f", {console.duration(seconds)} to go"


class _Bar:
    """Steps, the smoothed loss, the last score and the pace, and the time to go."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        pace = TextColumn("{task.fields[pace]}", markup=False)
        self._progress = Progress(
            *columns, pace, TimeRemainingColumn(), console=console, transient=True, refresh_per_second=4
        )
        self._task = self._progress.add_task("", total=None, pace="")
        self._loss, self._psnr = math.nan, ""

    def move(self, step: int, steps: int, loss: float) -> None:
        """The bar appears with the first step, so that it does not cross the progress of a download."""
        if not self._progress.live.is_started:
            self._progress.start()
        if math.isfinite(loss):
            self._loss = loss if math.isnan(self._loss) else _SMOOTH * self._loss + (1 - _SMOOTH) * loss
        text = f"loss {self._loss:.5f}{self._psnr}"
        self._progress.update(self._task, description=text, completed=step, total=steps)

    def score(self, score: Score) -> None:
        self._psnr = f"  PSNR-Y {score.psnr_y:.3f}"
        self._progress.update(self._task, pace=_pace(score))

    def stop(self) -> None:
        self._progress.stop()
