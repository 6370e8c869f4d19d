"""The table of `dsclora compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsclora_cli.cli import console
from dsclora_cli.errors import escape_control

if TYPE_CHECKING:
    from dsclora_cli.evaluation.compare import CompareResult


def show_comparison(result: CompareResult) -> None:
    """Write a table of the compared results to stdout, and name the files written."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("result", no_wrap=True)
    has_truth = any(each.psnr_y is not None for each in result.results)
    for column in ("PSNR-Y", "SSIM-Y") if has_truth else ():
        table.add_column(column, justify="right")
    for column in ("faithfulness", "seconds"):
        table.add_column(column, justify="right")
    for each in result.results:
        scores = [each.psnr_y, each.ssim_y] if has_truth else []
        texts = ["" if score is None else f"{score:.{digits}f}" for score, digits in zip(scores, (2, 4), strict=False)]
        faithful = "" if each.faithfulness is None else f"{each.faithfulness:.1f} dB"
        seconds = "" if each.seconds is None else f"{each.seconds:.2f}"
        table.add_row(escape_control(each.name), *texts, faithful, seconds)
    console.show_table(table)
    console.print_line(f"{escape_control(str(result.sheet))}, {escape_control(str(result.page))}")
