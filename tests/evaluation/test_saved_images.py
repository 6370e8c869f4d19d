"""Images of an evaluation as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.errors import UsageError
from dsclora_cli.evaluation.saved_images import Gallery
from dsclora_cli.imaging.contact_sheet import Panel, Strip
from dsclora_cli.upscaling.manifest import ResultKey

RECIPE = ResultKey("lr", "weights", {"dtype": "float32", "tile": None})
PLACE = ("Set5", "a/b + ensemble", "head")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)


def test_a_result_is_a_png_in_a_folder_of_its_row(tmp_path: Path, pixels: np.ndarray) -> None:
    gallery = Gallery(tmp_path)
    slot = gallery.slot(PLACE, RECIPE)
    assert not slot.is_filled
    slot.fill(pixels)
    path = tmp_path / "Set5" / "a_b_+_ensemble" / "head.png"
    np.testing.assert_array_equal(np.array(Image.open(path)), pixels)
    np.testing.assert_array_equal(gallery.read(*PLACE), pixels)


def test_a_slot_is_filled_by_its_recipe_only(tmp_path: Path, pixels: np.ndarray) -> None:
    gallery = Gallery(tmp_path)
    gallery.slot(PLACE, RECIPE).fill(pixels)
    assert gallery.slot(PLACE, RECIPE).is_filled
    other = gallery.slot(PLACE, ResultKey("lr", "other", RECIPE.settings))
    assert not other.is_filled
    other.fill(pixels // 2)
    assert other.is_filled and not gallery.slot(PLACE, RECIPE).is_filled


def test_a_file_of_anothers_is_left_alone(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "Set5" / "a_b_+_ensemble" / "head.png"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"head.png is already there and is not from this program \(choose another"):
        Gallery(tmp_path).slot(PLACE, RECIPE).fill(pixels)
    assert path.read_text() == "mine"


def test_a_sheet_lies_beside_the_rows_and_is_made_anew(tmp_path: Path, pixels: np.ndarray) -> None:
    gallery = Gallery(tmp_path)
    strip = Strip((Panel("bicubic", pixels),), Panel("HR", pixels))
    for strips in ([strip], [strip, strip]):
        gallery.save_sheet("Set5", "dscf x4", strips)
    sheet = Image.open(tmp_path / "Set5" / "worst-dscf_x4.png")
    assert sheet.mode == "RGB" and sheet.height > 4 * 9
