"""Distillation from start to end on tiny networks: what is saved, resuming, and networks that do not fit together."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training import Recorder, photographs, tiny_recipe

from dsclora_cli.datasets.patches import open_data
from dsclora_cli.distillation import distill as distilling
from dsclora_cli.distillation.distill import BUILDERS, distill
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.models.initialization import lsuv_init
from dsclora_cli.models.lora import merge_adapters
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import sha256_of
from dsclora_cli.recipe import DistillOptions, Recipe
from dsclora_cli.recipe_toml import read_recipe
from dsclora_cli.weights.adapters import build_adapters, load_adapters
from dsclora_cli.weights.checkpoint import load_network, save_network

pytestmark = pytest.mark.slow


def network(path: Path, seed: int = 0, **changes: object) -> Path:
    """A network file with features at a scale that training can use."""
    torch.manual_seed(seed)
    span = SPAN(SpanConfig(**{"channels": 4, "blocks": 2, "scale": 2, **changes}))  # type: ignore[arg-type]
    lsuv_init(span, torch.rand(2, 3, 12, 12))
    with torch.no_grad():
        span.upsampler[0].weight.mul_(0.01)
        span.upsampler[0].bias.fill_(0.45)
    save_network(span, path, "")
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return network(tmp_path / "base.safetensors")


@pytest.fixture
def recipe(tmp_path: Path, base: Path) -> Recipe:
    options = DistillOptions(base=str(base), ad=0.1, ts=0.1, taps=("block_1.*", "block_2"))
    plain = tiny_recipe(photographs(tmp_path / "photos"), steps=12)
    return replace(plain, distill=options, run=replace(plain.run, validate=6))


def changed(recipe: Recipe, **options: object) -> Recipe:
    assert recipe.distill is not None
    return replace(recipe, distill=replace(recipe.distill, **options))  # type: ignore[arg-type]


def test_adapters_better_than_the_base_are_saved(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    result = distill(recipe, tmp_path / "run", False, recorder, True)
    assert result.file == tmp_path / "run" / "adapter.safetensors"
    assert result.floor_psnr_y is not None
    assert result.best_psnr_y > result.floor_psnr_y + 0.5
    assert set(recorder.scores[-1].terms) == {"rec", "ts", "ad"}
    adapter = load_adapters(result.file)
    assert adapter.base_sha256 == sha256_of(base)
    assert json.loads(adapter.training)["step"] == result.best_step
    before = load_network(base)
    merged = merge_adapters(before, build_adapters(before, sha256_of(base), adapter)).state_dict()
    for name, tensor in before.state_dict().items():
        is_adapted = name.endswith(".weight") and name.startswith(("block_", "conv_2", "upsampler"))
        assert torch.equal(merged[name], tensor) != is_adapted, name
    assert read_recipe(tmp_path / "run" / "recipe.toml").run.amp == "off"


def test_adapters_no_better_than_the_base_are_not_saved(recipe: Recipe, tmp_path: Path) -> None:
    frozen = replace(recipe, optimiser=replace(recipe.optimiser, learning_rate=0.0))
    result = distill(frozen, tmp_path / "run", False, Recorder(), True)
    assert result.file is None
    assert not (tmp_path / "run" / "adapter.safetensors").exists()
    assert result.best_psnr_y == result.floor_psnr_y


def test_a_resumed_run_ends_with_the_same_bytes_as_an_uninterrupted_run(recipe: Recipe, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    sampled = replace(changed(recipe, positions=9), run=replace(recipe.run, steps=6, checkpoint_minutes=0))
    whole = distill(sampled, tmp_path / "whole", False, Recorder(), True)
    with pytest.raises(KeyboardInterrupt):
        distill(sampled, tmp_path / "cut", False, Recorder(stop), True)
    again = distill(sampled, tmp_path / "cut", True, Recorder(), True)
    assert whole.file is not None
    assert again.file is not None
    assert whole.file.read_bytes() == again.file.read_bytes()


def test_a_run_resumes_where_networks_and_pictures_of_a_teacher_have_moved(
    recipe: Recipe, base: Path, tmp_path: Path
) -> None:
    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    def with_paths(paths: dict[str, Path]) -> Recipe:
        return changed(often, **{name: str(path) for name, path in paths.items()})

    often = replace(recipe, run=replace(recipe.run, steps=6, validate=6, checkpoint_minutes=0))
    answers = Path(shutil.copytree(tmp_path / "photos", tmp_path / "answers"))
    teacher = Path(shutil.copy(base, tmp_path / "teacher.safetensors"))
    paths = {"base": base, "teacher": teacher, "teacher_images": answers}
    with pytest.raises(KeyboardInterrupt):
        distill(with_paths(paths), tmp_path / "cut", False, Recorder(stop), True)
    moved = {name: path.rename(tmp_path / f"moved {path.name}") for name, path in paths.items()}

    black = photographs(tmp_path / "black")
    for path in black.iterdir():
        Image.new("RGB", (40, 40)).save(path)
    random = network(tmp_path / "random.safetensors", seed=5)
    for name, other in (("base", random), ("teacher", random), ("teacher_images", black)):
        with pytest.raises(UsageError, match="is a run of other pictures or weights"):
            distill(with_paths({**moved, name: other}), tmp_path / "cut", True, Recorder(), True)
    assert distill(with_paths(moved), tmp_path / "cut", True, Recorder(), True).steps == 6


def test_a_second_run_continues_an_adapter(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    first = distill(recipe, tmp_path / "first", False, Recorder(), True).file
    assert first is not None
    # Without a learning rate nothing changes, so the second run ends where the first ended.
    still = replace(recipe, optimiser=replace(recipe.optimiser, learning_rate=0.0), run=replace(recipe.run, steps=2))
    larger = replace(changed(still, init_adapter=first), data=replace(still.data, patch=12))
    second = distill(larger, tmp_path / "second", False, Recorder(), True)
    assert second.file is not None and second.floor_psnr_y is not None
    assert second.best_psnr_y > second.floor_psnr_y  # the base is the score to beat, in the second run too
    before, after = load_adapters(first), load_adapters(second.file)
    assert after.base_sha256 == before.base_sha256 and after.tensors.keys() == before.tensors.keys()
    for name, tensor in before.tensors.items():
        torch.testing.assert_close(after.tensors[name], tensor)
    trained = distill(replace(larger, optimiser=recipe.optimiser), tmp_path / "third", False, Recorder(), True)
    assert trained.file is not None
    assert any(
        not torch.equal(load_adapters(trained.file).tensors[name], each) for name, each in before.tensors.items()
    )

    moved = first.rename(tmp_path / "moved.safetensors")
    assert distill(changed(larger, init_adapter=moved), tmp_path / "second", True, Recorder(), True).steps == 2
    with pytest.raises(UsageError, match="is a run of other pictures or weights"):
        distill(changed(larger, init_adapter=trained.file), tmp_path / "second", True, Recorder(), True)


def test_an_adapter_of_other_ranks_or_of_another_base_is_not_continued(recipe: Recipe, tmp_path: Path) -> None:
    first = distill(replace(recipe, run=replace(recipe.run, steps=1)), tmp_path / "first", False, Recorder(), True)
    start = changed(recipe, init_adapter=tmp_path / "first" / "last.safetensors")
    assert first.steps == 1
    with pytest.raises(
        UsageError, match=r"last\.safetensors has other ranks than --adapters small, at block_1\.c1_r\."
    ):
        distill(changed(start, adapters="small"), tmp_path / "run", False, Recorder(), True)
    with pytest.raises(UsageError, match="has other ranks than --adapters figure, at conv_cat"):
        distill(changed(start, adapters="figure"), tmp_path / "run", False, Recorder(), True)
    other = network(tmp_path / "other.safetensors", seed=3)
    with pytest.raises(WeightsError, match="is an adapter for weights with sha256"):
        distill(changed(start, base=str(other)), tmp_path / "run", False, Recorder(), True)
    assert not (tmp_path / "run").exists()


def test_the_affinities_of_a_wider_teacher_teach_adapters(recipe: Recipe, tmp_path: Path) -> None:
    wide, recorder = network(tmp_path / "wide.safetensors", seed=4, channels=6), Recorder()
    taps = ("block_1", "block_2", "conv_2")
    distill(changed(recipe, teacher=str(wide), taps=taps, adapters="figure"), tmp_path / "run", False, recorder, True)
    assert recorder.scores[-1].terms["ad"] > 0


def test_adapters_none_trains_all_weights_of_the_base(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    result = distill(changed(recipe, adapters="none"), tmp_path / "run", False, Recorder(), True)
    assert result.file == tmp_path / "run" / "best.safetensors"
    assert result.floor_psnr_y is not None
    assert result.best_psnr_y > result.floor_psnr_y
    trained = load_network(result.file).state_dict()
    assert not any(torch.equal(tensor, trained[name]) for name, tensor in load_network(base).state_dict().items())
    assert read_recipe(tmp_path / "run" / "recipe.toml").run.amp == "auto"


def test_logits_trains_a_network_of_the_shape_in_the_recipe(recipe: Recipe, tmp_path: Path) -> None:
    recorder = Recorder()
    teacher = network(tmp_path / "teacher.safetensors", channels=6, blocks=3)
    own = changed(recipe, method="logits", base=None, teacher=str(teacher), ad=1.0)
    result = distill(own, tmp_path / "run", False, recorder, True)
    assert result.file == tmp_path / "run" / "best.safetensors"
    assert result.floor_psnr_y is None
    assert load_network(result.file).config == SpanConfig(channels=4, blocks=1, scale=2)
    assert set(recorder.scores[-1].terms) == {"rec", "ts"}


@pytest.mark.parametrize("kind", ["whole", "ensemble"])
def test_the_teacher_can_see_whole_pictures(kind: str, recipe: Recipe, base: Path, tmp_path: Path, monkeypatch) -> None:
    """A batch then has crops of the teacher's output for the whole picture; `ensemble` averages flips and turns."""
    seen = []
    build = BUILDERS["dsclora"]

    def watch(context):
        seen.append(context)
        return build(context)

    monkeypatch.setattr(distilling, "BUILDERS", {"dsclora": watch})
    short = replace(changed(recipe, teacher_images=kind), run=replace(recipe.run, steps=2))
    distill(short, tmp_path / "run", False, Recorder(), True)
    (context,) = seen
    picture = context.data.pictures[0]
    lr = torch.from_numpy(np.array(context.data.cache.open(picture.lr))).permute(2, 0, 1)[None].float() / 255
    turns = [(k, f) for k in range(4) for f in (False, True)] if kind == "ensemble" else [(0, False)]
    answers = []
    for k, flip in turns:
        x = torch.rot90(lr.flip(3) if flip else lr, k, (2, 3))
        with torch.no_grad():
            y = torch.rot90(load_network(base)(x), -k, (2, 3))
        answers.append(y.flip(3) if flip else y)
    expected = torch.stack(answers).mean(0).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    stored = context.data.cache.open(picture.teacher) / 16384
    assert np.abs(stored - expected).max() < 1e-4
    batch = context.data.batch(0, slice(None))
    assert batch.teacher.shape == batch.hr.shape
    assert open_data(short, True)[0].batch(0, slice(None)).teacher is None


@pytest.mark.parametrize("method", ["dsclora", "fd", "fakd", "facd"])
def test_a_folder_of_pictures_serves_the_output_term_and_the_network_the_feature_maps(
    method: str, recipe: Recipe, base: Path, tmp_path: Path
) -> None:
    (tmp_path / "answers").mkdir()
    for path in (tmp_path / "photos").iterdir():
        Image.new("RGB", (40, 40), (255, 255, 255)).save(tmp_path / "answers" / path.name)
    own = {} if method == "dsclora" else {"method": method, "base": None, "teacher": str(base), "taps": ()}
    heavy = changed(recipe, teacher_images=str(tmp_path / "answers"), rec=0.0, ts=5.0, **own)
    bright, recorder = replace(heavy, run=replace(heavy.run, steps=6)), Recorder()
    distill(bright, tmp_path / "run", False, recorder, True)
    assert set(recorder.scores[-1].terms) == {"ts", "ad" if method == "dsclora" else method}
    # Nothing but the white pictures draws the output from the base's to white.
    assert recorder.scores[-1].terms["ts"] > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"taps": ("block_3.*",)}, "no feature map's name matches 'block_3"),
        ({"adapters": "block_7:2"}, "no convolution's name matches 'block_7'"),
        ({"teacher": "flat"}, "the teacher has no feature map block_2"),
        ({"teacher": "large"}, "large upscales by 3, not by 2 (give --scale 3)"),
    ],
)
def test_networks_that_do_not_fit_are_refused(
    options: dict[str, object], message: str, recipe: Recipe, tmp_path: Path
) -> None:
    network(tmp_path / "flat.safetensors", blocks=1)
    network(tmp_path / "large.safetensors", scale=3)
    if "teacher" in options:
        options = {"teacher": str(tmp_path / f"{options['teacher']}.safetensors")}
    with pytest.raises(UsageError) as caught:
        distill(changed(recipe, **options), tmp_path / "run", False, Recorder(), True)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def facd_recipe(recipe: Recipe, teacher: Path, distance: str | None) -> Recipe:
    return changed(recipe, method="facd", base=None, teacher=str(teacher), taps=(), feature_distance=distance)


def test_facd_compares_maps_by_l2_unless_told_otherwise(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    weights = {}
    for distance in (None, "l2", "l1"):
        distill(facd_recipe(recipe, base, distance), tmp_path / str(distance), False, Recorder(), True)
        weights[distance] = (tmp_path / str(distance) / "last.safetensors").read_bytes()
    named = read_recipe(tmp_path / "None" / "recipe.toml").distill
    assert named is not None and named.feature_distance == "l2"
    assert weights[None] == weights["l2"] != weights["l1"]


def test_the_shown_loss_is_the_loss_of_the_log(recipe: Recipe, base: Path, tmp_path: Path) -> None:
    recorder, known = Recorder(), facd_recipe(recipe, base, None)
    distill(replace(known, run=replace(known.run, steps=3, validate=3)), tmp_path / "run", False, recorder, True)
    (score,) = recorder.scores
    assert "passed" in score.facts and "passed" not in score.terms
    assert sum(recorder.losses) / 3 == pytest.approx(score.loss) == pytest.approx(sum(score.terms.values()))


def test_a_facd_run_from_when_l1_was_the_default_resumes_with_l1(
    recipe: Recipe, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    def last(run: str) -> dict[str, torch.Tensor]:
        return load_network(tmp_path / run / "last.safetensors").state_dict()

    frequent = replace(recipe, run=replace(recipe.run, steps=6, checkpoint_minutes=0))
    distill(facd_recipe(frequent, base, "l1"), tmp_path / "named", False, Recorder(), True)
    with monkeypatch.context() as earlier:
        earlier.setattr(distilling, "_facd_distance", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            distill(facd_recipe(frequent, base, None), tmp_path / "unnamed", False, Recorder(stop), True)
    distill(facd_recipe(frequent, base, None), tmp_path / "unnamed", True, Recorder(), True)
    assert all(torch.equal(tensor, last("named")[name]) for name, tensor in last("unnamed").items())
