"""Progress bars, messages and summary of `dsclora upscale`. Imported only by a command that upscales."""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from dsclora_cli.cli import console
from dsclora_cli.errors import DscloraError, ExitCode, escape_control, is_debugging, list_some
from dsclora_cli.stop_request import StopRequest
from dsclora_cli.upscaling.types import FileResult, FoundInputs, InputFile, UpscaleCallbacks

if TYPE_CHECKING:
    from rich.progress import TaskID

    from dsclora_cli.upscaling.dry_run import PlannedFile

_ELSEWHERE = "being upscaled by another process"
_SUMMARY = (
    "done",
    "already done",
    "large enough",
    _ELSEWHERE,
    "kept",
    "failed",
    "cut short",
    "not started",
    "left out",
)
"""Words of the summary, in order."""

FIRST_RESULTS = 3
"""Results that the view keeps, for `--compare-page`."""

_FAILURES = 1000
"""Pictures that failed and are named at the end."""


class UpscaleView(UpscaleCallbacks):
    """Context manager for showing a run: bars on a terminal, plain lines elsewhere, a summary at the end.

    Args:
        json: whether results are printed on stdout in JSON.
        quiet: whether only failures and results that are kept are shown.
        verbose: whether skipped pictures and details are shown.
        endless: whether the run has no end of its own, as a watch: failures are shown at once.
    """

    def __init__(self, json: bool, quiet: bool, verbose: bool, endless: bool = False) -> None:
        self._json, self._quiet, self._verbose, self._endless = json, quiet, verbose, endless
        self._console = console.stderr()
        self._bars = _Bars(self._console) if self._console.is_terminal and not quiet else None
        # Counts, and few results: a run on a cluster has millions.
        self._counts: Counter[str] = Counter()  # results by the words of the summary
        self._failures: list[FileResult] = []
        self._failed: set[str] = set()  # pictures of an endless run whose last result is a failure
        self.done: list[FileResult] = []
        """The first results that this run made, in the order in which they finished, at most `FIRST_RESULTS`."""
        self._stop = _RunStop(hides_cursor=self._bars is not None and not self._console.is_dumb_terminal)
        self._expected = 0  # inputs of the run
        self._kinds: Counter[str] = Counter()  # of the files that are left out
        self._started = perf_counter()

    @property
    def exit_code(self) -> int:
        """Return the exit code of the program, unless an exception ended the run."""
        return ExitCode.SOME_FAILED if self._counts["failed"] else ExitCode.DONE

    def __enter__(self) -> UpscaleView:
        """Return the view."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show failures and the summary. The caller shows an error of the whole run."""
        if self._bars:
            self._bars.stop()
        # Failures come last, where they are not overlooked.
        for result in self._failures:
            self._show_failure(result)
        if not self._endless and (more := self._counts["failed"] - len(self._failures)):
            self._console.print(Text.assemble(("failed: ", "bold red"), f"{more} more; --json names each"))
        if isinstance(error, KeyboardInterrupt):
            console.show_interrupt(error, self._summary() or "nothing was done yet")
        elif not self._quiet and kind is None:
            self._console.print(Text(self._closing_line()))

    def on_inputs(self, found: FoundInputs) -> None:
        """Set the length of the bar for the whole run, and show the files that are left out, a line for each reason."""
        self._expected += len(found.inputs)
        self._kinds.update(each.kind for each in found.left_out)
        groups: dict[str, list[str]] = {}
        for each in found.left_out:
            # With `verbose`, every file has a line of its own.
            if not each.expected and not self._verbose:
                groups.setdefault(each.reason, []).append(each.name)
        for reason, names in groups.items():
            self._say("left out", f"{list_some(names, 1)}: {reason}", "yellow")
        if self._bars:
            self._bars.expect(self._expected)

    def on_listed(self, count: int, is_complete: bool) -> None:
        """Set the length of the bar to the inputs listed so far, and show the bar before the first picture."""
        self._expected = count
        if self._bars:
            self._bars.expect(count, is_complete)
            self._bars.begin()

    def on_note(self, note: str) -> None:
        """Show a note."""
        self._say("note", note, "cyan")

    def on_bug(self, file: InputFile, error: Exception) -> None:  # noqa: ARG002
        """Show the traceback if the user asked for tracebacks."""
        if is_debugging():
            self._console.print(Text("".join(traceback.format_exception(error))))

    def stop_requests(self) -> int:
        """Return the number of signals to stop; asked by a run that has begun."""
        self._stop.is_awaited = True
        return self._stop.count

    def on_start(self, file: InputFile) -> None:
        """Add a bar for the picture."""
        if self._bars:
            self._bars.start(file.name)

    def on_progress(self, file: InputFile, share: float) -> None:
        """Move the bars."""
        if self._bars:
            self._bars.move(file.name, share)

    def show_all(self, results: Generator[FileResult, None, None]) -> None:
        """Show the results of `upscale_files` while they come; Ctrl-C never cuts between a result and its line."""
        try:
            with self._stop:
                for result in results:
                    self.show(result)
        except KeyboardInterrupt as interrupt:
            # Ctrl-C while a result was being shown: the batch must still stop, and yield the results it has.
            self.show(results.throw(interrupt))
            for result in results:
                self.show(result)

    def show(self, result: FileResult) -> None:
        """Show a result in a line, and with `json` in a JSON object on stdout."""
        self._count(result)
        if self._bars and result.status not in ("left-out", "not-reached"):
            self._bars.done(result)
        if self._json:
            self._show_json(result)
        if result.status == "left-out":
            if self._verbose:
                self._say("left out", f"{result.input}: {'; '.join(result.warnings)}", "yellow")
            return
        if self._quiet or result.status == "failed":
            if result.status == "kept":  # the result of this run is not there
                self._show_warnings(result)
            return
        expected = result.status == "skipped" and _word_of_skipped(result) != _ELSEWHERE
        if (expected or result.status == "not-reached") and not self._verbose:
            return
        if result.status == "done":
            self._console.print(Text(escape_control(_done_line(result, self._verbose))))
        else:
            self._console.print(Text(escape_control(f"{result.status}: {result.input}")))
        self._show_warnings(result)

    def _show_warnings(self, result: FileResult) -> None:
        for warning in result.warnings:
            # A note of the whole run is also a warning of each picture; once is enough on the screen.
            if not self.was_noted(warning):
                text = escape_control(f"{result.input}: {warning}")
                self._console.print(Text.assemble(("warning: ", "yellow"), text))

    def _count(self, result: FileResult) -> None:
        words = {"interrupted": "cut short", "left-out": "left out", "not-reached": "not started"}
        word = _word_of_skipped(result) if result.status == "skipped" else words.get(result.status, result.status)
        self._counts[word] += 1
        if self._endless and result.status in {"done", "skipped", "kept", "failed"}:
            self._replace_failure(result)
        if result.error is not None and self._endless:
            self._show_failure(result)
        elif result.error is not None and len(self._failures) < _FAILURES:
            self._failures.append(result)
        if result.status == "done" and len(self.done) < FIRST_RESULTS:
            self.done.append(result)

    def _replace_failure(self, result: FileResult) -> None:
        """Let a result of a picture count in place of its earlier failure: the picture may have been half written."""
        if result.input in self._failed:
            self._counts["failed"] -= 1
            self._expected -= 1
            self._failed.remove(result.input)
        if result.status == "failed":
            self._failed.add(result.input)

    def _show_failure(self, result: FileResult) -> None:
        assert result.error is not None
        text = console.failure_line(result.input, result.error)
        self._console.print(Text.assemble(("failed: ", "bold red"), escape_control(text)))

    def _show_json(self, result: FileResult) -> None:
        try:
            console.show_json(result)
        except DscloraError as error:
            # The pictures are worth more than the report about the pictures.
            self._json = False
            self._console.print(Text(f"warning: {error.message}: no more results are reported there", "yellow"))

    def _say(self, label: str, text: str, style: str) -> None:
        if not self._quiet:
            self._console.print(Text.assemble((f"{label}: ", style), escape_control(text)))

    def _summary(self) -> str:
        """Return the counts of the run, such as "3 done, 1 failed"; empty where no picture was seen."""
        counts = self._counts.copy()
        # The numbers add up to the files that were seen, also where an interrupt has ended the results early.
        counts["not started"] += max(0, self._expected - sum(counts.values()) + counts["left out"])
        counts["left out"] = max(counts["left out"], self._kinds.total())
        kinds = ", ".join(f"{kind}: {count}" for kind, count in self._kinds.items())
        return ", ".join(
            f"{counts[word]} {word}" + f" ({kinds})" * (word == "left out") for word in _SUMMARY if counts[word]
        )

    def _closing_line(self) -> str:
        """Return the line about a whole run."""
        summary = self._summary()
        if not self._counts["done"] and not self._counts["failed"]:
            return f"nothing to do: {summary or 'no pictures'}"
        return f"{summary} in {console.format_seconds(perf_counter() - self._started)}"


def _word_of_skipped(result: FileResult) -> str:
    # Only a picture that another process upscales has a planned size and no file.
    unfinished = _ELSEWHERE if result.output_size else "large enough"
    return "already done" if result.output else unfinished


def _done_line(result: FileResult, verbose: bool) -> str:
    assert result.input_size is not None
    assert result.output_size is not None
    seconds = result.seconds
    total = console.format_seconds(seconds.decode + seconds.network + seconds.encode)
    line = f"{result.input} -> {result.output}  "
    line += f"{console.format_sides(result.input_size)} -> {console.format_sides(result.output_size)}  {total}"
    if verbose:
        tile = f"tiles of {result.tile}" if result.tile else "whole"
        stages = f"decode {seconds.decode:.2f} s, network {seconds.network:.2f} s, encode {seconds.encode:.2f} s"
        model = model_with_reason(result)
        faithful = "" if result.faithfulness is None else f"; faithfulness {result.faithfulness:.2f} dB"
        line += f"  ({model} on {result.device} by {result.engine}, {result.dtype}, {tile}; {stages}{faithful})"
    return line


def model_with_reason(picture: PlannedFile | FileResult) -> str:
    """Return the model of a picture, and the reason why `auto` selected the model."""
    return f"{picture.model} ({picture.choice})" if picture.choice else str(picture.model)


class _RunStop(StopRequest):
    """Requests to stop a run: the first stops, the second gives up, and the third ends the process."""

    is_awaited = False
    """Whether the run looks for requests."""

    def __init__(self, hides_cursor: bool) -> None:
        super().__init__()
        self._hides_cursor = hides_cursor

    def on_request(self) -> None:
        """Interrupt what may take minutes without a result, such as joining a cluster, and what does not give up."""
        if self.count > 2:
            # Progress bars hide the cursor of the terminal. Not through rich: another thread may hold its lock.
            with suppress(OSError, ValueError):  # a closed stderr
                shows = b"\x1b[?25h\n" if self._hides_cursor else b""
                os.write(sys.stderr.fileno(), shows + b"interrupted: ended at once\n")
            os._exit(ExitCode.INTERRUPTED)
        if not self.is_awaited:
            raise KeyboardInterrupt


class _Bars:
    """A bar for each picture that the network works on, and a bar for the whole run."""

    def __init__(self, stderr: Console) -> None:
        from rich.progress import BarColumn, Progress, TimeRemainingColumn

        self._progress = Progress(
            console.text_column("{task.description}"),
            BarColumn(),
            console.text_column("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=stderr,
            transient=True,
        )
        self._all: TaskID = self._progress.add_task("all", total=None, state="")
        self._pictures: dict[str, tuple[TaskID, float]] = {}  # bar and share of each picture that has a bar
        self._expected = 0
        self._is_complete = True  # False while a cluster still lists inputs
        self._finished = 0
        self._megapixels = 0.0
        self._started = 0.0

    def expect(self, count: int, is_complete: bool = True) -> None:
        self._expected, self._is_complete = count, is_complete
        self._progress.update(self._all, total=count if is_complete else None)

    def begin(self) -> None:
        # The bars appear with the first picture: earlier, they would cross the progress bar of a download.
        if not self._progress.live.is_started:
            self._started = perf_counter()
            self._progress.start()

    def start(self, name: str) -> None:
        self.begin()
        self._remove(name)
        self._pictures[name] = self._progress.add_task(name, total=1.0, state=""), 0.0

    def move(self, name: str, share: float) -> None:
        # The last progress of a picture that failed comes after the result.
        if name not in self._pictures:
            return
        task, _ = self._pictures[name]
        self._pictures[name] = task, share
        self._progress.update(task, completed=share, state=f"{share:.0%}", visible=share < 1)
        # Finished pictures, and the shares of started pictures; never more than all inputs.
        begun = self._finished + sum(share for _, share in self._pictures.values())
        self._progress.update(self._all, completed=min(begun, self._expected))

    def _remove(self, name: str) -> None:
        if name in self._pictures:
            self._progress.remove_task(self._pictures.pop(name)[0])

    def done(self, result: FileResult) -> None:
        self._remove(result.input)
        self._finished += 1
        # Megapixels of results a second, over all devices: the speed that users compare.
        if result.status == "done" and result.output_size:
            width, height = result.output_size
            self._megapixels += width * height * result.frames / 1e6
        rate = self._megapixels / max(perf_counter() - self._started, 1e-3)
        state = f"{self._finished}/{self._expected}{'' if self._is_complete else '+'}  {rate:.1f} MP/s"
        self._progress.update(self._all, completed=self._finished, state=state)

    def stop(self) -> None:
        self._progress.stop()
