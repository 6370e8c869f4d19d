"""Kept scores come back for an equal key only."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dsclora_cli import paths
from dsclora_cli.evaluation.report import RowInfo
from dsclora_cli.evaluation.score_cache import PixelKey, ScoreKey, load_scores, pixel_key, save_scores

ROW = RowInfo("model", "ab", device="cuda:1", dtype="float32", engine="torch")
KEY = ScoreKey(pixel_key(ROW, "lr", 4), hr="hr", border=4, metrics=("psnr_y", "psnr_rgb"))
OTHER = {
    "lr": "lr2",
    "scale": 3,
    "weights": "cd",
    "engine": "openvino",
    "device": "cpu",
    "dtype": "float16",
    "ensemble": True,
    "tile": 64,
    "openvino_version": "0.1",
    "torch_version": "0.1",
    "numpy_version": "0.1",
    "version": 0,
}


def test_scores_come_back_unrounded_also_infinity() -> None:
    scores = {"psnr_y": 31.746218309218, "psnr_rgb": math.inf}
    save_scores(KEY, scores)
    assert load_scores(KEY) == scores


def test_every_field_of_the_key_matters() -> None:
    save_scores(KEY, {"psnr_y": 1.0})
    assert set(OTHER) == {field.name for field in fields(PixelKey)}
    for name, value in OTHER.items():
        assert load_scores(replace(KEY, pixels=replace(KEY.pixels, **{name: value}))) is None, name
    for change in ({"hr": "hr2"}, {"border": 2}, {"metrics": ("psnr_y",)}, {"pyiqa_version": "0.1"}):
        assert load_scores(replace(KEY, **change)) is None, change


def test_gpus_of_one_kind_and_other_names_of_a_row_share_scores() -> None:
    save_scores(KEY, {"psnr_y": 1.0})
    same = replace(ROW, name="another name", device="cuda:0", notes=("a note",))
    assert load_scores(replace(KEY, pixels=pixel_key(same, "lr", 4))) == {"psnr_y": 1.0}


def test_the_baseline_has_a_key_of_its_own() -> None:
    assert pixel_key(RowInfo("bicubic"), "lr", 4).weights == "bicubic"


def test_a_damaged_file_holds_no_score() -> None:
    save_scores(KEY, {"psnr_y": 1.0})
    (file,) = (paths.state_dir() / "eval").iterdir()
    whole = file.read_text()
    for text in ("", "[]", "{}", '{"key": 1, "scores": 2}', whole[:-5], "[" * 100_000):
        file.write_text(text)
        assert load_scores(KEY) is None
    for scores in ('"many"', "[1]", '{"psnr_y": "high"}', '{"psnr_y": null}', '{"psnr_y": {}}'):
        file.write_text(whole.replace('{"psnr_y": 1.0}', scores))
        assert load_scores(KEY) is None


def test_an_interrupted_save_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_scores(KEY, {"psnr_y": 1.0})
    assert list((paths.state_dir() / "eval").iterdir()) == []
