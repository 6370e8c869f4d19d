"""Everything that the program prints, for people and for scripts; no other module prints.

Data goes to stdout: tables, or with `--json` an object a line, of version `JSON_VERSION`. Sentences go to stderr:
notes, warnings, and errors in the form "error: message (hint)". docs/exit-codes.md describes the contract for scripts.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from dsclora_cli.errors import (
    DscloraError,
    ErrorCode,
    ErrorInfo,
    ExitCode,
    OutputUnwritable,
    UsageError,
    bug_info,
    escape_control,
    next_step,
    system_info,
)
from dsclora_cli.paths import open_output

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.progress import TextColumn

JSON_VERSION = 1
"""Version of the JSON output: raised when a key or an error code goes or changes its meaning, not when one is added."""

_UNLIMITED = 10_000  # columns; more than any table has
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


class _Stderr(Console):
    """Console whose lines may get lost: on a full disk or a closed pipe, the work is worth more than the messages."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401
        """Print as Console does, plain texts with control characters as escapes, and pass over errors of the stream."""
        with suppress(OSError):
            super().print(
                *(Text(escape_control(each)) if isinstance(each, str) else each for each in objects), **options
            )

    def on_broken_pipe(self) -> None:
        """Do nothing; Console would end the program."""


def stderr() -> Console:
    """Return a console on the current stderr. Lines are never wrapped, so searches find whole messages."""
    return _Stderr(stderr=True, highlight=False, markup=False, soft_wrap=True)


def hide_download_bars() -> None:
    """Hide the progress bars of the Hub's client."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar during a download, on terminals only; yield a callback (bytes done, total or None)."""
    from rich.progress import BarColumn, DownloadColumn, Progress

    console = stderr()
    columns = text_column("{task.description}"), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None, visible=False)
        # The bar appears with the first bytes: a file that is already here shows none.
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def text_column(template: str) -> TextColumn:
    """Return a column of a progress bar for texts with names of files: no markup, and control characters as escapes."""
    from rich.progress import Task, TextColumn

    class _Plain(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(escape_control(template.format(task=task)), no_wrap=True)

    return _Plain(template)


def print_line(text: str) -> None:
    """Write a line for people to stdout, control characters as escapes.

    Raises:
        DscloraError: stdout takes no bytes, as on a full disk.
    """
    _write_line(escape_control(text))


def print_data(text: str) -> None:
    """Write lines for programs to stdout, every character as it is; a terminal gets control characters as escapes.

    Raises:
        DscloraError: stdout takes no bytes, as on a full disk.
    """
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    _write_line("\n".join(map(escape_control, text.split("\n"))) if is_terminal else text)


def _write_line(text: str) -> None:
    with stdout_errors():
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()  # scripts read a line as soon as a picture is finished


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Turn an OSError of stdout inside into a DscloraError that names stdout."""
    try:
        yield
    except BrokenPipeError:  # the reader has read enough, which is no error: see docs/exit-codes.md
        raise
    except OSError as error:
        if error.filename is not None:  # of a file
            raise
        raise DscloraError(f"stdout cannot be written ({error.strerror})", "write to another place") from error


def show_json(result: DataclassInstance) -> None:
    """Write a frozen dataclass to stdout in one line of JSON: the version, then the fields."""
    print_data(json.dumps(_plain({"version": JSON_VERSION, **asdict(result)}), allow_nan=False))


def show_json_error(error: ErrorInfo) -> None:
    """Write the final error of a command to stdout in one line of JSON."""
    with suppress(
        BrokenPipeError, DscloraError
    ):  # the reader of stdout may be gone, and may be the reason for the error
        print_data(json.dumps({"version": JSON_VERSION, "error": asdict(error)}))


def _plain(value: object) -> object:
    """Return a value for JSON: paths and non-finite numbers become strings ("inf", "nan")."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    not_finite = isinstance(value, float) and not math.isfinite(value)
    return str(value) if not_finite or isinstance(value, Path) else value


def show_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", others: Literal["left", "right"] = "left"
) -> None:
    """Write a table to stdout at full width: on a narrow terminal lines wrap, but no number is cut.

    Args:
        header: Headings of the columns.
        rows: Cells, which may be names of files: control characters are shown as escapes, and nothing is markup.
        title: Line above the table.
        others: Alignment of all columns but the first, which is aligned to the left.
    """
    from rich.table import Table

    shown = escape_control(title) or None
    table = Table(box=None, pad_edge=False, header_style="bold", title=shown, title_justify="left")
    for index, heading in enumerate(header):
        # No wrapping: scripts and eyes look for a row on one line.
        table.add_column(escape_control(heading), no_wrap=True, justify=others if index else "left")
    for row in rows:
        table.add_row(*map(escape_control, row))
    with stdout_errors():
        Console(highlight=False, markup=False, emoji=False, width=_UNLIMITED).print(table)


def show_columns(columns: Mapping[str, Sequence[str]], expendable: Sequence[str] = ()) -> None:
    """Write a table to stdout, columns by heading.

    A terminal that is too narrow loses the `expendable` columns in turn, until the table fits, and a note names the
    lost columns. A file or pipe gets all columns.
    """
    kept = dict(columns)
    width = stdout_width()
    for heading in expendable:
        if _table_width(kept) > width:
            del kept[heading]
    show_table(tuple(kept), zip(*kept.values(), strict=True))
    if lost := [heading for heading in columns if heading not in kept]:
        print_labeled("note", f"the terminal has no room for {', '.join(lost)}; --json shows everything", "cyan")


def stdout_width() -> int:
    """Return the columns of the terminal at stdout; a number larger than any table for a file or pipe."""
    return Console().width if sys.stdout is not None and sys.stdout.isatty() else _UNLIMITED


def _table_width(columns: Mapping[str, Sequence[str]]) -> int:
    """Return the columns of the terminal that a table takes, with two between cells."""
    shown = {heading: map(escape_control, cells) for heading, cells in columns.items()}
    return sum(2 + max(cell_len(text) for text in (heading, *cells)) for heading, cells in shown.items()) - 2


def show_fields(fields: Mapping[str, str]) -> None:
    """Write labels and values to stdout, a line each, with the values below one another; empty values are left out."""
    shown = {label: value for label, value in fields.items() if value}
    width = max(map(len, shown), default=0)
    for label, value in shown.items():
        print_line(f"{label:<{width}}  {value}".rstrip())


def ask(question: str) -> bool:
    """Return whether the user at the terminal answers yes; the end of the input counts as no."""
    stderr().print(f"{question} [y/N] ", end="")
    try:
        return input().strip().casefold() in {"y", "yes"}
    except EOFError:
        return False


def check_can_ask(as_json: bool) -> None:
    """Raise UsageError where no question can be asked: with `--json`, or where stdin is no terminal."""
    if as_json or not can_ask():
        reason = "--json is given" if as_json else "stdin is no terminal"
        raise UsageError(f"cannot ask for confirmation: {reason}", "add --yes, or --dry-run to look only")


def can_ask() -> bool:
    """Return whether a user is at the terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def check_stdout(kind: str, as_json: bool, is_written: bool, example: str) -> None:
    """Raise UsageError where stdout cannot take a picture or a video: JSON goes there, or a terminal shows the bytes.

    Args:
        kind: Word for the bytes.
        as_json: Whether JSON is written.
        is_written: Whether the bytes are written, and not only planned.
        example: Words for another way, behind "name a file with -o, or".
    """
    if as_json:
        raise UsageError(f"--json and the {kind} would both go to stdout", "name a file with -o")
    if is_written and sys.stdout.isatty():
        raise UsageError(f"a {kind} is not shown on a terminal", f"name a file with -o, or {example}")


def write_text(target: str, text: str) -> None:
    """Write a text to a file, or to stdout for "-". Raises OutputUnwritable."""
    if target == "-":
        print_data(text.rstrip("\n"))
        return
    try:
        with open_output(Path(target)) as file:
            file.write(text.encode())
    except OSError as error:
        message = f"{target} cannot be written ({error.strerror})"
        raise OutputUnwritable(message, next_step(error, "choose another file, or - for stdout")) from error


def print_labeled(label: str, text: str, style: str = "") -> None:
    """Write a labeled sentence to stderr, for example "note: ..."."""
    stderr().print(Text.assemble((f"{label}: ", style), escape_control(text)))


def show_error(error: BaseException, as_json: bool, traceback: bool = False) -> int:
    """Show the final error of a command, and return the exit code.

    Args:
        error: The exception that ended the command.
        as_json: Also write a JSON object to stdout.
        traceback: Write the traceback to stderr first.
    """
    info, exit_code = _described(error, traceback)
    if traceback:
        stderr().print_exception()
    if info.code is not ErrorCode.INTERRUPTED:
        print_labeled("error", str(info), "bold red")
    elif not _is_told(error):
        print_labeled("interrupted", "the command did not finish", "yellow")
    if as_json:
        show_json_error(info)
    return exit_code


def show_interrupt(error: KeyboardInterrupt, text: str) -> None:
    """Tell what an interrupted command leaves, in the one line about the interrupt: `show_error` adds no other line."""
    print_labeled("interrupted", text, "yellow")
    error.add_note(text)


def _is_told(error: BaseException | None) -> bool:
    """Return whether `show_interrupt` has shown a line for an exception, or for an exception that led to this one."""
    while error is not None and not hasattr(error, "__notes__"):
        error = error.__context__
    return error is not None


def _described(error: BaseException, traceback: bool) -> tuple[ErrorInfo, ExitCode]:
    if isinstance(error, DscloraError):
        return error.info, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ErrorInfo(ErrorCode.INTERRUPTED, "interrupted by Ctrl-C, SIGTERM or SIGHUP"), ExitCode.INTERRUPTED
    if isinstance(error, MemoryError):  # of Python or of NumPy, anywhere: no fault of the program
        hint = "close other programs, or raise the limit on memory of this process"
        return ErrorInfo(ErrorCode.OUT_OF_MEMORY, "there is not enough memory", hint), ExitCode.SOME_FAILED
    if info := system_info(error, ErrorCode.FAILED):
        return info, ExitCode.SOME_FAILED
    info = bug_info(error)
    return replace(info, hint="") if traceback else info, ExitCode.SOME_FAILED


def failure_line(name: str, error: ErrorInfo) -> str:
    """Return the line about a failed picture; the line names the file once."""
    return str(error) if name in error.message else f"{name}: {error}"


def format_sides(size: tuple[int, int]) -> str:
    """Return (640, 480) as "640x480"."""
    return f"{size[0]}x{size[1]}"


def format_bytes(size: float) -> str:
    """Return bytes for people: 535137 becomes "535 kB"; units are decimal."""
    unit = 0
    # From 999.5 on three digits would round to "1e+03".
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


def format_seconds(seconds: float) -> str:
    """Return seconds for people: 3725 becomes "1 h 2 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
