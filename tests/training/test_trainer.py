"""Whole training runs of a tiny network."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import Recorder, photographs, tiny_recipe

from dsclora_cli.datasets.patches import Batch, TrainSet
from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.models.span import SPAN
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import read_recipe, recipe_digest
from dsclora_cli.training import trainer as loop
from dsclora_cli.training.optim import Precision, rate_at
from dsclora_cli.training.run_dir import RunDir
from dsclora_cli.training.train import initial_network, network_setup, train
from dsclora_cli.training.trainer import Run, TrainingSetup, TrainResult, fit
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.state_dict import read_tensors


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


def _fit(
    recipe: Recipe, run: Path, objective_of, floor: SPAN | None = None, recorder: Recorder | None = None
) -> TrainResult:
    """Train with the loss terms of `objective_of(network)`."""

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[TrainingSetup, TrainSet]:
        network = initial_network(recipe, data)
        return replace(network_setup(network, objective_of(network), recipe, data), baseline=floor), data

    return fit(recipe, Run(run, False, True, recorder or Recorder()), build)


def _plain(network: SPAN):
    return lambda batch: {"pixel": (network(batch.lr) - batch.hr).abs().mean()}


def test_a_run_writes_all_files_of_the_run_folder(photos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    recipe = tiny_recipe(photos, steps=40, optimiser="soap")
    result = train(recipe, tmp_path / "run", False, recorder)

    scores = [score.psnr_y for score in recorder.scores]
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
    assert [line["rate"] for line in logged] == [rate_at(recipe.optimiser, step - 1, 40) for step in range(4, 44, 4)]


def test_saved_weights_hold_their_origin(photos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    result = train(tiny_recipe(photos, steps=8), tmp_path / "run", False, recorder)
    assert result.file is not None
    for name, step in (("best.safetensors", result.best_step), ("last.safetensors", 8)):
        origin = json.loads(read_tensors(tmp_path / "run" / name).metadata["training"])
        assert origin["step"] == step
        assert origin["held_out_psnr_y"] == recorder.scores[step // 4 - 1].psnr_y
        assert (origin["seed"], origin["recipe"]) == (1, recipe_digest(tiny_recipe(photos, steps=8)))
        assert len(origin["data"]) == 64 and origin["torch"] == torch.__version__


@pytest.mark.slow
def test_steps_with_a_loss_that_is_not_finite_are_skipped_and_counted(photos: Path, tmp_path: Path) -> None:
    def objective_of(network: SPAN):
        calls = iter(range(100))
        return lambda batch: {"pixel": _plain(network)(batch)["pixel"] * (torch.nan if next(calls) in {2, 5} else 1.0)}

    recorder = Recorder()
    result = _fit(tiny_recipe(photos), tmp_path / "run", objective_of, recorder=recorder)

    assert result.skipped == 2
    assert result.steps == 12
    assert all(
        torch.isfinite(value).all() for value in load_network(tmp_path / "run" / "last.safetensors").parameters()
    )


def test_a_loss_that_stays_nan_stops_the_run_with_advice(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos)
    recipe = replace(recipe, run=replace(recipe.run, most_skips=3))
    steps = "not finite in 4 steps in a row, up to step 4"
    with pytest.raises(DscloraError, match=rf"{steps}; in the last step pixel; finite: nothing \(.* --learning-rate"):
        _fit(recipe, tmp_path / "run", lambda network: lambda batch: {"pixel": network(batch.lr).mean() * torch.nan})

    def with_a_faulty_term(network: SPAN):
        return lambda batch: {**_plain(network)(batch), "faulty": network(batch.lr).mean() * torch.inf}

    with pytest.raises(DscloraError, match=rf"{steps}; in the last step faulty; finite: pixel \(look at how faulty is"):
        _fit(recipe, tmp_path / "other", with_a_faulty_term)


def test_a_score_after_skipped_steps_alone_has_no_loss(photos: Path, tmp_path: Path) -> None:
    def objective_of(network: SPAN):
        calls = iter(range(100))
        return lambda batch: {
            "pixel": _plain(network)(batch)["pixel"] * (torch.nan if next(calls) in range(4, 8) else 1.0)
        }

    recorder = Recorder()
    _fit(tiny_recipe(photos), tmp_path / "run", objective_of, recorder=recorder)
    losses = [score.loss for score in recorder.scores]
    assert losses[1] is None and recorder.scores[1].terms == {} and all(losses[::2])
    # The log stays JSON for every reader, and a run with such a line resumes.
    assert '"loss": null' in (tmp_path / "run" / "log.jsonl").read_text()
    assert [line["loss"] for line in RunDir(tmp_path / "run").lines()] == losses


def test_a_run_whose_weights_grow_without_limit_is_told_to_lower_the_learning_rate(
    photos: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(photos)
    recipe = replace(recipe, optimiser=replace(recipe.optimiser, learning_rate=1e30))
    message = r"the training diverged: after 4 steps .* NaN or infinity \(start a new run with a lower --learning-"
    with pytest.raises(DscloraError, match=message):
        train(recipe, tmp_path / "run", False, Recorder())


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [10, 26])
def test_float16_scales_the_loss_and_skips_overflows(exponent: int, photos: Path, tmp_path: Path, monkeypatch) -> None:
    """Runs on the CPU, which has autocast and loss scaling as CUDA does. A scale of 2^26 overflows at first."""
    made: list[Precision] = []

    class Half(Precision):
        def __init__(self, choice: str, device: torch.device) -> None:
            super().__init__(choice, device)
            self._dtype = torch.float16
            self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**exponent)
            made.append(self)

    recipe = tiny_recipe(photos)
    whole, half = Recorder(), Recorder()
    train(recipe, tmp_path / "whole", False, whole)
    monkeypatch.setattr(loop, "Precision", Half)
    result = train(recipe, tmp_path / "half", False, half)

    assert (result.skipped > 0) is (exponent == 26)
    scale = made[0].scaler.get_scale()
    assert scale == 2.0 ** (exponent - result.skipped)
    assert torch.load(tmp_path / "half" / "state.pt", weights_only=True)["scaler"]["scale"] == scale
    alike = 1 if result.skipped else len(whole.losses)
    assert half.losses[:alike] == pytest.approx(whole.losses[:alike], rel=0.1)
    assert half.losses != whole.losses


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_parameter_moves_at_its_own_share_of_the_learning_rate(scale: float, photos: Path, tmp_path: Path) -> None:
    before: dict[str, torch.Tensor] = {}
    networks: list[SPAN] = []

    def build(recipe: Recipe, data: TrainSet, device: torch.device) -> tuple[TrainingSetup, TrainSet]:
        networks.append(network := initial_network(recipe, data))
        before.update({name: value.detach().clone() for name, value in network.named_parameters()})
        setup = network_setup(network, _plain(network), recipe, data)
        return replace(setup, lr_scales={"upsampler.0.bias": scale}), data

    fit(tiny_recipe(photos, steps=1), Run(tmp_path / "run", False, True, Recorder()), build)
    moved = {name for name, value in networks[0].named_parameters() if not torch.equal(value, before[name])}

    assert "upsampler.0.weight" in moved
    assert ("upsampler.0.bias" in moved) is (scale > 0)


@pytest.mark.slow
def test_accumulation_over_parts_equals_the_whole_batch(photos: Path, tmp_path: Path) -> None:
    whole, parts = Recorder(), Recorder()
    recipe = tiny_recipe(photos)
    train(recipe, tmp_path / "whole", False, whole)
    cut = replace(recipe, optimiser=replace(recipe.optimiser, accumulate=4))
    train(cut, tmp_path / "parts", False, parts)

    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    with pytest.raises(UsageError, match="a batch of 4 does not divide among 3 parts"):
        train(replace(cut, optimiser=replace(cut.optimiser, accumulate=3)), tmp_path / "no", False, Recorder())


@pytest.mark.slow
def test_weights_below_the_baseline_are_not_kept(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos, steps=30, optimiser="soap")
    good = train(recipe, tmp_path / "good", False, Recorder())
    assert good.file is not None
    floor = load_network(good.file)
    result = _fit(tiny_recipe(photos, steps=4), tmp_path / "run", _plain, floor)

    assert result.file is None
    assert result.floor_psnr_y == pytest.approx(good.best_psnr_y)
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_the_loss_receives_the_whole_batch(photos: Path, tmp_path: Path) -> None:
    seen: list[Batch] = []

    def objective_of(network: SPAN):
        def objective(batch: Batch):
            seen.append(batch)
            return _plain(network)(batch)

        return objective

    _fit(tiny_recipe(photos, steps=3), tmp_path / "run", objective_of)

    assert [batch.lr.shape for batch in seen] == [(4, 3, 8, 8)] * 3
    assert [batch.hr.shape for batch in seen] == [(4, 3, 16, 16)] * 3
    assert not torch.equal(seen[0].lr, seen[1].lr)


_STOPPING = "stopping after this step; a second Ctrl-C stops at once, and loses the steps since the last checkpoint"


@pytest.mark.usefixtures("uncollected")
def test_the_first_signal_is_reported_at_once_and_the_second_stops_at_once(photos: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    reported: list[bool] = []

    def objective_of(network: SPAN):
        def objective(batch: Batch):
            if len(recorder.losses) == 2:
                signal.raise_signal(signal.SIGTERM)
                reported.append(_STOPPING in recorder.notes)
                signal.raise_signal(signal.SIGINT)
            return _plain(network)(batch)

        return objective

    with pytest.raises(KeyboardInterrupt):
        _fit(tiny_recipe(photos), tmp_path / "run", objective_of, recorder=recorder)
    assert reported == [True]
    assert len(recorder.losses) == 2 and not any("stopped after" in note for note in recorder.notes)


@pytest.mark.usefixtures("uncollected")
def test_a_signal_during_a_callback_is_reported_after_the_callback(photos: Path, tmp_path: Path) -> None:
    during: list[str] = []

    def stop(step: int) -> None:
        if step == 3:
            signal.raise_signal(signal.SIGINT)
            during.extend(recorder.notes)

    recorder = Recorder(stop)
    with pytest.raises(KeyboardInterrupt):
        _fit(tiny_recipe(photos), tmp_path / "run", _plain, recorder=recorder)
    assert _STOPPING not in during
    assert recorder.notes[-2:] == [_STOPPING, "stopped after 4 steps; resume with --resume"]
