"""The table of `dsclora compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsclora_cli.cli import console

if TYPE_CHECKING:
    from dsclora_cli.evaluation.compare import CompareResult


def show_comparison(result: CompareResult) -> None:
    """Write a table of the compared results to stdout, and name the files written."""
    has_truth = any(each.psnr_y is not None for each in result.results)
    rows = []
    for each in result.results:
        scores = [each.psnr_y, each.ssim_y] if has_truth else []
        texts = ["" if score is None else f"{score:.{digits}f}" for score, digits in zip(scores, (2, 4), strict=False)]
        faithful = "" if each.faithfulness is None else f"{each.faithfulness:.1f} dB"
        seconds = "" if each.seconds is None else f"{each.seconds:.2f}"
        rows.append((each.name, *texts, faithful, seconds))
    header = ("result", *(("PSNR-Y", "SSIM-Y") if has_truth else ()), "faithfulness", "seconds")
    console.show_table(header, rows, others="right")
    console.print_line(f"{result.sheet}, {result.page}")
