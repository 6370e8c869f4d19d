"""Tables of an evaluation report for the terminal, in Markdown, and in CSV."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsclora_cli.cli import console
from dsclora_cli.cli.options import parse_file
from dsclora_cli.errors import OutputUnwritable, UsageError, escape_control, next_step
from dsclora_cli.evaluation.report import EvalReport, RowScores, SetReport
from dsclora_cli.names import NIQE, metric_title
from dsclora_cli.paths import is_stream, is_taken, open_regular

if TYPE_CHECKING:
    from dsclora_cli.evaluation.statistics import Comparison

_CSV_COLUMNS = ("set", "row", "image")
_FIRST_LINES = {
    "CSV": re.compile(rf"{','.join(_CSV_COLUMNS)}(,.*)?"),
    "Markdown": re.compile(r"### .* x\d+.*, \d+ images?, \w+ protocol"),
}
"""First line of each kind of report, as `csv_text` and `markdown_text` write it."""


@dataclass(frozen=True)
class _Grid:
    """A table before formatting. The first column is aligned to the left, all others to the right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    notes: tuple[str, ...] = ()
    """Lines below the table."""


def check_targets(csv_target: str | None, markdown_target: str | None) -> None:
    """Raise UsageError for reports that share a file, that are named as folders, or that replace another file.

    An empty file, and an earlier report of the same kind, may be replaced.
    """
    targets = {"CSV": csv_target, "Markdown": markdown_target}
    named = {kind: parse_file(name) for kind, name in targets.items() if name not in {None, "-"}}
    files = {kind: path for kind, path in named.items() if not is_stream(path)}  # streams are written to, not replaced
    if len({os.path.realpath(path) for path in files.values()}) < len(files):
        raise UsageError(f"--csv and --markdown both name {csv_target}", "give each report a file of its own")
    for kind, path in files.items():
        if is_taken(path) and not _is_replaceable(path, _FIRST_LINES[kind]):
            message = f"{targets[kind]} exists, and is no {kind} report of dsclora eval"
            raise UsageError(message, "choose another file, or - for stdout")


def _is_replaceable(path: Path, first_line: re.Pattern[str]) -> bool:
    try:
        with open_regular(path) as file:
            line = file.readline(1 << 16)
    except OSError as error:
        message = f"{path} exists, and cannot be read ({error.strerror})"
        raise OutputUnwritable(message, next_step(error, "choose another file, or - for stdout")) from error
    return not line or first_line.fullmatch(line.decode("utf-8", "replace").rstrip()) is not None


def show_tables(report: EvalReport) -> None:
    """Print all tables of a report on stdout."""
    for grid in _grids(report):
        console.show_table(grid.header, grid.rows, grid.title, others="right")
        for note in grid.notes:
            console.print_line(note)
        console.print_line("")


def markdown_text(report: EvalReport) -> str:
    """Return all tables of a report in the Markdown of GitHub."""
    parts = []
    for grid in _grids(report):
        lines = [
            f"### {escape_control(grid.title)}",
            "",
            _line(grid.header),
            _line(("---", *["---:"] * (len(grid.header) - 1))),
            *map(_line, grid.rows),
        ]
        parts.append("\n".join([*lines, *(f"\n{escape_control(note)}" for note in grid.notes)]))
    return "\n\n".join(parts) + "\n"


def csv_text(report: EvalReport) -> str:
    """Return the scores in CSV, not rounded: a line for every set, row and image, a column for every metric."""
    text = io.StringIO()
    # "\n" on every system: `console.write_text` writes the bytes as they are, also on Windows.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_CSV_COLUMNS, *report.metrics))
    for benchmark in report.sets:
        for row in _rows(benchmark):
            for image, scores in row.images.items():
                # HR has scores of the metrics without a reference only.
                writer.writerow((benchmark.name, row.name, image, *(scores.get(name, "") for name in report.metrics)))
    return text.getvalue()


def _line(cells: tuple[str, ...]) -> str:
    # A file name may hold a bar, which would end a cell, or a line end, which would end a row.
    escaped = (escape_control(cell).replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _grids(report: EvalReport) -> Iterator[_Grid]:
    for benchmark in report.sets:
        yield _scores(benchmark, report)
        for metric in dict.fromkeys(each.metric for each in benchmark.comparisons):
            yield _comparisons(benchmark, metric)
        if any(row.claims for row in benchmark.rows):
            yield _claims(benchmark)
        if benchmark.worst:
            metric = metric_title(report.protocol.metrics[0])
            rows = tuple((each.row, each.image, f"{each.gain:+.2f}") for each in benchmark.worst)
            yield _Grid(f"{benchmark.name}: least gain over bicubic", ("model", "image", metric), rows)
    # Costs belong to models, not to sets: one table at the end.
    if any(row.cost for row in report.rows):
        yield _costs(report)


def _scores(benchmark: SetReport, report: EvalReport) -> _Grid:
    """Return the means of a set, with the facts below that a reader needs to judge the means."""
    protocol = report.protocol
    degraded = "" if report.jpeg is None else f" from JPEG of quality {report.jpeg}"
    images = f"{benchmark.images} image{'s' if benchmark.images > 1 else ''}"
    title = f"{benchmark.name} x{report.scale}{degraded}, {images}, {protocol.name} protocol"
    rows = tuple(
        (row.name, *(_number(row.mean[name], name) if name in row.mean else "" for name in report.metrics))
        for row in _rows(benchmark)
    )
    notes = [f"HR images: {benchmark.verdict}; border {protocol.border}"]
    if benchmark.warning:
        notes.append(f"warning: {benchmark.warning}")
    for row in _rows(benchmark):
        for metric, count in row.infinite.items():
            label, verb = metric_title(metric), "has" if count == 1 else "have"
            notes.append(f"{row.name}: {count} of {images} {verb} infinite {label}, not in the mean")
    header = ("model", *map(metric_title, report.metrics))
    return _Grid(title, header, rows, tuple(notes))


def _rows(benchmark: SetReport) -> tuple[RowScores, ...]:
    """Return the rows of a table of scores: the baseline, the models and, where it has scores, HR."""
    return (*benchmark.rows, *((benchmark.hr,) if benchmark.hr else ()))


def _comparisons(benchmark: SetReport, metric: str) -> _Grid:
    comparisons = [each for each in benchmark.comparisons if each.metric == metric]
    direction = " (lower is better)" if metric == NIQE else ""
    return _Grid(
        f"{benchmark.name}: {metric_title(metric)} against {comparisons[0].against}{direction}",
        ("model", "difference", "95 % interval", "better", "worse", "equal"),
        tuple((each.row, *_interval(each), str(each.wins), str(each.losses), str(each.ties)) for each in comparisons),
    )


def _interval(comparison: Comparison) -> tuple[str, str]:
    # Without a single finite difference there is no mean and no interval.
    if comparison.difference is None:
        return "-", "-"
    return f"{comparison.difference:+.4f}", f"{comparison.low:+.4f} to {comparison.high:+.4f}"


def _claims(benchmark: SetReport) -> _Grid:
    return _Grid(
        f"{benchmark.name}: measured and stated scores",
        ("model", "metric", "measured", "stated", "where", "difference", ""),
        tuple(
            (
                row.name,
                metric_title(claim.metric),
                _number(claim.measured, claim.metric),
                _number(claim.stated, claim.metric),
                claim.kind,
                _number(claim.difference, claim.metric, "+"),
                "DIFFERS" if claim.differs else "",
            )
            for row in benchmark.rows
            for claim in row.claims
        ),
    )


def _costs(report: EvalReport) -> _Grid:
    rows = tuple(
        (
            row.name,
            f"{row.cost.size.parameters / 1e6:.3f} M",
            f"{row.cost.size.multiply_adds / 1e9:.2f} G",
            f"{row.cost.size.activations / 1e6:.2f} M",
            str(row.cost.size.convolutions),
            f"{row.cost.image_ms:.1f}",
            f"{row.cost.megapixel_ms:.1f}",
            console.format_bytes(row.cost.peak_bytes),
        )
        for row in report.rows
        if row.cost
    )
    header = ("model", "parameters", "multiply-adds", "activations", "convs", "ms/image", "ms/MP", "memory")
    # A dict drops repeated devices and keeps the order of the rows.
    where = dict.fromkeys(f"{row.device}, {row.dtype}" for row in report.rows if row.cost)
    notes = (f"multiply-adds and activations at 256x256; time and memory on {'; '.join(where)}",)
    return _Grid("Cost", header, rows, notes)


def _number(value: float, metric: str, sign: str = "") -> str:
    """Format a score: 4 decimals for decibels, 5 for other metrics, most of which lie in [0, 1]."""
    decimals = 4 if metric.startswith("psnr") else 5
    # "z" turns a rounded -0.0 into 0.0.
    return f"{value:{sign}z.{decimals}f}"
