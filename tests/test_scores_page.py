"""docs/benchmarks.md is what its script writes, of the weights that are in the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from dsclora_cli.evaluation.protocol import protocol_of
from dsclora_cli.evaluation.report import EvalReport, RowInfo, RowScores, SetReport
from dsclora_cli.weights.catalog import load_catalog

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scores_script", ROOT / "benchmarks" / "scores.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(**sha256: str) -> EvalReport:
    scores = {"a": {"psnr_y": 30.0, "ssim_y": 0.9, "psnr_rgb": 28.0, "ssim_rgb": 0.8}}
    rows = tuple(RowScores(name, scores["a"], {}, scores) for name in ("bicubic", *sha256))
    protocol = protocol_of("paper", 4)
    infos = (RowInfo("bicubic"), *(RowInfo(name, digest, "cpu", "float32") for name, digest in sha256.items()))
    sets = (SetReport("Set5", 1, "0" * 64, "verified", None, rows),)
    return EvalReport(4, protocol, protocol.metrics, infos, sets, {"torch": "2.0"})


def test_the_page_shows_the_command_and_whose_weights_these_are(script: ModuleType) -> None:
    known = next(iter(script.SOURCES))
    page = script.page(report(base=known, mine="f" * 64), [Path("somewhere/base.pth"), script.OWN])
    assert "--weights base.pth \\\n" in page and "somewhere" not in page
    assert "--weights dsclora_cli/weights/embedded/dsclora-x4.safetensors" in page
    assert f"| base | {script.SOURCES[known]} | `{known}` |" in page
    assert f"| mine | this project | `{'f' * 64}` |" in page
    assert "| base | 30.0000 | 0.90000 | 28.0000 | 0.80000 |" in page


def test_the_page_is_of_the_weights_that_are_shipped() -> None:
    entry = load_catalog().entry("dsclora-x4")
    assert entry.sha256 in PAGE, "run benchmarks/scores.py again"
    for scores in entry.reference.values():
        assert f"| dsclora-x4 | {scores['psnr_y']:.4f} |" in PAGE, "run benchmarks/scores.py again"
    assert "DIFFERS" not in PAGE
    assert PAGE.count("HR images: verified") == 3
