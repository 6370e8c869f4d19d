import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training import photographs, tiny_recipe

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.paths import cache_dir
from dsclora_cli.recipe import DegradeOptions, Recipe
from dsclora_cli.tasks import traincache
from dsclora_cli.tasks.trainset import TrainSet, open_data


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


def _whole(data: TrainSet, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    batch = data.batch(step, slice(None))
    return batch.lr, batch.hr


def test_patches_are_those_of_the_whole_pictures(photos: Path) -> None:
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


def test_degraded_input_keeps_its_truth(photos: Path) -> None:
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
    held = list(held_out.pictures())

    assert len(held) == 2
    assert len(train_set.pictures) == 4
    assert not {name for name, _, _ in held} & {picture.name for picture in train_set.pictures}
    for name, lr, hr in held:
        truth = np.array(Image.open(photos / f"{name}.png"))
        assert np.array_equal(hr, truth)
        assert np.array_equal(lr, downscale(truth, 2))


def test_a_folder_of_its_own_is_held_out(photos: Path, tmp_path: Path) -> None:
    val = tmp_path / "val"
    val.mkdir()
    shutil.copy(photos / "3.png", val / "again.png")
    train_set, held_out = open_data(tiny_recipe(photos, val=val))

    assert [name for name, _, _ in held_out.pictures()] == ["again"]
    assert len(train_set.pictures) == 5


def test_the_split_follows_contents_not_names(photos: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for path in photos.iterdir():
        shutil.copy(path, renamed / f"{9 - int(path.stem)}.png")
    first, second = (open_data(tiny_recipe(folder)) for folder in (photos, renamed))

    assert first[0].digest == second[0].digest
    assert [p.key for p in first[1].chosen] == [p.key for p in second[1].chosen]


def test_pictures_that_cannot_be_used_are_left_out_by_name(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (10, 40)).save(photos / "narrow.png")
    Image.new("RGBA", (40, 40)).save(photos / "clear.png")
    data, held_out = open_data(tiny_recipe(photos))

    assert len(data.pictures) + len(held_out.chosen) == 6
    told = "\n".join(data.left_out)
    assert "broken.png" in told
    assert "narrow.png holds no patch of 16 pixels" in told
    assert "clear.png has an alpha channel" in told


def test_without_pictures_there_is_no_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no pictures to train on"):
        open_data(Recipe())
    with pytest.raises(UsageError, match="no folder"):
        open_data(tiny_recipe(tmp_path / "missing"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="of 0 usable pictures none is left"):
        open_data(tiny_recipe(tmp_path / "bad"))


def test_real_pairs_are_used_as_they_are(photos: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for path in photos.iterdir():
        Image.open(path).resize((20, 20), Image.Resampling.NEAREST).save(small / path.name)
    Image.new("RGB", (7, 7)).save(small / "5.png")
    data, held_out = open_data(tiny_recipe(photos, lr=small))

    assert any("5.png has 7 x 7 pixels, not 20 x 20" in sentence for sentence in data.left_out)
    for name, lr, _ in held_out.pictures():
        assert np.array_equal(lr, np.array(Image.open(small / f"{name}.png")))


def test_lr_is_made_once(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_data(tiny_recipe(photos))
    for name in ("downscale", "read_rgb", "sha256_of"):
        monkeypatch.setattr(traincache, name, lambda *_: pytest.fail("made again"))
    data, _ = open_data(tiny_recipe(photos))

    assert len(data.pictures) == 4
    monkeypatch.undo()
    Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(photos / f"{data.pictures[0].name}.png")
    assert open_data(tiny_recipe(photos))[0].digest != data.digest


def test_a_teachers_output_is_cut_like_the_truth(photos: Path) -> None:
    seen = []

    def answer(lr: np.ndarray) -> np.ndarray:
        seen.append(lr.shape)
        return np.repeat(np.repeat(lr, 2, 0), 2, 1).astype(np.float32) / 255 - 0.25

    data, _ = open_data(tiny_recipe(photos))
    batch = data.with_teacher(answer, "doubled").batch(0, slice(None))
    again = data.with_teacher(answer, "doubled").batch(0, slice(None))

    assert len(seen) == 4
    assert batch.teacher is not None
    assert torch.allclose(batch.teacher, torch.nn.functional.interpolate(batch.lr, scale_factor=2) - 0.25, atol=1e-4)
    assert torch.equal(again.teacher, batch.teacher)  # type: ignore[arg-type]
    data.with_teacher(answer, "another")
    assert len(seen) == 8


def test_a_cache_that_cannot_be_written_is_told(photos: Path) -> None:
    cache_dir().mkdir(parents=True)
    (cache_dir() / "training").write_text("a file")
    with pytest.raises(DscloraError, match=r"cannot write .*\(free some space, or set DSCLORA_CACHE_DIR"):
        open_data(tiny_recipe(photos))
