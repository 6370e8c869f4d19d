"""A teacher's pictures next to the training pictures: paired by name, checked, and read by their content."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from training import photographs, tiny_recipe

from dsclora_cli.datasets.patches import FIXED_POINT, TrainSet, open_data
from dsclora_cli.datasets.teacher_pictures import with_teacher_pictures
from dsclora_cli.errors import UsageError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photographs(tmp_path / "photos")


@pytest.fixture
def data(photos: Path) -> TrainSet:
    return open_data(tiny_recipe(photos))[0]


@pytest.fixture
def answers(photos: Path, data: TrainSet) -> Path:
    """A folder with the negative of every training picture, and of no held-out picture."""
    folder = photos.with_name("answers")
    folder.mkdir()
    for picture in data.pictures:
        Image.fromarray(255 - np.array(Image.open(picture.file))).save(folder / f"{picture.name}.png")
    return folder


def test_patches_are_cut_from_the_teachers_pictures_at_the_same_place(data: TrainSet, answers: Path) -> None:
    taught = with_teacher_pictures(data, answers)
    for step in range(3):
        batch, plain = taught.batch(step, slice(None)), data.batch(step, slice(None))
        assert torch.equal(batch.lr, plain.lr)
        assert torch.equal(batch.hr, plain.hr)
        assert batch.teacher is not None
        assert (batch.teacher - (1 - batch.hr)).abs().max() <= 0.5 / FIXED_POINT + 1e-7
    assert plain.teacher is None


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_16_bits_and_floats_keep_their_precision(data: TrainSet, answers: Path, dtype: type) -> None:
    rng = np.random.default_rng(0)
    expected = {}
    for path in answers.iterdir():
        values = rng.random((40, 40, 3), np.float32) * 1.4 - 0.2 if dtype is np.float32 else rng.random((40, 40, 3))
        pixels = values if dtype is np.float32 else np.rint(values * 65535).astype(np.uint16)
        expected[path.stem] = pixels / (1 if dtype is np.float32 else 65535)
        tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="rgb")
        path.unlink()
    for picture in with_teacher_pictures(data, answers).pictures:
        stored = data.cache.open(picture.teacher) / FIXED_POINT
        assert np.abs(stored - expected[picture.name]).max() <= 0.5 / FIXED_POINT + 1e-7


@pytest.mark.parametrize("mark", ["x2", "_x2"])
def test_a_teachers_picture_may_be_called_as_its_lr_or_as_upscale_calls_results(
    data: TrainSet, answers: Path, mark: str
) -> None:
    plain = with_teacher_pictures(data, answers)
    for path in list(answers.iterdir()):
        path.rename(path.with_stem(path.stem + mark))
    assert with_teacher_pictures(data, answers).pictures == plain.pictures


def test_pages_belong_to_the_pages_of_the_same_number(tmp_path: Path) -> None:
    pages = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    for folder, pixels in (("books", pages), ("answers", 255 - pages)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "book.tif", pixels, photometric="rgb")
    data, _ = open_data(tiny_recipe(tmp_path / "books"))
    for picture in with_teacher_pictures(data, tmp_path / "answers").pictures:
        stored = data.cache.open(picture.teacher) / FIXED_POINT * 255
        assert np.array_equal(np.rint(stored), 255 - pages[picture.page])

    tifffile.imwrite(tmp_path / "answers" / "book.tif", 255 - pages[:1], photometric="rgb")
    with pytest.raises(UsageError, match=r"book.tif: has no page [23] \(make the teacher's picture of book.tif again"):
        with_teacher_pictures(data, tmp_path / "answers")


def test_a_teachers_picture_that_changes_is_read_again(data: TrainSet, answers: Path) -> None:
    before = with_teacher_pictures(data, answers).pictures
    path = answers / f"{before[0].name}.png"
    Image.new("RGB", (40, 40), (9, 9, 9)).save(path)
    after = with_teacher_pictures(data, answers).pictures
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, *[True] * (len(before) - 1)]
    assert (data.cache.open(after[0].teacher) == round(9 / 255 * FIXED_POINT)).all()


def _spoil(kind: str, answers: Path, name: str) -> None:
    path = answers / f"{name}.png"
    if kind == "two":
        shutil.copy(path, path.with_suffix(".bmp"))
        return
    path.unlink()
    if kind == "small":
        Image.new("RGB", (20, 20)).save(path)
    elif kind == "text":
        path.write_text("no picture")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", r"answers has no teacher's picture for NAME.png \(add NAME.png and the like, or leave"),
        ("folder", r"answers has no teacher's picture for NAME.png \(add"),
        ("small", r"NAME.png has 20 x 20 pixels, but NAME.png needs 40 x 40 \(make the teacher's picture of NAME.png"),
        ("text", r"NAME.png: is not a picture in a known format \(make the teacher's picture of NAME.png again"),
        pytest.param(
            "pipe",
            r"NAME.png: is no regular file, but a pipe, .* \(make",
            marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes"),
        ),
        ("two", r"NAME.bmp, .*NAME.png: all belong to NAME.png \(keep one of them\)"),
    ],
)
def test_a_picture_that_cannot_teach_is_an_error_of_one_line(
    data: TrainSet, answers: Path, kind: str, message: str
) -> None:
    name = data.pictures[1].name
    _spoil(kind, answers, name)
    with pytest.raises(UsageError, match=message.replace("NAME", name)) as refusal:
        with_teacher_pictures(data, answers)
    assert "\n" not in str(refusal.value)
    assert str(answers) in str(refusal.value)


def test_a_folder_that_is_missing_or_empty_is_an_error_with_the_option(data: TrainSet, tmp_path: Path) -> None:
    for folder, message in (("ensembel", "there is no folder .*ensembel"), ("empty", "empty holds no pictures")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=rf"--teacher-images: .*{message} \(.*words patch, whole and ensemble"):
            with_teacher_pictures(data, tmp_path / folder)


def test_pictures_of_one_name_in_two_folders_are_refused(photos: Path, answers: Path, tmp_path: Path) -> None:
    other = photographs(tmp_path / "other", count=3, side=44)
    recipe = tiny_recipe(photos, data=(str(photos), str(other)), val=photographs(tmp_path / "val", count=1, side=20))
    data, _ = open_data(recipe)
    with pytest.raises(UsageError, match=r"png and .*png would share the teacher's picture .*png \(rename one of them"):
        with_teacher_pictures(data, answers)


def test_a_teachers_picture_that_two_pictures_of_a_folder_could_take_is_refused(tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos", count=2)
    (photos / "1.png").rename(photos / "0_HR.png")
    data, _ = open_data(tiny_recipe(photos, val=photographs(tmp_path / "val", count=1, side=20)))
    answers = Path(shutil.copytree(photos, tmp_path / "answers"))
    assert len({picture.teacher for picture in with_teacher_pictures(data, answers).pictures}) == 2

    (answers / "0_HR.png").unlink()
    with pytest.raises(UsageError, match=r"0(_HR)?.png and .*0(_HR)?.png would share the teacher's picture .*0.png"):
        with_teacher_pictures(data, answers)
