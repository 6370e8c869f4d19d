"""Which pictures are opened for training, and which are left out."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training import photographs, tiny_recipe

from dsclora_cli.datasets import cache
from dsclora_cli.datasets.patches import open_data
from dsclora_cli.errors import DscloraError, ImageError, UsageError
from dsclora_cli.paths import cache_dir
from dsclora_cli.recipe import DataOptions, Recipe


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


def test_unusable_pictures_are_left_out_with_their_names(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (10, 40)).save(photos / "narrow.png")
    Image.new("RGB", (1, 1)).save(photos / "dot.png")
    Image.new("RGBA", (40, 40)).save(photos / "clear.png")
    data, held_out = open_data(tiny_recipe(photos))

    assert len(data.pictures) + len(held_out.pictures) == 6
    left_out = "\n".join(data.left_out)
    assert "broken.png" in left_out
    assert "narrow.png is smaller than a patch of 16 pixels" in left_out
    assert "dot.png is smaller than a patch of 16 pixels" in left_out
    assert "clear.png has an alpha channel" in left_out


def test_without_usable_pictures_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no pictures to train on"):
        open_data(Recipe())
    with pytest.raises(UsageError, match="there is no folder"):
        open_data(tiny_recipe(tmp_path / "missing"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    with pytest.raises(
        UsageError, match=r"no picture of .*bad can be used: .*a.png: is not a picture in a known format"
    ):
        open_data(tiny_recipe(tmp_path / "bad"))
    with pytest.raises(UsageError, match=r"no folder and no set is called \"photos\" \(give .* Set5, .* DIV2K, "):
        open_data(Recipe(data=DataOptions(data=("photos",))))


def test_a_set_is_opened_by_its_name(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    with pytest.raises(
        ImageError, match=r"DIV2K cannot be fetched: .*DIV2K_train_HR.zip.*give a folder with --data DIR"
    ):
        open_data(Recipe(data=DataOptions(data=("div2k",))), offline=True)
    shutil.copytree(photos, cache_dir() / "datasets" / "DIV2K" / "HR")
    recipe = tiny_recipe(photos)
    data, _ = open_data(replace(recipe, data=replace(recipe.data, data=("div2k",))), offline=True)
    assert len(data.pictures) == 4


def test_real_lr_pictures_are_used_unchanged(photos: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for path in photos.iterdir():
        Image.open(path).resize((20, 20), Image.Resampling.NEAREST).save(small / path.name)
    Image.new("RGB", (7, 7)).save(small / "5.png")
    data, held_out = open_data(tiny_recipe(photos, lr=small))

    assert any("5.png has 7 x 7 pixels, not 20 x 20" in sentence for sentence in data.left_out)
    for name, lr, _ in held_out.load():
        assert np.array_equal(lr, np.array(Image.open(small / f"{name}.png")))


def test_progress_is_reported_for_each_picture(photos: Path) -> None:
    reported: list[tuple[int, int]] = []
    open_data(tiny_recipe(photos), on_picture=lambda done, total: reported.append((done, total)))
    assert reported == [(done, 6) for done in range(1, 7)]


def test_an_interrupted_opening_decodes_no_further_pictures(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for index in range(40):
        Image.new("RGB", (20, 20), (index, 0, 0)).save(photos / f"more{index}.png")
    reads: list[Path] = []
    read = cache.read_rgb
    monkeypatch.setattr(cache, "read_rgb", lambda path: (reads.append(path), time.sleep(0.02), read(path))[2])
    with pytest.raises(KeyboardInterrupt):
        open_data(tiny_recipe(photos), on_picture=interrupt)
    assert len(reads) < 40
    monkeypatch.undo()
    assert open_data(tiny_recipe(photos))[0].digest


def test_a_cache_that_cannot_be_written_is_an_error(photos: Path) -> None:
    cache_dir().mkdir(parents=True)
    (cache_dir() / "training").write_text("a file")
    with pytest.raises(DscloraError, match=r"cannot write .*\(free some space, or set DSCLORA_CACHE_DIR"):
        open_data(tiny_recipe(photos))
