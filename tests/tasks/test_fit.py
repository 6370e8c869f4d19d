import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import Heard, photographs, tiny_recipe

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.model.span import Span
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipefile import read_recipe
from dsclora_cli.tasks.fit import fit
from dsclora_cli.tasks.train import initial_network, network_trainee, train
from dsclora_cli.tasks.trainee import FitResult, Run, Trainee
from dsclora_cli.tasks.trainset import Batch, TrainSet
from dsclora_cli.weights.checkpoint import load_network


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


def _fit(recipe: Recipe, run: Path, objective_of, floor: Span | None = None, heard: Heard | None = None) -> FitResult:
    """A run whose objective is `objective_of(network)`."""

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[Trainee, TrainSet]:
        network = initial_network(recipe, data)
        return replace(network_trainee(network, objective_of(network), recipe, data), floor=floor), data

    return fit(recipe, Run(run, False, True, heard or Heard()), build)


def _plain(network: Span):
    return lambda batch: {"pixel": (network(batch.lr) - batch.hr).abs().mean()}


def test_a_run_leaves_everything_its_user_needs(photos: Path, tmp_path: Path) -> None:
    heard = Heard()
    recipe = tiny_recipe(photos, steps=40, optimiser="soap")
    result = train(recipe, tmp_path / "run", False, heard)

    scores = [score.psnr_y for score in heard.scores]
    assert len(scores) == 10
    assert max(scores) > scores[0] + 0.05
    assert result.best_psnr_y == max(scores)
    assert result.best_step == 4 * (scores.index(max(scores)) + 1)
    assert result.file == tmp_path / "run" / "best.safetensors"
    assert load_network(result.file).config.scale == 2
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "best.safetensors", "curve.png", "last.safetensors", "log.jsonl", "recipe.toml", "samples.png", "state.pt",
        "tensorboard",
    }  # fmt: skip
    assert read_recipe(tmp_path / "run" / "recipe.toml") == recipe
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["psnr_y"] for line in logged] == scores
    assert all(0 <= line["waiting"] <= 1 and line["images_per_second"] > 0 for line in logged)


@pytest.mark.parametrize("optimiser", ["adam", "soap"])
def test_stopped_and_resumed_is_the_same_bit_for_bit(photos: Path, tmp_path: Path, optimiser: str) -> None:
    recipe = tiny_recipe(photos, optimiser=optimiser)
    through = Heard()
    train(recipe, tmp_path / "through", False, through)

    def interrupt(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut", False, Heard(interrupt))
    after = Heard()
    train(recipe, tmp_path / "cut", True, after)

    assert f"going on after {12 - len(after.losses)} steps" in after.notes
    assert 5 <= len(after.losses) <= 6
    assert after.losses == through.losses[-len(after.losses) :]
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "through" / name).read_bytes()


def test_a_crash_costs_only_the_steps_since_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos)
    recipe = replace(recipe, run=replace(recipe.run, checkpoint_minutes=0))
    train(recipe, tmp_path / "through", False, Heard())

    def crash(step: int) -> None:
        if step == 10:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(recipe, tmp_path / "cut", False, Heard(crash))
    assert _logged_steps(tmp_path / "cut") == [4, 8]
    later = Heard()
    train(recipe, tmp_path / "cut", True, later)

    assert len(later.losses) == 3
    assert _logged_steps(tmp_path / "cut") == [4, 8, 12]
    same = [(tmp_path / run / "last.safetensors").read_bytes() for run in ("cut", "through")]
    assert same[0] == same[1]


def _logged_steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_nothing_is_overwritten_by_surprise(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos, steps=1)
    train(recipe, tmp_path / "run", False, Heard())
    with pytest.raises(UsageError, match=r"holds a run already \(go on with --resume"):
        train(recipe, tmp_path / "run", False, Heard())
    other = replace(recipe, run=replace(recipe.run, seed=9))
    with pytest.raises(UsageError, match="is a run of another recipe"):
        train(other, tmp_path / "run", True, Heard())
    with pytest.raises(UsageError, match="is there already and holds no run"):
        train(recipe, photos, True, Heard())


def test_a_loss_that_is_not_finite_is_skipped_and_counted(photos: Path, tmp_path: Path) -> None:
    def objective_of(network: Span):
        calls = iter(range(100))
        return lambda batch: {"pixel": _plain(network)(batch)["pixel"] * (torch.nan if next(calls) in {2, 5} else 1.0)}

    heard = Heard()
    result = _fit(tiny_recipe(photos), tmp_path / "run", objective_of, heard=heard)

    assert result.skipped == 2
    assert result.steps == 12
    assert all(
        torch.isfinite(value).all() for value in load_network(tmp_path / "run" / "last.safetensors").parameters()
    )


def test_a_loss_that_stays_nan_stops_with_advice(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos)
    recipe = replace(recipe, run=replace(recipe.run, most_skips=3))
    with pytest.raises(DscloraError, match=r"4 steps in a row up to step 3 .*lower --learning-rate"):
        _fit(recipe, tmp_path / "run", lambda network: lambda batch: {"pixel": network(batch.lr).mean() * torch.nan})


def test_parts_of_a_batch_add_up_to_it(photos: Path, tmp_path: Path) -> None:
    whole, parts = Heard(), Heard()
    recipe = tiny_recipe(photos)
    train(recipe, tmp_path / "whole", False, whole)
    cut = replace(recipe, optimiser=replace(recipe.optimiser, accumulate=4))
    train(cut, tmp_path / "parts", False, parts)

    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    with pytest.raises(UsageError, match="a batch of 4 does not divide among 3 parts"):
        train(replace(cut, optimiser=replace(cut.optimiser, accumulate=3)), tmp_path / "no", False, Heard())


def test_nothing_is_kept_that_does_not_beat_the_floor(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos, steps=30, optimiser="soap")
    good = train(recipe, tmp_path / "good", False, Heard())
    assert good.file is not None
    floor = load_network(good.file)
    result = _fit(tiny_recipe(photos, steps=4), tmp_path / "run", _plain, floor)

    assert result.file is None
    assert result.floor_psnr_y == pytest.approx(good.best_psnr_y)
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_a_full_disk_leaves_the_last_checkpoint(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        train(recipe, tmp_path / "run", False, Heard())
    assert (tmp_path / "run" / "state.pt").read_bytes() == saved[-1]
    assert not list((tmp_path / "run").glob(".dsclora*"))


def test_a_damaged_checkpoint_is_told_on_one_line(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos, steps=1)
    train(recipe, tmp_path / "run", False, Heard())
    (tmp_path / "run" / "state.pt").write_bytes(b"PK nonsense")
    with pytest.raises(UsageError, match="cannot be read as a checkpoint") as refusal:
        train(recipe, tmp_path / "run", True, Heard())
    assert "\n" not in str(refusal.value)


def test_the_batch_reaches_the_objective_whole(photos: Path, tmp_path: Path) -> None:
    seen: list[Batch] = []

    def objective_of(network: Span):
        def objective(batch: Batch):
            seen.append(batch)
            return _plain(network)(batch)

        return objective

    _fit(tiny_recipe(photos, steps=3), tmp_path / "run", objective_of)

    assert [batch.lr.shape for batch in seen] == [(4, 3, 8, 8)] * 3
    assert [batch.hr.shape for batch in seen] == [(4, 3, 16, 16)] * 3
    assert not torch.equal(seen[0].lr, seen[1].lr)
