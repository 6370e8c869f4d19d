"""Stopped and crashed runs resume to the result of an unbroken run."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import Recorder, photographs, tiny_recipe

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.training.train import train


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


@pytest.mark.parametrize("optimiser", ["adam", "soap"])
def test_a_stopped_run_resumes_to_the_same_bits(photos: Path, tmp_path: Path, optimiser: str) -> None:
    recipe = tiny_recipe(photos, optimiser=optimiser)
    through = Recorder()
    train(recipe, tmp_path / "through", False, through)

    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    cut, after = Recorder(interrupt), Recorder()
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", False, cut)
    train(recipe, tmp_path / "cut", True, after)

    assert f"resuming after {12 - len(after.losses)} steps" in after.notes
    assert 5 <= len(after.losses) <= 6
    assert sum("stopping after this step" in note for note in cut.notes) == 1
    assert after.losses == through.losses[-len(after.losses) :]
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "through" / name).read_bytes()


def test_a_crash_costs_only_the_steps_since_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos)
    recipe = replace(recipe, run=replace(recipe.run, checkpoint_minutes=0))
    train(recipe, tmp_path / "through", False, Recorder())

    def crash(step: int) -> None:
        if step == 10:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, tmp_path / "cut", False, Recorder(crash))
    assert _logged(tmp_path / "cut", "step") == [4, 8]
    later = Recorder()
    train(recipe, tmp_path / "cut", True, later)

    assert len(later.losses) == 3
    assert _logged(tmp_path / "cut", "step") == [4, 8, 12]
    for field in ("loss", "terms", "psnr_y", "rate"):
        assert _logged(tmp_path / "cut", field) == _logged(tmp_path / "through", field)
    same = [(tmp_path / run / "last.safetensors").read_bytes() for run in ("cut", "through")]
    assert same[0] == same[1]


def _logged(run: Path, field: str) -> list[object]:
    return [json.loads(line)[field] for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_resumes_after_a_crash_before_the_first_checkpoint(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos)
    train(recipe, tmp_path / "through", False, Recorder())

    def crash(step: int) -> None:
        if step == 5:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, tmp_path / "cut", False, Recorder(crash))
    later = Recorder()
    train(recipe, tmp_path / "cut", True, later)

    assert len(later.losses) == 12
    same = [(tmp_path / run / "last.safetensors").read_bytes() for run in ("cut", "through")]
    assert same[0] == same[1]


def test_folders_with_other_contents_are_refused(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos, steps=1)
    train(recipe, tmp_path / "run", False, Recorder())
    with pytest.raises(UsageError, match=r"already holds a run \(resume the run with --resume"):
        train(recipe, tmp_path / "run", False, Recorder())
    other = replace(recipe, run=replace(recipe.run, seed=9))
    with pytest.raises(UsageError, match="is a run of another recipe"):
        train(other, tmp_path / "run", True, Recorder())
    with pytest.raises(UsageError, match="already exists and holds no run"):
        train(recipe, photos, True, Recorder())


def test_a_full_disk_leaves_the_previous_checkpoint_intact(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(photos)
    recipe = replace(recipe, run=replace(recipe.run, checkpoint_minutes=0))
    saved: list[bytes] = []
    real = torch.save

    def fill(state: object, path: Path) -> None:
        if len(saved) == 3:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(state, path)
        saved.append(path.read_bytes())

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(DscloraError, match=r"cannot write .*state.pt: No space left on device \(.*then --resume\)"):
        train(recipe, tmp_path / "run", False, Recorder())
    assert (tmp_path / "run" / "state.pt").read_bytes() == saved[-1]
    assert not list((tmp_path / "run").glob(".dsclora*"))


def test_a_damaged_checkpoint_is_an_error_of_one_line(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos, steps=1)
    train(recipe, tmp_path / "run", False, Recorder())
    (tmp_path / "run" / "state.pt").write_bytes(b"PK nonsense")
    with pytest.raises(UsageError, match="cannot be read as a checkpoint") as refusal:
        train(recipe, tmp_path / "run", True, Recorder())
    assert "\n" not in str(refusal.value)
