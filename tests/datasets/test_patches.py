"""Random patches and held-out pictures, compared with whole pictures."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training import photographs, tiny_recipe

from dsclora_cli.datasets import cache
from dsclora_cli.datasets.degradation import jpeg
from dsclora_cli.datasets.patches import TrainSet, open_data
from dsclora_cli.errors import UsageError
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.recipe import DegradeOptions


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


def _whole(data: TrainSet, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    batch = data.batch(step, slice(None))
    return batch.lr, batch.hr


@pytest.mark.slow
def test_patches_are_cut_from_whole_pictures(photos: Path) -> None:
    data, _ = open_data(tiny_recipe(photos))
    pictures = [np.array(Image.open(path)) for path in sorted(photos.iterdir())]
    truths = [torch.from_numpy(p.copy()).permute(2, 0, 1) for p in pictures]
    smalls = [torch.from_numpy(downscale(p, 2)).permute(2, 0, 1) for p in pictures]
    for step in range(3):
        for lr, hr in zip(*_whole(data, step), strict=True):
            places = [
                (index, y, x)
                for index, small in enumerate(smalls)
                for y in range(13)
                for x in range(13)
                if _same_up_to_turns(small[:, y : y + 8, x : x + 8], lr)
            ]
            assert places
            assert any(
                _same_up_to_turns(truths[i][:, 2 * y : 2 * y + 16, 2 * x : 2 * x + 16], hr) for i, y, x in places
            )


def _same_up_to_turns(pixels: torch.Tensor, patch: torch.Tensor) -> bool:
    pixels = pixels.float() / 255
    views = [torch.rot90(view, turns, (1, 2)) for view in (pixels, pixels.flip(2)) for turns in range(4)]
    return any(torch.equal(view, patch) for view in views)


def test_a_batch_depends_on_seed_and_step_only(photos: Path) -> None:
    recipe = replace(tiny_recipe(photos), degrade=DegradeOptions(degrade=True))
    data, _ = open_data(recipe)
    lr, hr = _whole(data, 5)
    parts = [data.batch(5, slice(start, start + 1)) for start in range(4)]

    assert torch.equal(torch.cat([part.lr for part in parts]), lr)
    assert torch.equal(torch.cat([part.hr for part in parts]), hr)
    assert not torch.equal(_whole(data, 6)[0], lr)
    other, _ = open_data(replace(recipe, run=replace(recipe.run, seed=2)))
    assert not torch.equal(_whole(other, 5)[0], lr)


def test_pictures_are_drawn_by_their_area(tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos", count=3, side=20)
    large = photographs(tmp_path / "large", count=1, side=60) / "0.png"
    shutil.copy(large, photos / "large.png")
    recipe = tiny_recipe(photos, batch=400, val=photographs(tmp_path / "val", count=1, side=24))
    data, _ = open_data(recipe)
    of_large = _patches(downscale(np.array(Image.open(large)), 2))
    from_large = sum(_canonical(patch) in of_large for patch in _whole(data)[0])

    assert 0.68 < from_large / 400 < 0.82  # 900 of 1200 pixels of LR


def _patches(lr: np.ndarray) -> set[bytes]:
    """Return every patch of 8 pixels that a batch may hold, up to flips and turns."""
    pixels = torch.from_numpy(lr).permute(2, 0, 1).float() / 255
    height, width = lr.shape[:2]
    return {_canonical(pixels[:, y : y + 8, x : x + 8]) for y in range(height - 7) for x in range(width - 7)}


def _canonical(patch: torch.Tensor) -> bytes:
    views = [torch.rot90(view, turns, (1, 2)) for view in (patch, patch.flip(2)) for turns in range(4)]
    return min(view.contiguous().numpy().tobytes() for view in views)


@pytest.mark.slow
def test_a_degraded_patch_equals_a_patch_of_the_degraded_picture(photos: Path) -> None:
    still = DegradeOptions(degrade=True, clean=0.0, blur=(0, 0), noise=(0, 0), quality=(30, 30), subsampled=1.0)
    data, held_out = open_data(replace(tiny_recipe(photographs(photos, side=120)), degrade=still))
    degraded = [jpeg(np.array(data.cache.open(picture.lr)), 30) for picture in data.pictures]
    every = set().union(*map(_patches, degraded))

    assert all(_canonical(patch) in every for step in range(10) for patch in _whole(data, step)[0])
    for picture, (_, lr, _) in zip(held_out.pictures, held_out.load(), strict=True):
        assert np.array_equal(lr, jpeg(np.array(data.cache.open(picture.lr)), 30))


def test_degradation_changes_lr_and_not_hr(photos: Path) -> None:
    plain = tiny_recipe(photos)
    dirty = replace(plain, degrade=DegradeOptions(degrade=True, clean=0.0, quality=(40, 40)))
    clean_lr, clean_hr = _whole(open_data(plain)[0])
    lr, hr = _whole(open_data(dirty)[0])

    assert torch.equal(hr, clean_hr)
    error = (lr - clean_lr).abs().mean(dim=(1, 2, 3)) * 255
    assert (error > 0.5).all()
    assert (error < 30).all()


def test_held_out_pictures_are_whole_and_never_trained_on(photos: Path) -> None:
    train_set, held_out = open_data(tiny_recipe(photos))
    held = list(held_out.load())

    assert len(held) == 2
    assert len(train_set.pictures) == 4
    assert not {name for name, _, _ in held} & {picture.name for picture in train_set.pictures}
    for name, lr, hr in held:
        truth = np.array(Image.open(photos / f"{name}.png"))
        assert np.array_equal(hr, truth)
        assert np.array_equal(lr, downscale(truth, 2))


def test_val_names_a_folder_of_held_out_pictures(photos: Path, tmp_path: Path) -> None:
    val = tmp_path / "val"
    val.mkdir()
    shutil.copy(photos / "3.png", val / "again.png")
    train_set, held_out = open_data(tiny_recipe(photos, val=val))

    assert [name for name, _, _ in held_out.load()] == ["again"]
    assert len(train_set.pictures) == 5


def test_the_split_depends_on_contents_not_on_names(photos: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for path in photos.iterdir():
        shutil.copy(path, renamed / f"{9 - int(path.stem)}.png")
    first, second = (open_data(tiny_recipe(folder)) for folder in (photos, renamed))

    assert first[0].digest == second[0].digest
    assert [p.key for p in first[1].pictures] == [p.key for p in second[1].pictures]


def test_a_single_picture_is_not_enough(tmp_path: Path) -> None:
    photos = photographs(tmp_path / "one", count=1)
    with pytest.raises(UsageError, match="only one picture is usable"):
        open_data(tiny_recipe(photos))
    with pytest.raises(UsageError, match=r"one holds every picture of --data"):
        open_data(tiny_recipe(photos, val=photos))


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_the_split_leaves_a_picture_on_either_side(tmp_path: Path, share: float) -> None:
    data, held_out = open_data(tiny_recipe(photographs(tmp_path / "two", count=2), val_share=share))
    assert len(data.pictures) == len(held_out.pictures) == 1


def test_pictures_are_decoded_and_downscaled_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_data(tiny_recipe(photos))
    for name in ("downscale", "open_pages", "sha256_of"):
        monkeypatch.setattr(cache, name, lambda *_: pytest.fail("made again"))
    data, _ = open_data(tiny_recipe(photos))

    assert len(data.pictures) == 4
    monkeypatch.undo()
    Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(photos / f"{data.pictures[0].name}.png")
    assert open_data(tiny_recipe(photos))[0].digest != data.digest


def test_the_teachers_output_is_cut_at_the_place_of_hr(photos: Path) -> None:
    seen = []

    def upscale(lr: np.ndarray) -> np.ndarray:
        seen.append(lr.shape)
        return np.repeat(np.repeat(lr, 2, 0), 2, 1).astype(np.float32) / 255 - 0.25

    data, _ = open_data(tiny_recipe(photos))
    batch = data.with_teacher(upscale, "doubled").batch(0, slice(None))
    again = data.with_teacher(upscale, "doubled").batch(0, slice(None))

    assert len(seen) == 4
    assert batch.teacher is not None
    assert torch.allclose(batch.teacher, torch.nn.functional.interpolate(batch.lr, scale_factor=2) - 0.25, atol=1e-4)
    assert torch.equal(again.teacher, batch.teacher)  # type: ignore[arg-type]
    shown: list[tuple[int, int]] = []
    data.with_teacher(upscale, "another", lambda done, total: shown.append((done, total)))
    assert shown == [(done, len(data.pictures)) for done in range(1, len(data.pictures) + 1)]
    assert len(seen) == 8
