"""A finished evaluation as tables: for a terminal, as Markdown, and as CSV with a line for each image."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table

from dsclora_cli.cli import console
from dsclora_cli.evaluation.report import EvalReport, SetReport
from dsclora_cli.evaluation.statistics import Comparison

_TITLES = {"psnr_y": "PSNR-Y", "ssim_y": "SSIM-Y", "psnr_rgb": "PSNR-RGB", "ssim_rgb": "SSIM-RGB"}


@dataclass(frozen=True)
class _Grid:
    """A table without form: the first column is text, the others are aligned to the right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def show_tables(report: EvalReport) -> None:
    """All tables on stdout."""
    for grid in _grids(report):
        table = Table(box=None, pad_edge=False, header_style="bold", title=grid.title, title_justify="left")
        for index, column in enumerate(grid.header):
            table.add_column(column, no_wrap=True, justify="right" if index else "left")
        for row in grid.rows:
            table.add_row(*row)
        console.show_table(table)
        for note in grid.notes:
            console.show(note)
        console.show("")


def markdown_text(report: EvalReport) -> str:
    """All tables as GitHub's Markdown."""
    parts = []
    for grid in _grids(report):
        lines = [
            f"### {grid.title}",
            "",
            _line(grid.header),
            _line(("---", *["---:"] * (len(grid.header) - 1))),
            *map(_line, grid.rows),
        ]
        parts.append("\n".join([*lines, *(f"\n{note}" for note in grid.notes)]))
    return "\n\n".join(parts) + "\n"


def csv_text(report: EvalReport) -> str:
    """A line for each set, row and image, scores unrounded; a metric is a column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("set", "row", "image", *report.metrics))
    for benchmark in report.sets:
        for row in benchmark.rows:
            for image, scores in row.images.items():
                writer.writerow((benchmark.name, row.name, image, *(scores[metric] for metric in report.metrics)))
    return text.getvalue()


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _grids(report: EvalReport) -> Iterator[_Grid]:
    for benchmark in report.sets:
        yield _scores(benchmark, report)
        if benchmark.comparisons:
            yield _comparisons(benchmark)
        if any(row.claims for row in benchmark.rows):
            yield _claims(benchmark)
        if benchmark.worst:
            metric = _TITLES[report.protocol.metrics[0]]
            rows = tuple((each.row, each.image, f"{each.gain:+.2f}") for each in benchmark.worst)
            yield _Grid(f"{benchmark.name}: least gain over bicubic", ("model", "image", metric), rows)
    if any(row.cost for row in report.rows):
        yield _costs(report)


def _damage(report: EvalReport) -> str:
    return "" if report.jpeg is None else f" from JPEG of quality {report.jpeg}"


def _scores(benchmark: SetReport, report: EvalReport) -> _Grid:
    protocol = report.protocol
    title = f"{benchmark.name} x{report.scale}{_damage(report)}, {benchmark.images} images, {protocol.name} protocol"
    rows = tuple((row.name, *(_score(row.mean[metric], metric) for metric in report.metrics)) for row in benchmark.rows)
    notes = [f"HR images: {benchmark.verdict}; border {protocol.border}"]
    if benchmark.warning:
        notes.append(f"warning: {benchmark.warning}")
    for row in benchmark.rows:
        for metric, count in row.infinite.items():
            title = _TITLES.get(metric, metric)
            notes.append(f"{row.name}: {count} of {benchmark.images} images have infinite {title}, not in the mean")
    header = ("model", *(_TITLES.get(metric, metric) for metric in report.metrics))
    return _Grid(title, header, rows, tuple(notes))


def _comparisons(benchmark: SetReport) -> _Grid:
    first = benchmark.comparisons[0]
    return _Grid(
        f"{benchmark.name}: {_TITLES[first.metric]} against {first.against}",
        ("model", "difference", "95 % interval", "better", "worse", "equal"),
        tuple(
            (each.row, *_interval(each), str(each.wins), str(each.losses), str(each.ties))
            for each in benchmark.comparisons
        ),
    )


def _interval(comparison: Comparison) -> tuple[str, str]:
    if comparison.difference is None:
        return "-", "-"
    return f"{comparison.difference:+.4f}", f"{comparison.low:+.4f} to {comparison.high:+.4f}"


def _claims(benchmark: SetReport) -> _Grid:
    return _Grid(
        f"{benchmark.name}: measured beside stated scores",
        ("model", "metric", "measured", "stated", "where", "difference", ""),
        tuple(
            (
                row.name,
                _TITLES.get(claim.metric, claim.metric),
                _score(claim.measured, claim.metric),
                _score(claim.stated, claim.metric),
                claim.kind,
                _signed(claim.difference, claim.metric),
                "DIFFERS" if claim.differs else "",
            )
            for row in benchmark.rows
            for claim in row.claims
        ),
    )


def _costs(report: EvalReport) -> _Grid:
    rows = []
    for row in report.rows:
        if row.cost:
            size = row.cost.size
            rows.append(
                (
                    row.name,
                    f"{size.parameters / 1e6:.3f} M",
                    f"{size.multiply_adds / 1e9:.2f} G",
                    f"{size.activations / 1e6:.2f} M",
                    str(size.convolutions),
                    f"{row.cost.image_ms:.1f}",
                    f"{row.cost.megapixel_ms:.1f}",
                    console.amount(row.cost.peak_bytes),
                )
            )
    header = ("model", "parameters", "multiply-adds", "activations", "convs", "ms/image", "ms/MP", "memory")
    where = dict.fromkeys(f"{row.device}, {row.dtype}" for row in report.rows if row.cost)
    notes = (f"multiply-adds and activations at 256x256; time and memory on {'; '.join(where)}",)
    return _Grid("Cost", header, tuple(rows), notes)


def _score(value: float, metric: str) -> str:
    """Decibels with four decimals, all else with five."""
    return f"{value:.{_decimals(metric)}f}"


def _signed(difference: float, metric: str) -> str:
    """As `_score`, with its sign; what rounds to zero is +0."""
    decimals = _decimals(metric)
    return f"{round(difference, decimals) + 0.0:+.{decimals}f}"


def _decimals(metric: str) -> int:
    return 4 if metric.startswith("psnr") else 5
