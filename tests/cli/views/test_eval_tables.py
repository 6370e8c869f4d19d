"""Tables of a report with infinite scores, a warning and odd names."""

from __future__ import annotations

import csv
import io
import math

from dsclora_cli.cli.views.eval_tables import csv_text, markdown_text, show_tables
from dsclora_cli.evaluation.protocol import Protocol
from dsclora_cli.evaluation.report import EvalReport, RowInfo, RowScores, SetReport
from dsclora_cli.evaluation.statistics import compare_rows

INF = math.inf


def row(name: str, psnr: float, lpips: float) -> RowScores:
    infinite = {"psnr_rgb": 1} if math.isinf(psnr) else {}
    return RowScores(name, {"psnr_rgb": psnr, "lpips": lpips}, infinite, {"a, b": {"psnr_rgb": psnr, "lpips": lpips}})


REPORT = EvalReport(
    scale=2,
    protocol=Protocol("ntire", 4, ("psnr_rgb",)),
    metrics=("psnr_rgb", "lpips"),
    rows=(RowInfo("bicubic"), RowInfo("one"), RowInfo("two|2")),
    sets=(
        SetReport(
            name="Urban100",
            images=1,
            fingerprint="0" * 64,
            verdict="unknown copy",
            warning="half as large as the true ones",
            rows=(row("bicubic", INF, 0.25), row("one", INF, 0.5), row("two|2", 30.0, 0.125)),
            comparisons=(
                compare_rows(("two|2", "one"), "psnr_rgb", [30.0], [INF]),
                compare_rows(("three", "one"), "psnr_rgb", [30.0, 31.0], [29.0, 30.5]),
            ),
        ),
    ),
    versions={},
)


def test_markdown_shows_infinity_bars_and_missing_intervals() -> None:
    lines = markdown_text(REPORT).splitlines()
    assert "| model | PSNR-RGB | lpips |" in lines
    assert "| bicubic | inf | 0.25000 |" in lines
    assert "| two\\|2 | 30.0000 | 0.12500 |" in lines
    assert "| two\\|2 | - | - | 0 | 1 | 0 |" in lines
    assert "| three | +0.7500 | +0.5000 to +1.0000 | 2 | 0 | 0 |" in lines


def test_warnings_and_infinite_scores_stand_below_the_table(capsys) -> None:
    show_tables(REPORT)
    out = capsys.readouterr().out
    assert "HR images: unknown copy; border 4\nwarning: half as large as the true ones\n" in out
    assert "bicubic: 1 of 1 image has infinite PSNR-RGB, not in the mean" in out
    assert "two|2" in out
    assert "\nwarning: half as large as the true ones\n" in markdown_text(REPORT)
    assert markdown_text(REPORT).startswith("### Urban100 x2, 1 image, ntire protocol\n")


def test_csv_quotes_what_needs_it() -> None:
    lines = list(csv.reader(io.StringIO(csv_text(REPORT))))
    assert lines[0] == ["set", "row", "image", "psnr_rgb", "lpips"]
    assert lines[1] == ["Urban100", "bicubic", "a, b", "inf", "0.25"]
    assert len(lines) == 4
