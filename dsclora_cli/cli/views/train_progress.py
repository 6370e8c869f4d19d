"""Progress bar and messages of `train` and `distill`: the pictures, the steps, a line for each score, the outcome."""

from __future__ import annotations

import math
import os
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from dsclora_cli.cli import console
from dsclora_cli.errors import ExitCode
from dsclora_cli.paths import is_file
from dsclora_cli.training.trainer import Score, TrainCallbacks, TrainResult
from dsclora_cli.weights.finished import LAST_FILE

_SMOOTHING = 0.98  # of the loss on the bar; the lines of scores have means


class TrainView(TrainCallbacks):
    """A context manager that shows a training run on stderr, and on stdout as JSON where asked.

    Of several processes, only the first shows anything.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self._mute = os.environ.get("RANK", "0") != "0"  # torchrun numbers its processes in RANK
        self._json, self._quiet = as_json and not self._mute, quiet or self._mute
        self._clock: _Clock | None = None
        stderr = console.stderr()
        self._bar = _Bar(stderr) if stderr.is_terminal and not self._quiet else None

    def __enter__(self) -> TrainView:
        """Return the view."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._bar:
            self._bar.stop()

    def on_note(self, note: str) -> None:
        """Print the sentence."""
        if not self._quiet:
            console.print_labeled("note", note, "cyan")

    def on_picture(self, done: int, total: int) -> None:
        """Move the bar, which counts pictures until the steps begin."""
        if self._bar:
            self._bar.show_pictures(done, total)

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """Move the bar."""
        self._clock = self._clock or _Clock(step, steps)
        if self._bar:
            self._bar.show_step(step, steps, loss)

    def on_score(self, score: Score, best: bool) -> None:
        """Print a line for people, and a JSON object where asked."""
        if self._json:
            console.show_json(score)
        if self._bar:
            self._bar.show_score(score)
        if not self._quiet and self._clock:
            console.stderr().print(
                f"step {score.step} of {self._clock.steps}: {score_line(score, best)}{self._clock.left(score.step)}"
            )

    def end(self, result: TrainResult) -> int:
        """Print which weights were kept, how much better they are and where they lie, and return the exit code.

        The exit code is 1 where no weights were kept. Processes other than the first know no score and return 0,
        because torchrun would end all processes if any left with 1.
        """
        if self._mute:
            return ExitCode.DONE
        if self._json:
            console.show_json(result)
        if result.skipped:
            self.note_once(f"{result.skipped} steps were skipped because the loss or the gradient was not finite")
        if result.file is None:
            console.print_labeled("not kept", self._shortfall(result), "yellow")
            return ExitCode.SOME_FAILED
        if not self._quiet:
            score = f"PSNR-Y {result.best_psnr_y:.3f} dB on the held-out pictures"
            if result.floor_psnr_y is not None:
                score += f", {result.best_psnr_y - result.floor_psnr_y:.4f} dB above the base"
            when = f"step {result.best_step} of {result.steps}, {console.format_seconds(result.seconds)}"
            console.print_labeled("kept", f"{result.file}, {score} ({when})", "green")
        return ExitCode.DONE

    def _shortfall(self, result: TrainResult) -> str:
        """Return why no weights were kept."""
        if result.best_step:  # weights were kept in an earlier part of the run
            last = result.run / LAST_FILE
            hint = f"{last} holds the weights of the last score" if is_file(last) else "train again with another --out"
            return f"the best weights, of step {result.best_step}, are no longer in {result.run} ({hint})"
        if result.floor_psnr_y is None:
            return "nothing was scored"
        floor = f"no step was better than the base's {result.floor_psnr_y:.3f} dB on the held-out pictures"
        if result.reached_psnr_y is None:
            return floor
        return f"{floor}; the best was {result.floor_psnr_y - result.reached_psnr_y:.4f} dB below"


def score_line(score: Score, best: bool) -> str:
    """Return a score for people: the loss and its terms where there are several, shares, PSNR-Y and pace."""
    terms = ", ".join(f"{name} {value:.5f}" for name, value in score.terms.items())
    facts = "".join(f", {name} {value:.0%}" for name, value in score.facts.items())
    number = "unknown, as every step was skipped" if score.loss is None else f"{score.loss:.5f}"
    loss = f"loss {number}" + (f" ({terms})" if len(score.terms) > 1 else "") + facts
    psnr = f"PSNR-Y {score.psnr_y:.3f} dB" + (" (best)" if best else "")
    return f"{loss}, {psnr}, {_pace(score)} for data"


def _pace(score: Score) -> str:
    return f"{score.images_per_second:.3g} images/s, {score.waiting:.0%} waiting"


class _Clock:
    """Estimates the time to go from the steps since the first step of this process, which may have resumed."""

    def __init__(self, step: int, steps: int) -> None:
        self.steps = steps
        self._first, self._since = step, monotonic()

    def left(self, step: int) -> str:
        """Return the time to go as the end of a line; empty where nothing was measured or nothing remains."""
        if step in {self._first, self.steps}:
            return ""
        seconds = (monotonic() - self._since) / (step - self._first) * (self.steps - step)
        return f", {console.format_seconds(seconds)} to go"


class _Bar:
    """A bar on a terminal: pictures while they are decoded, then steps with the loss, the last score and the pace."""

    def __init__(self, stderr: Console) -> None:
        columns = (console.text_column("{task.description}"), BarColumn(), MofNCompleteColumn())
        pace = console.text_column("{task.fields[pace]}")
        self._progress = Progress(
            *columns, pace, TimeRemainingColumn(), console=stderr, transient=True, refresh_per_second=4
        )
        self._task = self._progress.add_task("", total=None, pace="")
        self._loss, self._psnr = math.nan, ""

    def show_pictures(self, done: int, total: int) -> None:
        # The bar appears with the first picture and goes with the last one, so that the bar never crosses the progress
        # of a download, which may come before a folder or set and between two of them.
        self._progress.start()  # does nothing while the bar is shown
        self._progress.update(self._task, description="reading pictures", completed=done, total=total)
        if done == total:
            self._progress.stop()

    def show_step(self, step: int, steps: int, loss: float) -> None:
        if not self._progress.live.is_started:
            self._progress.start()
            # The time to go is that of the steps, so forget the pace of the pictures.
            self._progress.reset(self._task)
        if math.isfinite(loss):
            self._loss = loss if math.isnan(self._loss) else _SMOOTHING * self._loss + (1 - _SMOOTHING) * loss
        text = f"loss {self._loss:.5f}{self._psnr}"
        self._progress.update(self._task, description=text, completed=step, total=steps)

    def show_score(self, score: Score) -> None:
        self._psnr = f"  PSNR-Y {score.psnr_y:.3f}"
        self._progress.update(self._task, pace=_pace(score))

    def stop(self) -> None:
        self._progress.stop()
