"""The numbers of released networks, which other people's programs give too."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions
from dsclora_cli.evaluation.evaluate import evaluate
from dsclora_cli.evaluation.report import EvalReport

SET5 = {
    "bicubic": (28.42902, 0.81114, 26.69215),
    "spantiny-x4": (31.7388, 0.88905, 29.8470),
    "dscf-x4": (31.7462, 0.88917, 29.8541),
    "team00_SPAN": (31.7390, 0.88974, 29.8483),
}
"""PSNR-Y, SSIM-Y and PSNR-RGB at x4: of the networks measured apart from this program, of bicubic as it gave them."""

OTHERS = {
    "Set14": {
        "bicubic": (26.0884, 0.70480, 24.46162),
        "spantiny-x4": (28.3328, 0.77550, 26.5275),
        "dscf-x4": (28.3419, 0.77568, 26.5359),
        "team00_SPAN": (28.4009, 0.77683, 26.5922),
    },
    "BSD100": {
        "bicubic": (25.96133, 0.66807, 24.63477),
        "spantiny-x4": (27.3979, 0.72967, 26.0557),
        "dscf-x4": (27.4042, 0.72984, 26.0618),
        "team00_SPAN": (27.4458, 0.73091, 26.1027),
    },
}


def shared_options(shared: Path, *datasets: str) -> EvalOptions:
    files = ("team39_spantiny_ch26_slim.pth", "team23_DSCF.pth", "team00_SPAN.pth")
    return EvalOptions(
        datasets=datasets,
        data_dir=shared / "data/benchmarks",
        models=tuple(ModelOptions(weights=shared / "weights" / name) for name in files),
        engine=EngineOptions(device="cpu", dtype="float32"),
    )


def check(report: EvalReport, index: int, expected: dict[str, tuple[float, float, float]]) -> None:
    found = {row.name: row.mean for row in report.sets[index].rows}
    assert list(found) == list(expected)
    for row, (y, structure, rgb) in expected.items():
        assert found[row]["psnr_y"] == pytest.approx(y, abs=1e-3), row
        assert found[row]["ssim_y"] == pytest.approx(structure, abs=1e-4), row
        assert found[row]["psnr_rgb"] == pytest.approx(rgb, abs=1e-3), row
    assert report.sets[index].verdict == "verified"


@pytest.mark.slow
def test_set5_gives_the_known_numbers(shared: Path) -> None:
    report = evaluate(shared_options(shared, "Set5"))
    check(report, 0, SET5)
    gain, _ = report.sets[0].comparisons
    assert (gain.row, gain.wins, gain.losses) == ("dscf-x4", 5, 0)
    assert gain.difference == pytest.approx(0.0073, abs=1e-3) and gain.low > 0
    claims = [claim for row in report.sets[0].rows for claim in row.claims]
    assert claims and not any(claim.differs for claim in claims)


@pytest.mark.slow
def test_set14_and_bsd100_give_the_known_numbers(shared: Path) -> None:
    report = evaluate(shared_options(shared, "Set14", "BSD100"))
    check(report, 0, OTHERS["Set14"])
    check(report, 1, OTHERS["BSD100"])
    assert [report.sets[1].comparisons[0].wins, report.sets[1].comparisons[0].losses] == [100, 0]
