"""Progress bar and messages of `eval`."""

from __future__ import annotations

from types import TracebackType

from dsclora_cli.cli import console
from dsclora_cli.evaluation.report import EvalCallbacks


class EvalProgress(EvalCallbacks):
    """Context manager that shows a progress bar on a terminal, and notes on stderr."""

    def __init__(self, quiet: bool) -> None:
        # Imported here, so that `--help` does not load rich's progress bars.
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        self._quiet = quiet
        self._images = 0
        self._done = -1  # the first `on_image` comes before any image is scored
        columns = (console.text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        stderr = console.stderr()
        self._bar = Progress(*columns, console=stderr, transient=True, disable=quiet or not stderr.is_terminal)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> EvalProgress:
        """Return the object itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar; after Ctrl-C print how many images are done, also where only errors are shown."""
        self._bar.stop()
        if isinstance(error, KeyboardInterrupt) and self._images:
            done = f"{max(self._done, 0)} of {self._images} images"
            console.show_interrupt(error, f"{done} are scored and kept; the same command resumes from there")

    def on_unpack(self, name: str, done: int, total: int) -> None:
        """Show megabytes that are unpacked."""
        # The bar starts here and not earlier: the download before has a bar of the Hub client.
        self._bar.start()
        self._bar.update(self._task, description=f"unpacking {name}, MB", completed=done // 10**6, total=total // 10**6)
        if done == total:
            self._bar.stop()

    def on_sets(self, images: int) -> None:
        """Count images from now on."""
        self._images = images
        self._bar.reset(self._task, total=images)
        self._bar.start()

    def on_image(self, benchmark: str, image: str) -> None:
        """Show the image; all images before are finished."""
        self._done += 1
        self._bar.update(self._task, description=f"{benchmark} {image}", completed=self._done)

    def on_cost(self) -> None:
        """Show that time and memory are measured."""
        self._done = self._images
        self._bar.update(self._task, description="measuring time and memory", completed=self._done)

    def on_note(self, note: str) -> None:
        """Print a note on stderr."""
        if not self._quiet:
            console.print_labeled("note", note, "cyan")
