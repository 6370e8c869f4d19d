"""Records tell finished results from all other files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dsclora_cli.paths import state_dir
from dsclora_cli.upscaling.manifest import ResultKey, is_recorded, record_result, result_state

RECIPE = ResultKey("in", "weights", {"size": (4, 3), "quality": 95, "metadata": "all"})


@pytest.fixture
def output(tmp_path: Path) -> Path:
    path = tmp_path / "a_x4.png"
    path.write_bytes(b"result")
    record_result(path, path, RECIPE)
    return path


def test_a_result_is_complete_only_while_unchanged(output: Path) -> None:
    assert result_state(output, RECIPE) == "complete"
    assert is_recorded(output)
    output.write_bytes(b"edited")
    assert result_state(output, RECIPE) == "different"
    assert not is_recorded(output)
    output.unlink()
    assert result_state(output, RECIPE) == "missing"


@pytest.mark.parametrize(
    "other",
    [
        replace(RECIPE, input_sha256="other"),
        replace(RECIPE, weights_sha256="other"),
        replace(RECIPE, settings={**RECIPE.settings, "quality": 90}),
    ],
)
def test_another_input_model_or_setting_is_different(output: Path, other: ResultKey) -> None:
    assert result_state(output, other) == "different"


def test_a_file_without_a_record_is_different(tmp_path: Path) -> None:
    path = tmp_path / "mine.png"
    path.write_bytes(b"result")
    assert result_state(path, RECIPE) == "different"
    assert not is_recorded(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', "\0\0", "[" * 100_000])
def test_a_broken_or_newer_record_counts_as_absent(output: Path, text: str) -> None:
    (record,) = state_dir().rglob("*.json")
    record.write_text(text, encoding="utf-8")
    assert result_state(output, RECIPE) == "different"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_place_of_a_record_counts_as_absent(output: Path) -> None:
    (record,) = state_dir().rglob("*.json")
    record.unlink()
    os.mkfifo(record)
    assert result_state(output, RECIPE) == "different"


def test_records_lie_in_the_state_folder_and_name_their_result(output: Path) -> None:
    (record,) = [path for path in state_dir().rglob("*") if path.is_file()]
    stored = json.loads(record.read_text(encoding="utf-8"))
    assert stored["output"] == str(output)
    assert stored["recipe"] == {
        "input_sha256": "in",
        "weights_sha256": "weights",
        "settings": {**RECIPE.settings, "size": [4, 3]},
    }
    assert list(output.parent.iterdir()) == [output]


def test_a_record_of_an_older_version_counts_until_there_is_a_newer_record(output: Path) -> None:
    (record,) = state_dir().rglob("*.json")
    older = record.parent.parent / f"{record.parent.name}{record.name}"
    record.rename(older)
    assert result_state(output, RECIPE) == "complete"
    other = replace(RECIPE, input_sha256="other")
    record_result(output, output, other)
    assert older.exists() and result_state(output, other) == "complete"


def test_all_spellings_of_a_path_share_a_record(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(output.parent)
    assert result_state(Path("a_x4.png"), RECIPE) == "complete"
    assert result_state(Path("..") / output.parent.name / "a_x4.png", RECIPE) == "complete"
