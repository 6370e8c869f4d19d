"""Scores of a model card come from `dsclora eval --json`, and only from a report about the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluations import save_network_file, save_set

from dsclora_cli.cli.app import main
from dsclora_cli.errors import UsageError
from dsclora_cli.paths import sha256_of
from dsclora_cli.publishing.scores import read_scores


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_network_file(tmp_path / "own.safetensors")


@pytest.fixture
def report(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The report of an evaluation of the weights."""
    pictures = save_set(tmp_path / "small", ("bird", "boat"))
    assert (
        main(["eval", "--hr", str(pictures), "--weights", str(weights), "--jpeg", "60", "--device", "cpu", "--json"])
        == 0
    )
    (tmp_path / "scores.json").write_text(capsys.readouterr().out, encoding="utf-8")
    return tmp_path / "scores.json"


def test_a_report_is_read(weights: Path, report: Path) -> None:
    scores = read_scores(report, (sha256_of(weights),))
    stated = json.loads(report.read_text(encoding="utf-8"))["sets"][0]["rows"]
    assert scores.metrics == ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")
    assert scores.conditions == "protocol paper, border 4, inputs saved as JPEG of quality 60"
    (small,) = scores.sets
    assert (small.name, small.images) == ("small", 2)
    assert (small.bicubic, small.model) == (stated[0]["mean"], stated[1]["mean"])


def test_a_report_about_other_weights_is_refused(report: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no scores of these weights \(make it with `dsclora eval"):
        read_scores(report, ("c" * 64,))


def _infinite() -> str:
    """A report with an infinite number of pictures."""
    row = '{"name": "x", "weights_sha256": "' + "c" * 64 + '", "mean": {}}'
    sets = f'[{{"name": "Set5", "images": 1e999, "rows": [{row}]}}]'
    return f'{{"rows": [{row}], "metrics": [], "sets": {sets}, "protocol": {{"name": "paper", "border": 2}}}}'


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "no json", '{"rows": [{}]}', '{"rows": null}', "[" * 100_000, _infinite()]
)
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "scores.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="is no report of `dsclora eval --json`"):
        read_scores(tmp_path / "scores.json", ("c" * 64,))
    with pytest.raises(UsageError, match="cannot read"):
        read_scores(tmp_path / "absent.json", ())
