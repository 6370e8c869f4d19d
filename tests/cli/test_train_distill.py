"""`dsclora distill` on the command line: adapters for a tiny base, kept or not kept, and missing options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.recipe_toml import read_recipe
from dsclora_cli.weights.adapters import load_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network

WITHOUT_MAPS = ("--patch", "8", "--batch", "4", "--steps", "4", "--validate", "2")
QUICK = (*WITHOUT_MAPS, "--taps", "block_1.*")
HERE = ("--device", "cpu", "--compile", "off", "--threads", "1", "-s", "2")
STILL = ("--learning-rate", "0")


@pytest.fixture
def base(photos: Path) -> Path:
    """An untrained x2 network, which every step improves, next to the folder `photos`."""
    torch.manual_seed(0)
    save_network(SPAN(SpanConfig(channels=4, blocks=1, scale=2)), Path("base.safetensors"), training="{}")
    return Path("base.safetensors")


def test_an_adapter_better_than_the_base_is_kept_and_its_gain_is_shown(dsclora, base: Path) -> None:
    code, out, err = dsclora("distill", "--base", base, "--data", "photos", "--out", "mine", *QUICK, *HERE)
    assert (code, out) == (0, "")
    kept = err.splitlines()[-1]
    assert kept.startswith(f"kept: {Path('mine', 'adapter.safetensors')}, PSNR-Y ") and " dB above the base (" in kept
    assert load_adapters(Path("mine/adapter.safetensors"))
    assert read_recipe(Path("mine/recipe.toml")).distill is not None


def test_json_has_every_term_of_the_loss(dsclora, base: Path) -> None:
    _, out, _ = dsclora("distill", "--base", base, "--data", "photos", "--out", "mine", *QUICK, *HERE, "--json", "-q")
    *scores, result = [json.loads(line) for line in out.splitlines()]
    assert [set(score["terms"]) for score in scores] == [{"rec", "ts", "ad"}] * 2
    assert result["best_psnr_y"] > result["floor_psnr_y"]


@pytest.mark.slow
def test_an_adapter_no_better_than_the_base_is_not_kept_and_the_exit_code_is_1(dsclora, base: Path) -> None:
    arguments = ("distill", "--base", base, "--data", "photos", "--out", "mine", *QUICK, *HERE, *STILL)
    code, out, err = dsclora(*arguments, "-q")
    assert (code, out) == (1, "") and err.startswith("not kept: no step was better than the base's ")
    assert not Path("mine/adapter.safetensors").exists()
    assert "; the best was " in err
    resumed = dsclora("distill", "--out", "mine", "--resume", "--json")
    assert resumed.code == 1 and json.loads(resumed.out)["file"] is None
    assert resumed.err.splitlines()[-1] == err.splitlines()[-1]


def test_logits_trains_a_network_with_a_teacher(dsclora, base: Path) -> None:
    method = ("--method", "logits", "--teacher", base, "--channels", "4", "--blocks", "1")
    code, _, err = dsclora("distill", *method, "--data", "photos", "--out", "student", *WITHOUT_MAPS, *HERE)
    assert code == 0 and f"kept: {Path('student', 'best.safetensors')}, PSNR-Y " in err
    assert load_network(Path("student/best.safetensors")).config.scale == 2


@pytest.mark.slow
def test_train_learns_from_a_folder_of_a_teachers_pictures(dsclora, photos: Path) -> None:
    shutil.copytree("photos", "answers")
    arguments = ("--teacher-images", "answers", "--rec", "0.2", "--ts", "0.8", "--channels", "4", "--blocks", "1")
    run = ("--data", "photos", "--out", "taught", *WITHOUT_MAPS, *HERE)
    code, out, _ = dsclora("train", *arguments, *run, "--json", "-q")
    assert code == 0
    *scores, _ = [json.loads(line) for line in out.splitlines()]
    # The answers are the truth here, so the two terms differ by their weights alone.
    for score in scores:
        assert set(score["terms"]) == {"rec", "ts"}
        assert score["terms"]["ts"] == pytest.approx(4 * score["terms"]["rec"], rel=1e-2)
    assert dsclora("train", "--out", "taught", "--resume", "-q").code == 0


@pytest.mark.parametrize("command", ["train", "distill"])
def test_a_missing_picture_of_the_teacher_ends_the_command_before_a_folder_is_made(
    dsclora, photos: Path, command: str
) -> None:
    shutil.copytree("photos", "answers")
    for path in Path("answers").iterdir():
        path.rename(path.with_stem(f"other{path.stem}"))
    method = ("--method", "logits") if command == "distill" else ()
    code, _, err = dsclora(
        command, *method, "--teacher-images", "answers", "--data", "photos", "--out", "x", *HERE, "--patch", "8"
    )
    assert code == 2 and err.startswith("error: answers has no teacher's picture for ") and err.count("\n") == 1
    assert not Path("x").exists()


def test_an_adapter_that_a_run_did_not_keep_is_not_read_and_the_hint_names_the_last_one(dsclora, base: Path) -> None:
    first = ("distill", "--base", base, "--data", "photos", "--out", "first", *QUICK, *HERE, *STILL, "-q")
    assert dsclora(*first).code == 1
    absent, last = Path("first", "adapter.safetensors"), Path("first", "last.safetensors")
    reason = f"cannot read {absent}: No such file or directory"
    line = f"error: {reason} (the run kept no {absent.name}; {last} holds the weights of its last score)\n"
    second = ("distill", "--base", base, "--data", "photos", "--out", "second", *QUICK, *HERE)
    assert dsclora(*second, "--init-adapter", absent) == (3, "", line)
    Path("photo.png").write_bytes(Path("photos/0.png").read_bytes())
    assert dsclora("upscale", "photo.png", "--weights", base, "--adapter", absent) == (3, "", line)
    assert dsclora("merge", base, absent, "-o", "merged.safetensors") == (3, "", line)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "error: adapters need a network to adapt (name its weights: --base FILE|NAME)"),
        (
            ("--method", "logits"),
            "error: method logits needs a teacher (name its weights: --teacher FILE|NAME, or a folder of its pictures",
        ),
        (("--base", "base.safetensors", "-s", "4"), "error: base upscales by 2, not by 4 (give --scale 2)"),
        (("--base", "none.pth"), "error: "),
    ],
)
def test_missing_options_are_reported_before_a_folder_is_made(dsclora, base: Path, arguments, line: str) -> None:
    code, _, err = dsclora("distill", "--data", "photos", "--out", "mine", *arguments)
    assert code in {2, 3} and err.startswith(line) and err.count("\n") == 1
    assert not Path("mine").exists()
