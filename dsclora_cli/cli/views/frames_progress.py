"""Progress and summary of `dsclora frames`. Imported only by a command that upscales."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from rich.progress import Progress

from dsclora_cli.cli import console
from dsclora_cli.upscaling.frames import FramesCallbacks, FramesResult


class FramesView(FramesCallbacks):
    """Context manager that shows the number of frames and the pace on stderr."""

    def __init__(self, quiet: bool, on_written: Callable[[], None]) -> None:
        """Prepare the view; `on_written` is called for each frame that is written."""
        self._quiet, self._on_written = quiet, on_written
        self._console = console.stderr()
        shown = self._console.is_terminal and not quiet
        self._progress = Progress(
            console.text_column("{task.fields[state]}"), console=self._console, transient=True, disable=not shown
        )
        self._task = self._progress.add_task("", state="")
        self._begin = 0.0

    def __enter__(self) -> FramesView:
        """Return the view."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line about the current frame."""
        self._progress.stop()

    def on_note(self, note: str) -> None:
        """Show a note."""
        if not self._quiet:
            console.print_labeled("note", note, "cyan")

    def on_frame(self, number: int) -> None:
        """Show the number of the frame, and the pace since the first frame."""
        self._on_written()
        now = perf_counter()
        # The first frame also opens the engine.
        self._begin = self._begin or now
        pace = f", {(number - 1) / (now - self._begin):.2f} frames/s" if number > 1 else ""
        self._progress.update(self._task, state=f"frame {number}{pace}")

    def show(self, result: FramesResult) -> None:
        """Show the summary in a line."""
        if not self._quiet:
            sides = f"{console.format_sides(result.input_size)} -> {console.format_sides(result.output_size)}"
            matrix = f", {result.matrix}" if result.matrix else ""
            pace = f"{console.format_seconds(result.seconds)}, {result.frames_per_second:.2f} frames/s"
            how = f"{result.model} on {result.device} by {result.engine}"
            self._console.print(f"{result.frames} frames, {sides} ({result.layout}{matrix})  {pace}  ({how})")
