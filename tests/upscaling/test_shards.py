"""`upscale --shard`: the jobs of a job array share the pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.cli.app import main
from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.upscaling.inputs import find_inputs
from dsclora_cli.upscaling.shards import parse_shard, shard_of


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures in two folders, two pairs of which compete for one name."""
    monkeypatch.chdir(tmp_path)
    names = ["a.png", "a.bmp", "b.png", "sub/a.png", "sub/A.bmp", "sub/c.png", "sub/d.png", "e.png"]
    for level, name in enumerate(names):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), 30 * level, np.uint8)).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return Path("in")


def contents(folder: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 8])
def test_the_shards_together_are_the_whole_run(tree: Path, count: int) -> None:
    arguments = ["upscale", str(tree), "-r", "-f", "png", "-m", "dsclora-x2", "-s", "2", "-q"]
    assert main([*arguments, "-o", "whole"]) == 0
    # In another order, as job arrays run.
    for number in reversed(range(1, count + 1)):
        assert main([*arguments, "-o", "shards", "--shard", f"{number}/{count}"]) == 0
    assert contents("shards") == contents("whole")
    assert {"a_x2.png", "a_x2-2.png"} < set(contents("whole"))


def test_one_picture_is_written_to_the_file_of_the_option_in_a_shard_too(tree: Path) -> None:
    arguments = ["upscale", str(tree / "b.png"), "-m", "dsclora-x2", "-s", "2", "-q", "-o", "large.png"]
    for number in (1, 2):
        assert main([*arguments, "--shard", f"{number}/2"]) == 0
    assert Image.open("large.png").size == (10, 8)


def test_a_file_is_refused_for_several_pictures_also_where_the_shard_has_one(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("large.png").touch()
    pictures = [str(tree / name) for name in ("b.png", "e.png")]
    for number in (1, 2):
        assert main(["upscale", *pictures, "-s", "2", "-q", "-o", "large.png", "--shard", f"{number}/2"]) == 2
        assert "-o large.png is a file, and there are several pictures" in capsys.readouterr().err


def test_every_file_belongs_to_one_shard(tree: Path) -> None:
    batch = BatchOptions(output="out", recursive=True)
    whole = find_inputs([str(tree)], batch)
    parts = [find_inputs([str(tree)], replace(batch, shard=(number, 4))) for number in range(1, 5)]
    assert sorted(file.name for part in parts for file in part.inputs) == sorted(file.name for file in whole.inputs)
    assert sorted(each.name for part in parts for each in part.left_out) == sorted(each.name for each in whole.left_out)
    assert all(len(part.inputs) + len(part.others) == len(whole.inputs) for part in parts)


def test_the_shard_depends_neither_on_order_nor_on_the_mount(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = BatchOptions(output="out", recursive=True, shard=(2, 3))
    here = {Path(file.name).name for file in find_inputs([str(tree)], batch).inputs}
    absolute = {Path(file.name).name for file in find_inputs([str(tree.resolve())], batch).inputs}
    monkeypatch.chdir(tree)
    inside = {Path(file.name).name for file in find_inputs(["."], batch).inputs}
    assert here == absolute == inside


def test_shards_are_even() -> None:
    counts = Counter(shard_of(f"folder/picture-{number}", 10) for number in range(50_000))
    assert set(counts) == set(range(1, 11))
    # Five standard deviations of 5,000 independent picks: 7 %.
    assert all(abs(count - 5000) < 350 for count in counts.values())


@pytest.mark.parametrize(
    ("text", "environment", "shard"),
    [
        ("3/10", {}, (3, 10)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}, (3, 4)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "0"}, (1, 4)),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "9", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, (10, 10)),
        ("auto/6", {"JOB_COMPLETION_INDEX": "5"}, (6, 6)),
    ],
)
def test_spellings(text: str, environment: dict[str, str], shard: tuple[int, int]) -> None:
    assert parse_shard(text, environment) == shard


@pytest.mark.parametrize(
    ("text", "environment", "message"),
    [
        ("3", {}, "--shard 3 is not I/N"),
        ("0/4", {}, "--shard 0/4 is not a shard from 1 to 4"),
        ("5/4", {}, "--shard 5/4 is not a shard from 1 to 4"),
        ("1/0", {}, "--shard 1/0: there are no 0 shards"),
        ("auto/0", {"JOB_COMPLETION_INDEX": "5"}, "--shard auto/0: there are no 0 shards"),
        ("auto", {}, "finds no job array"),
        ("auto", {"JOB_COMPLETION_INDEX": "5"}, "does not state the number of its jobs"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "x"}, "is no number"),
    ],
)
def test_refusals(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_shard(text, environment)


def test_the_hint_names_a_shard_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", "in", "--shard", "1/0"]) == 2
    assert "--shard 1/4" in capsys.readouterr().err


def test_names_without_the_stem_are_refused(tree: Path) -> None:
    with pytest.raises(UsageError, match="could give two results one name"):
        find_inputs([str(tree)], BatchOptions(output="out", name="{width}.{ext}", shard=(1, 2)))
