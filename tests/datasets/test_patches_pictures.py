"""Which pictures are opened for training, and which are left out."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from sets import circular_tiff
from training import photographs, tiny_recipe

from dsclora_cli.datasets import cache
from dsclora_cli.datasets.patches import TrainSet, open_data
from dsclora_cli.errors import DscloraError, ImageError, UsageError
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.paths import cache_dir
from dsclora_cli.recipe import DataOptions, DegradeOptions, NetworkOptions, Recipe


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


def test_pictures_of_one_name_are_all_used_where_nothing_is_paired(photos: Path) -> None:
    (photos / "1.png").rename(photos / "0_HR.png")
    Image.open(photos / "2.png").save(photos / "3.bmp")
    data, held_out = open_data(tiny_recipe(photos))
    assert {each.file for each in (*data.pictures, *held_out.pictures)} == set(photos.iterdir())


def test_unusable_pictures_are_left_out_with_their_names(photos: Path) -> None:
    (photos / "broken.png").write_bytes(b"no picture")
    Image.new("RGB", (10, 40)).save(photos / "narrow.png")
    Image.new("RGB", (1, 1)).save(photos / "dot.png")
    data, held_out = open_data(tiny_recipe(photos))

    assert len(data.pictures) + len(held_out.pictures) == 6
    left_out = "\n".join(data.notes)
    assert "broken.png" in left_out
    assert "narrow.png is smaller than a patch of 16 pixels" in left_out
    assert "dot.png is smaller than a patch of 16 pixels" in left_out


def test_scans_are_converted_with_a_note_and_every_page_is_used(photos: Path) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(photos / "deep.tif", rng.integers(0, 65536, (40, 40), np.uint16))
    with tifffile.TiffWriter(photos / "book.tif") as book:
        for side in (40, 30, 50):
            book.write(rng.integers(0, 256, (side, 40, 3), np.uint8), photometric="rgb", contiguous=False)
    for index in range(7):
        Image.fromarray(rng.integers(0, 256, (40, 40, 4), np.uint8)).save(photos / f"clear{index}.png")
    data, held_out = open_data(tiny_recipe(photos, patch=16))

    pictures = {picture.name: picture for picture in (*data.pictures, *held_out.pictures)}
    assert len(pictures) == 6 + 1 + 2 + 7
    assert pictures["book"].size == (20, 20)
    assert pictures["book page 3"].size == (25, 20)
    notes = "\n".join(data.notes).replace(f"{photos}{os.sep}", "")
    assert "left out: book.tif page 2 is smaller than a patch of 32 pixels" in notes
    assert "deep.tif: more than 8 bits a channel, rounded to 8 bits" in notes
    clear = ", ".join(f"clear{index}.png" for index in range(5))
    assert f"{clear} and 2 more: transparency, laid on white" in notes
    assert data.batch(0, slice(None)).lr.shape == (4, 3, 16, 16)


def test_pages_of_real_lr_are_paired_by_their_number(photos: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pages = rng.integers(0, 256, (3, 40, 40, 3), np.uint8)
    small = tmp_path / "small"
    small.mkdir()
    shutil.rmtree(photos)
    photos.mkdir()
    for name in ("whole", "short"):
        tifffile.imwrite(photos / f"{name}.tif", pages ^ len(name), photometric="rgb")
    tifffile.imwrite(small / "whole.tif", pages[:, ::2, ::2], photometric="rgb")
    tifffile.imwrite(small / "short.tif", pages[:2, ::2, ::2], photometric="rgb")
    data, held_out = open_data(tiny_recipe(photos, lr=small))

    for picture in (*data.pictures, *held_out.pictures):
        assert np.array_equal(data.cache.open(picture.lr), pages[picture.page, ::2, ::2])
    assert any("short.tif has 2 pages, not 3 as" in note for note in data.notes)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are a thing of Unix")
@pytest.mark.parametrize("place", ["data", "lr", "val"])
def test_what_is_no_regular_file_is_left_out_by_name(photos: Path, tmp_path: Path, place: str) -> None:
    folders = {"data": photos, "lr": tmp_path / "lr", "val": photographs(tmp_path / "val", 1)}
    folders["lr"].mkdir()
    for path in photos.iterdir():
        Image.open(path).resize((20, 20)).save(folders["lr"] / path.name)
    if place != "data":
        for name in ("pipe", "gone", "circle"):
            shutil.copy(photos / "0.png", photos / f"{name}.png")
    folder = folders[place]
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "folder.png").mkdir()
    given = {"lr": {"lr": folders["lr"]}, "val": {"val": folders["val"]}}.get(place, {})
    data, _ = open_data(tiny_recipe(photos, **given))

    notes = "\n".join(data.notes)
    assert "pipe.png: is no regular file, but a pipe, a device or a folder" in notes
    assert f"left out: {folder / 'gone.png'}: No such file" in notes
    assert f"left out: {folder / 'circle.png'}: Too many levels" in notes
    assert "folder.png" not in notes


def test_a_tiff_whose_page_follows_itself_is_left_out(photos: Path) -> None:
    circular_tiff(photos / "circle.tif")
    data, _ = open_data(tiny_recipe(photos))
    (note,) = data.notes
    assert note.startswith(f"left out: {photos / 'circle.tif'}: ")


@pytest.mark.parametrize("error", [ValueError("odd"), RecursionError("deep"), MemoryError(), ImageError("x")])
def test_whatever_a_picture_raises_only_that_picture_is_left_out(
    photos: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    opened = cache.open_pages

    def fail(path: Path, max_pixels: int):
        if path.name == "3.png":
            raise error
        return opened(path, max_pixels)

    monkeypatch.setattr(cache, "open_pages", fail)
    data, held_out = open_data(tiny_recipe(photos))
    assert len(data.pictures) + len(held_out.pictures) == 5
    (note,) = data.notes
    assert note.startswith("left out: ")
    assert "3.png" in note or isinstance(error, ImageError)


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

    assert any("5.png has 7 x 7 pixels, not 20 x 20" in sentence for sentence in data.notes)
    for name, lr, _ in held_out.load():
        assert np.array_equal(lr, np.array(Image.open(small / f"{name}.png")))


@pytest.mark.parametrize("val", [False, True])
def test_every_real_lr_of_one_original_is_used_and_copies_of_held_out_originals_are_held_out(
    photos: Path, tmp_path: Path, val: bool
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for path in list(photos.iterdir()):
        shutil.copy(path, photos / f"copy{path.name}")
        for name, way in ((path.name, Image.Resampling.BOX), (f"copy{path.name}", Image.Resampling.NEAREST)):
            Image.open(path).resize((20, 20), way).save(small / name)
    given = {"val": tmp_path / "val"} if val else {}
    if val:
        (tmp_path / "val").mkdir()
        shutil.copy(photos / "3.png", tmp_path / "val")
    data, held_out = open_data(tiny_recipe(photos, lr=small, **given))

    trained = {picture.file.name for picture in data.pictures}
    names = {path.name for path in photos.iterdir()}
    left = {"3.png", "copy3.png"} if val else {picture.file.name for picture in held_out.pictures}
    assert trained == names - left and len(left) == (2 if val else 4)
    assert {name.removeprefix("copy") for name in left}.isdisjoint(name.removeprefix("copy") for name in trained)
    for picture in data.pictures:
        assert np.array_equal(data.cache.open(picture.lr), np.array(Image.open(small / picture.file.name)))


def _real_lr(folder: Path, *sources: Path, mark: str = "") -> Path:
    """Write LR that bicubic would not make."""
    folder.mkdir(exist_ok=True)
    for path in (path for source in sources for path in source.iterdir()):
        Image.open(path).resize((20, 20), Image.Resampling.NEAREST).save(folder / f"{path.stem}{mark}.png")
    return folder


@pytest.fixture
def val(tmp_path: Path) -> Path:
    """Two held-out pictures with names of their own."""
    folder = photographs(tmp_path / "val", count=8)
    for path in folder.iterdir():
        path.rename(path.with_stem(f"held{path.stem}")) if path.stem in "67" else path.unlink()
    return folder


@pytest.mark.parametrize("mark", ["", "x2"])
def test_held_out_pictures_of_a_folder_have_their_lr_in_the_folder_of_real_lr(
    photos: Path, val: Path, tmp_path: Path, mark: str
) -> None:
    shutil.copy(photos / "3.png", val)  # a copy of a training picture shares its LR
    small = _real_lr(tmp_path / "small", photos, val, mark=mark)
    data, held_out = open_data(tiny_recipe(photos, lr=small, val=val))
    assert len(data.pictures) == 5 and data.notes == ()
    assert {picture.name for picture in held_out.pictures} == {"held6", "held7", "3"}
    for name, lr, _ in held_out.load():
        assert np.array_equal(lr, np.array(Image.open(small / f"{name}{mark}.png")))


def test_held_out_pictures_without_real_lr_of_their_own_are_named(photos: Path, val: Path, tmp_path: Path) -> None:
    small = _real_lr(tmp_path / "small", photos, val)
    (small / "held7.png").unlink()
    (val / "held7.png").rename(val / "held9.png")
    photographs(val, count=1, side=40)
    Image.open(val / "0.png").rotate(90).save(val / "0.png")  # named like a training picture, whose LR is not its own
    data, held_out = open_data(tiny_recipe(photos, lr=small, val=val))

    (note,) = data.notes
    for name, lr, hr in held_out.load():
        made = name != "held6"
        assert np.array_equal(lr, downscale(hr, 2) if made else np.array(Image.open(small / "held6.png")))
        assert (str(val / f"{name}.png") in note.partition(":")[0]) == made
    assert f"scored on bicubic LR, because {small} has no LR of their own; put theirs there" in note


def test_at_scale_1_held_out_pictures_need_real_lr(photos: Path, val: Path) -> None:
    recipe = replace(tiny_recipe(photos, lr=photos, val=val), network=NetworkOptions(scale=1))
    with pytest.raises(UsageError, match=r"photos has no LR of .*held6.png, .*held7.png, and at scale 1 LR cannot"):
        open_data(recipe)
    assert open_data(replace(recipe, degrade=DegradeOptions(degrade=True)))[0].notes


def test_an_lr_picture_of_neither_folder_is_refused(photos: Path, val: Path, tmp_path: Path) -> None:
    small = _real_lr(tmp_path / "small", photos, val)
    shutil.copy(small / "0.png", small / "stray.png")
    with pytest.raises(UsageError, match=r"stray.png: in .*small without an HR picture in .*photos"):
        open_data(tiny_recipe(photos, lr=small, val=val))


def test_the_digest_of_the_data_depends_on_real_lr_and_not_on_names(photos: Path, tmp_path: Path) -> None:
    digests = [open_data(tiny_recipe(photos))[0].digest]
    for way in (Image.Resampling.BOX, Image.Resampling.NEAREST):
        for name in ("{}", "{}x2"):
            small = tmp_path / f"small{len(digests)}"
            small.mkdir()
            for path in photos.iterdir():
                Image.open(path).resize((20, 20), way).save(small / f"{name.format(path.stem)}.png")
            digests.append(open_data(tiny_recipe(photos, lr=small))[0].digest)
    made, box, same_box, nearest, same_nearest = digests
    assert (box, nearest) == (same_box, same_nearest)
    assert len({made, box, nearest}) == 3


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
    read = cache.open_pages
    monkeypatch.setattr(cache, "open_pages", lambda path: (reads.append(path), time.sleep(0.02), read(path))[2])
    with pytest.raises(KeyboardInterrupt):
        open_data(tiny_recipe(photos), on_picture=interrupt)
    assert len(reads) < 40
    monkeypatch.undo()
    assert open_data(tiny_recipe(photos))[0].digest


def test_a_cache_that_cannot_be_written_is_an_error(photos: Path) -> None:
    cache_dir().mkdir(parents=True)
    (cache_dir() / "training").write_text("a file")
    with pytest.raises(DscloraError, match=r"cannot write .*\(choose another name, or set DSCLORA_CACHE_DIR"):
        open_data(tiny_recipe(photos))


@pytest.mark.parametrize("pages", [1, 2])
def test_pictures_above_the_limit_are_left_out_with_the_option_that_allows_them(photos: Path, pages: int) -> None:
    picture = Image.new("RGB", (120, 100))
    picture.save(photos / "large.tif", save_all=True, append_images=[picture] * (pages - 1))

    def opened(max_pixels: int) -> TrainSet:
        recipe = tiny_recipe(photos)
        return open_data(replace(recipe, data=replace(recipe.data, max_pixels=max_pixels)))[0]

    data = opened(11_999)
    (note,) = data.notes
    assert note.startswith(f"left out: {photos / 'large.tif'}: claims 120 x 100 pixels")
    assert note.endswith("; --max-pixels allows more")
    assert opened(12_000).notes == ()
    # The cache has the picture now, and the limit holds as before.
    again = opened(11_999)
    assert (again.notes, again.digest) == (data.notes, data.digest)
