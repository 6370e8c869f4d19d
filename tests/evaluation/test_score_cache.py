"""Kept scores come back for the same key only."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dsclora_cli import paths
from dsclora_cli.evaluation import score_cache
from dsclora_cli.evaluation.score_cache import code_digest, load_scores, save_scores

KEY = {"weights": "ab", "dtype": "float32", "metrics": ["psnr_y"]}


def test_scores_come_back_unrounded_infinity_too() -> None:
    scores = {"psnr_y": 31.746218309218, "psnr_rgb": math.inf}
    save_scores(KEY, scores)
    assert load_scores(KEY) == scores
    assert load_scores({**KEY, "dtype": "float16"}) is None


def test_a_damaged_file_is_no_score() -> None:
    save_scores(KEY, {"psnr_y": 1.0})
    (file,) = (paths.state_dir() / "eval").iterdir()
    for text in ("", "[]", "{}", '{"key": 1, "scores": 2}', file.read_text()[:-5]):
        file.write_text(text)
        assert load_scores(KEY) is None


def test_nothing_half_written_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_scores(KEY, {"psnr_y": 1.0})
    assert list((paths.state_dir() / "eval").iterdir()) == []


def test_other_code_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_digest()
    assert len(before) == 64
    monkeypatch.setattr(score_cache, "__version__", "99")
    assert code_digest.__wrapped__() != before
