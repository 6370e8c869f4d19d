"""Results and contact sheets of an evaluation as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.errors import UsageError
from dsclora_cli.evaluation.report import RowInfo
from dsclora_cli.evaluation.saved_images import SavedImages
from dsclora_cli.evaluation.score_cache import pixel_key
from dsclora_cli.imaging.contact_sheet import Panel, Strip

KEY = pixel_key(RowInfo("a/b + ensemble", "weights", "cpu", "float32", ensemble=True, engine="torch"), "lr", 4)
NAME = ("Set5", "a/b + ensemble", "head")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)


def test_a_result_is_a_png_in_the_folder_of_its_row(tmp_path: Path, pixels: np.ndarray) -> None:
    images = SavedImages(tmp_path)
    assert not images.has(NAME, KEY)
    images.save(NAME, KEY, pixels)
    path = tmp_path / "Set5" / "a_b_+_ensemble" / "head.png"
    np.testing.assert_array_equal(np.array(Image.open(path)), pixels)
    np.testing.assert_array_equal(images.read(NAME), pixels)


@pytest.mark.parametrize("row", ["..", ".", "...", "../../up", "a/../../b", "\x1b[2J"])
def test_the_name_of_a_row_leads_nowhere_else(tmp_path: Path, pixels: np.ndarray, row: str) -> None:
    SavedImages(tmp_path / "out").save(("Set5", row, "head"), KEY, pixels)
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file.parent.parent == tmp_path / "out" / "Set5" and file.parent.name.isprintable()


def test_every_row_has_a_folder_of_its_own(tmp_path: Path, pixels: np.ndarray) -> None:
    rows = ("a b", "a/b", "A_B", "c")
    images = SavedImages(tmp_path)
    for number, row in enumerate(rows):
        images.save(("Set5", row, "head"), KEY, pixels // (number + 1))
    assert sorted(path.name for path in (tmp_path / "Set5").iterdir()) == ["A_B_3", "a_b", "a_b_2", "c"]
    for number, row in enumerate(rows):
        np.testing.assert_array_equal(images.read(("Set5", row, "head")), pixels // (number + 1))


def test_a_result_counts_only_under_the_key_that_made_it(tmp_path: Path, pixels: np.ndarray) -> None:
    images = SavedImages(tmp_path)
    images.save(NAME, KEY, pixels)
    other = replace(KEY, weights="other")
    assert images.has(NAME, KEY) and not images.has(NAME, other)
    images.save(NAME, other, pixels // 2)
    assert images.has(NAME, other) and not images.has(NAME, KEY)


def test_a_file_of_another_origin_is_not_replaced(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "Set5" / "a_b_+_ensemble" / "head.png"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    message = r"head.png already exists and was not written by this program \(choose another folder with --save\)"
    with pytest.raises(UsageError, match=message):
        SavedImages(tmp_path).save(NAME, KEY, pixels)
    assert path.read_text() == "mine"


def test_a_result_without_a_record_is_replaced_by_the_same_pixels_only(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = SavedImages(tmp_path / "out")
    (tmp_path / "full").touch()  # a file in place of the folder for records, as a full disk would have it
    with monkeypatch.context() as patch:
        patch.setenv("DSCLORA_STATE_DIR", str(tmp_path / "full"))
        images.save(NAME, KEY, pixels)
    assert not images.has(NAME, KEY)
    with pytest.raises(UsageError, match="was not written by this program"):
        images.save(NAME, KEY, pixels + 1)
    images.save(NAME, KEY, pixels)
    assert images.has(NAME, KEY)


def test_a_contact_sheet_lies_next_to_the_rows_and_is_replaced(tmp_path: Path, pixels: np.ndarray) -> None:
    images = SavedImages(tmp_path)
    strip = Strip((Panel("bicubic", pixels),), Panel("HR", pixels))
    for strips in ([strip], [strip, strip]):
        images.save_sheet("Set5", "dscf x4", strips)
    sheet = Image.open(tmp_path / "Set5" / "worst-dscf_x4.png")
    assert sheet.mode == "RGB" and sheet.height > 4 * 9
