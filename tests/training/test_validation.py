"""Scores on held-out pictures."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from training import Recorder, photographs, tiny_recipe

from dsclora_cli.datasets.patches import open_data
from dsclora_cli.distillation.distill import distill
from dsclora_cli.errors import UsageError
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.recipe import DegradeOptions, DistillOptions
from dsclora_cli.training.train import train
from dsclora_cli.training.validation import Sample, mean_psnr, validate
from dsclora_cli.weights.checkpoint import save_network


def test_held_out_pictures_are_upscaled_whole_and_scored_as_eval_scores(tmp_path: Path) -> None:
    _, held_out = open_data(tiny_recipe(photographs(tmp_path / "photos")))
    torch.manual_seed(1)
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=2)).eval()
    samples = validate(network, held_out, torch.device("cpu"))

    assert len(samples) == 2
    for sample, (name, lr, hr) in zip(samples, held_out.load(), strict=True):
        assert sample.name == name and np.array_equal(sample.lr, lr) and np.array_equal(sample.hr, hr)
        with torch.no_grad():
            output = network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0)
        expected = (output.clamp(0, 1) * 255).round().numpy()
        assert np.abs(sample.sr - expected).max() <= 1  # fused operations round differently
        assert sample.psnr_y == psnr_y(sample.sr, hr, 2)
    assert mean_psnr(samples) == sum(sample.psnr_y for sample in samples) / 2
    assert mean_psnr(samples) == pytest.approx(np.mean([sample.psnr_y for sample in samples]))


def test_a_mean_is_finite_and_an_exact_picture_counts_at_most_100_db() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    exact, other = (Sample("x", score, pixels, pixels, pixels) for score in (np.inf, 30.0))
    assert mean_psnr([exact, other]) == 65
    assert mean_psnr([exact]) == 100


def _flat_pictures(folder: Path) -> None:
    """Write a white picture, a grey picture, and a book with a blank second page."""
    folder.mkdir(exist_ok=True)
    for name, level in (("white", 255), ("grey", 119)):
        Image.new("RGB", (40, 48), (level, level, level)).save(folder / f"{name}.png")
    with tifffile.TiffWriter(folder / "book.tif") as book:
        for page in (
            np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8),
            np.full((40, 40, 3), 250, np.uint8),
        ):
            book.write(page, photometric="rgb", contiguous=False)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_flat_pictures_are_held_out_and_not_scored(tmp_path: Path, scale: int) -> None:
    photos, val = photographs(tmp_path / "photos"), photographs(tmp_path / "val", count=2, side=44)
    _flat_pictures(val)
    shutil.copy(val / "white.png", photos)
    recipe = replace(tiny_recipe(photos, val=val), degrade=DegradeOptions(degrade=True, clean=0.0))
    recipe = replace(recipe, network=replace(recipe.network, scale=scale))
    data, held_out = open_data(recipe)

    scored = list(held_out.load())
    assert sorted(name for name, _, _ in scored) == ["0", "1", "book"]
    assert {picture.name for picture in data.pictures} == {"0", "1", "2", "3", "4", "5"}
    (note,) = (note for note in data.notes if "not scored" in note)
    names = note.partition(": held out, but not scored: ")[0]
    assert set(names.split(", ")) == {f"{val / name}" for name in ("white.png", "grey.png", "book.tif page 2")}
    # The other pictures are degraded as if the flat pictures were scored too.
    every = {name: lr for name, lr, _ in replace(held_out, flat=frozenset()).load()}
    assert len(every) == 6
    assert all(np.array_equal(lr, every[name]) for name, lr, _ in scored)


@pytest.mark.parametrize("seed", range(6))
def test_the_seed_holds_out_a_picture_that_can_be_scored(tmp_path: Path, seed: int) -> None:
    photos = photographs(tmp_path / "photos", count=3)
    for level in range(12):
        Image.new("L", (40, 48), 20 * level).save(photos / f"blank{level}.png")
    recipe = tiny_recipe(photos, val_share=0.1)
    data, held_out = open_data(replace(recipe, run=replace(recipe.run, seed=seed)))
    assert len(list(held_out.load())) >= 1 and len(data.pictures) + len(held_out.pictures) == 15


def test_without_a_picture_to_score_there_is_an_error(tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos")
    _flat_pictures(tmp_path / "val")
    (tmp_path / "val" / "book.tif").unlink()
    with pytest.raises(UsageError, match=r"png: held out, but nearly flat, .* \(hold out more .*--val"):
        open_data(tiny_recipe(photos, val=tmp_path / "val"))


def test_a_blank_page_changes_no_score_and_no_result(tmp_path: Path) -> None:
    photos, val = photographs(tmp_path / "photos"), photographs(tmp_path / "val", count=1, side=44)
    torch.manual_seed(1)
    base = SPAN(SpanConfig(channels=4, blocks=1, scale=2)).eval()
    save_network(base, tmp_path / "base.safetensors", "")
    recipe = tiny_recipe(photos, steps=8, val=val)
    adapting = DistillOptions(base=str(tmp_path / "base.safetensors"), ad=0.0, ts=0.0, adapters="none")
    found = []
    for _ in range(2):
        for number, each in enumerate((recipe, replace(recipe, distill=adapting))):
            run, recorder = tmp_path / f"run{len(found)}", Recorder()
            result = (distill if number else train)(each, run, False, recorder, True)
            found.append([result.best_psnr_y, result.floor_psnr_y, *(score.psnr_y for score in recorder.scores)])
        Image.new("RGB", (40, 40), (128, 128, 128)).save(val / "blank.png")
    assert found[:2] == found[2:]
    assert found[1][1] == mean_psnr(validate(base, open_data(recipe)[1], torch.device("cpu")))
