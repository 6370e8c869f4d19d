"""Stopped and crashed runs resume to the result of an unbroken run."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training import Recorder, photographs, tiny_recipe

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import read_recipe
from dsclora_cli.training.checkpoint import RunState, TrainingProgress
from dsclora_cli.training.train import train
from dsclora_cli.weights.checkpoint import save_network

pytestmark = pytest.mark.slow


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


@pytest.mark.usefixtures("uncollected")
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


def _stopped(recipe: Recipe, run: Path) -> None:
    """Train half of a run."""

    def stop(step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt

    often = replace(recipe, run=replace(recipe.run, checkpoint_minutes=0))
    with pytest.raises(KeyboardInterrupt):
        train(often, run, False, Recorder(stop))


def _moved(path: Path) -> Path:
    return path.rename(path.with_name(f"{path.name} moved"))


@pytest.mark.parametrize("parts", ["data and lr", "val and init"])
def test_a_run_resumes_where_its_files_have_moved(photos: Path, tmp_path: Path, parts: str) -> None:
    def with_files(data: Path, lr: Path, val: Path, init: Path) -> Recipe:
        if parts == "data and lr":
            return tiny_recipe(data, lr=lr)
        recipe = tiny_recipe(data, val=val)
        return replace(recipe, network=replace(recipe.network, init=str(init)))

    small = tmp_path / "small"
    small.mkdir()
    for path in photos.iterdir():
        Image.open(path).resize((20, 20)).save(small / path.name)
    torch.manual_seed(3)
    init = tmp_path / "init.safetensors"
    save_network(SPAN(SpanConfig(channels=4, blocks=1, scale=2)), init, "")
    files = photos, small, photographs(tmp_path / "val", 1, 24), init
    train(with_files(*files), tmp_path / "through", False, Recorder())
    _stopped(with_files(*files), tmp_path / "cut")

    for folder in (photos, small):
        for path in folder.iterdir():
            path.rename(path.with_stem(f"picture{path.stem}"))
    moved = with_files(*map(_moved, files))
    later = Recorder()
    train(moved, tmp_path / "cut", True, later)
    assert not [note for note in later.notes if "changed" in note]
    # The files differ in their text of origin, which has the digest of the recipe, paths included.
    cut, through = (load_file(tmp_path / run / "last.safetensors") for run in ("cut", "through"))
    assert len(later.losses) == 7 and cut.keys() == through.keys()
    assert all(torch.equal(cut[name], through[name]) for name in cut)
    assert read_recipe(tmp_path / "cut" / "recipe.toml") == moved


def test_other_pictures_in_another_folder_are_refused_and_in_the_same_folder_noted(
    photos: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(photos)
    _stopped(recipe, tmp_path / "run")
    other = photographs(tmp_path / "other", count=7)
    with pytest.raises(UsageError, match=r"run is a run of other pictures or weights \(give the files of the run"):
        train(tiny_recipe(other), tmp_path / "run", True, Recorder())
    with pytest.raises(UsageError, match="is a run of another recipe"):
        train(tiny_recipe(_moved(photos), batch=2), tmp_path / "run", True, Recorder())

    other.rename(photos)
    later = Recorder()
    train(recipe, tmp_path / "run", True, later)
    assert "the pictures or weights of the run have changed since its last checkpoint" in later.notes


def test_a_checkpoint_of_an_older_version_resumes_in_its_own_folders_only(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos)
    _stopped(recipe, tmp_path / "run")
    path = tmp_path / "run" / "state.pt"
    state = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in state.items() if key not in {"settings", "content"}}, path)
    moved = tiny_recipe(Path(shutil.copytree(photos, tmp_path / "copy")))
    with pytest.raises(UsageError, match="is a run of another recipe"):
        train(moved, tmp_path / "run", True, Recorder())
    later = Recorder()
    train(recipe, tmp_path / "run", True, later)
    assert later.notes[0] == "resuming after 5 steps"


def test_a_full_disk_leaves_the_previous_checkpoint_intact(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(photos)
    recipe = replace(recipe, run=replace(recipe.run, checkpoint_minutes=0))
    saved: list[bytes] = []
    real, limit = torch.save, 0

    def fill(state: object, path: Path) -> None:
        if len(saved) == limit:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        real(state, path)
        saved.append(path.read_bytes())

    monkeypatch.setattr(torch, "save", fill)
    full = r"cannot write .*state.pt: No space left on device "
    with pytest.raises(DscloraError, match=full + r"\(free some space, then --resume\)"):
        train(recipe, tmp_path / "run", False, Recorder())
    limit = 3
    with pytest.raises(
        DscloraError, match=full + r"\(the previous checkpoint is intact; free some space, then --resume\)"
    ):
        train(recipe, tmp_path / "run", True, Recorder())
    assert (tmp_path / "run" / "state.pt").read_bytes() == saved[-1]
    assert not list((tmp_path / "run").glob(".dsclora*"))


@pytest.mark.parametrize(
    "change",
    [
        {"trained": {}},
        {"trained": None},
        {"optimiser": {}},
        {"progress": {"step": "x"}},
        {"progress": {"step": -1}},
        {"progress": {"step": 1, "count": 1}},
        {"progress": None},
    ],
)
def test_a_checkpoint_that_another_program_has_changed_is_an_error_of_one_line(
    tmp_path: Path, change: dict[str, object]
) -> None:
    layer = torch.nn.Linear(2, 2)
    parts = {"trained": layer, "optimiser": torch.optim.Adam(layer.parameters())}
    state, path = RunState(Recipe(), "content", parts, TrainingProgress(step=3)), tmp_path / "state.pt"
    state.save(path)
    assert state.load(path, torch.device("cpu")) == ""
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(UsageError, match="cannot be read as a checkpoint") as refusal:
        state.load(path, torch.device("cpu"))
    assert "\n" not in str(refusal.value)


def test_a_damaged_checkpoint_is_an_error_of_one_line(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(photos, steps=1)
    train(recipe, tmp_path / "run", False, Recorder())
    (tmp_path / "run" / "state.pt").write_bytes(b"PK nonsense")
    with pytest.raises(UsageError, match="cannot be read as a checkpoint") as refusal:
        train(recipe, tmp_path / "run", True, Recorder())
    assert "\n" not in str(refusal.value)
