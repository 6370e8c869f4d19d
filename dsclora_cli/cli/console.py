"""What people and scripts see: the only place that prints. Data goes to stdout, sentences to stderr."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from dsclora_cli.errors import DscloraError, ErrorCode, ErrorInfo, ExitCode, UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.table import Table

    from dsclora_cli.upscaling.dry_run import PlannedFile
    from dsclora_cli.upscaling.types import FileResult
    from dsclora_cli.weights.listing import ModelRow

JSON_VERSION = 1
"""Version of the JSON output: raised when a key or an error code goes or changes its meaning, not when one is added."""

_UNLIMITED = 10_000
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def err() -> Console:
    """Stderr as it is now. Lines are never wrapped, so that they can be searched for."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def hush_downloads() -> None:
    """Keep the Hub's client, which has bars of its own, from showing them."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@contextmanager
def downloading(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal's stderr for as long as a file is downloaded, moved by what is yielded."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = err()
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def show(text: str) -> None:
    """A line of data on stdout."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show_json(result: DataclassInstance) -> None:
    """Write a frozen dataclass to stdout as one line of JSON: the version, and then the fields as keys."""
    show(json.dumps(_plain({"version": JSON_VERSION, **asdict(result)}), allow_nan=False))


def show_json_error(error: ErrorInfo) -> None:
    """Write the error that ends a command to stdout as one line of JSON."""
    with suppress(BrokenPipeError):  # the reader of stdout may be gone, and may be the reason for the error
        show(json.dumps({"version": JSON_VERSION, "error": asdict(error)}))


def _plain(value: object) -> object:
    """Return a value that JSON can hold: paths and non-finite numbers become strings ("inf", "nan")."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    not_finite = isinstance(value, float) and not math.isfinite(value)
    return str(value) if not_finite or isinstance(value, Path) else value


def show_table(table: Table) -> None:
    """A table on stdout, as wide as it needs to be: on a narrow terminal lines wrap, but no number is cut."""
    Console(highlight=False, markup=False, width=_UNLIMITED).print(table)


def put(target: str, text: str) -> None:
    """Write a text to a file, or to stdout for "-". Raises UsageError where the file cannot be written."""
    if target == "-":
        show(text.rstrip("\n"))
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}", "choose another file, or - for stdout") from error


def say(label: str, text: str, style: str = "") -> None:
    """A labelled sentence on stderr, such as "error: ..."."""
    err().print(Text.assemble((f"{label}: ", style), text))


def show_error(error: BaseException, as_json: bool, traceback: bool = False) -> int:
    """Show what ended a command, and return the exit code.

    Args:
        error: The exception that ended the command.
        as_json: Write the error to stdout as a JSON object as well.
        traceback: Write the traceback to stderr first.
    """
    info, exit_code = _described(error, traceback)
    if traceback:
        err().print_exception()
    if info.code is not ErrorCode.INTERRUPTED:  # whoever pressed Ctrl-C needs no message
        say("error", str(info), "bold red")
    if as_json:
        show_json_error(info)
    return exit_code


def _described(error: BaseException, traceback: bool) -> tuple[ErrorInfo, ExitCode]:
    if isinstance(error, DscloraError):
        return error.info, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ErrorInfo(ErrorCode.INTERRUPTED, "interrupted by Ctrl-C or SIGTERM"), ExitCode.INTERRUPTED
    lines = str(error).splitlines() or [""]
    hint = "" if traceback else "run again with DSCLORA_DEBUG=1 and report what it shows"
    text = f"this is a bug in dsclora: {type(error).__name__}: {lines[0]}"
    return ErrorInfo(ErrorCode.BUG, text, hint), ExitCode.SOME_FAILED


def show_models(rows: Iterable[ModelRow], as_json: bool) -> None:
    """The catalogue as a table, or as one JSON object a line."""
    from rich.table import Table

    if as_json:
        for row in rows:
            show_json(row)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("name", "scale", "arch", "size", "where", "auto", "licence"):
        table.add_column(column, no_wrap=column != "where")
    for row in rows:
        rank = "" if row.auto is None else f"{row.auto}."
        auto = rank if row.photo is None else f"JPEG < {row.photo:g}"
        where = row.place if row.base is None else f"{row.place}, over {row.base}"
        table.add_row(
            row.name, f"x{row.scale}", row.arch, amount(row.size) if row.size else "", where, auto, row.licence
        )
    Console(highlight=False, markup=False).print(table)


def show_plans(plans: Iterable[PlannedFile], as_json: bool) -> int:
    """Each plan as it is made, and the sum; gives the exit code that the run itself would have so far."""
    failed, seconds, disk = 0, 0.0, 0
    for plan in plans:
        failed += plan.action == "fail"
        seconds += plan.seconds or 0
        disk += plan.disk_bytes or 0
        if as_json:
            show_json(plan)
        else:
            for line in _plan_lines(plan):
                show(line)
    if not as_json:
        show(f"in all about {duration(seconds)} and {amount(disk)} of disk; nothing was written")
    return ExitCode.SOME_FAILED if failed else ExitCode.DONE


def _plan_lines(plan: PlannedFile) -> Iterable[str]:
    if plan.error is not None:
        yield failure(plan.input, plan.error)
        return
    yield f"{plan.action} {plan.input}" + (f" -> {plan.output}" if plan.output else "")
    if plan.action == "upscale" and plan.input_size and plan.output_size:
        passes = " then ".join(f"x{scale}" for scale in plan.passes)
        frames = f", {plan.frames} frames" if plan.frames > 1 else ""
        with_model = f" with {chosen(plan)}" if plan.choice else ""
        yield f"  {sides(plan.input_size)} -> {sides(plan.output_size)}, {passes}{frames}{with_model}"
    if plan.tile is not None:
        tile = f"tiles of {plan.tile}" if plan.tile else "whole"
        memory, time = amount(plan.memory_bytes or 0), duration(plan.seconds or 0)
        yield f"  {tile}, {plan.tiles} in all; memory {memory}, about {time}, disk up to {amount(plan.disk_bytes or 0)}"
    for note in plan.notes:
        yield f"  {note}"


def failure(name: str, error: ErrorInfo) -> str:
    """Return one line on a picture that failed, which names the file once."""
    return str(error) if name in error.message else f"{name}: {error}"


def chosen(picture: PlannedFile | FileResult) -> str:
    """The model of a picture, and what about the picture made `auto` take it."""
    return f"{picture.model} ({picture.choice})" if picture.choice else str(picture.model)


def sides(size: tuple[int, int]) -> str:
    """(640, 480) -> 640x480."""
    return f"{size[0]}x{size[1]}"


def amount(size: float) -> str:
    """Bytes for people: 535137 -> "535 kB"."""
    unit = 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds for people: 3725 -> "1 h 2 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
