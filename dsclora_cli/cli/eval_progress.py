"""How an evaluation looks while it runs: a bar on a terminal, nothing elsewhere, and notes."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dsclora_cli.cli import console
from dsclora_cli.evaluation.evaluate import EvalObserver


class EvalView(EvalObserver):
    """A context manager that shows an evaluation on stderr; an interruption says what was kept."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._images = 0
        self._done = -1
        self._notes: set[str] = set()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        stderr = console.err()
        self._bar = Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> EvalView:
        """The view itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._bar.stop()
        if isinstance(error, KeyboardInterrupt) and self._images and not self._quiet:
            done = f"{max(self._done, 0)} of {self._images} images"
            console.say("interrupted", f"{done} are scored and kept; the same command goes on from there", "yellow")

    def on_unpack(self, name: str, done: int, total: int) -> None:
        """The bar counts megabytes; it appears only now, so that it does not cross that of the download."""
        self._bar.start()
        self._bar.update(self._task, description=f"unpacking {name}, MB", completed=done // 10**6, total=total // 10**6)
        if done == total:
            self._bar.stop()

    def on_sets(self, images: int) -> None:
        """From now on the bar counts images."""
        self._images = images
        self._bar.reset(self._task, total=images)
        self._bar.start()

    def on_image(self, benchmark: str, image: str) -> None:
        """Name what is being scored: the images before it are finished."""
        self._done += 1
        self._bar.update(self._task, description=f"{benchmark} {image}", completed=self._done)

    def on_cost(self) -> None:
        """The last that takes time."""
        self._done = self._images
        self._bar.update(self._task, description="measuring time and memory", completed=self._done)

    def on_note(self, note: str) -> None:
        """Said once."""
        if note not in self._notes and not self._quiet:
            console.say("note", note, "cyan")
        self._notes.add(note)
