"""`dsclora compare`, as users type it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

MODELS = ("-m", "bicubic", "-m", "dsclora-x2", "-s", "2")


def test_a_sheet_and_a_page(dsclora, photo: Path) -> None:
    code, out, err = dsclora("compare", photo, *MODELS)
    assert (code, err) == (0, "")
    head, bicubic, model, files = out.splitlines()
    assert head.split() == ["result", "faithfulness", "seconds"]
    assert bicubic.startswith("bicubic ")
    assert model.startswith("dsclora-x2 ")
    assert files == "photo-compare.png, photo-compare.html"
    assert Image.open("photo-compare.png").mode == "RGB"
    assert Path("photo-compare.html").read_text(encoding="utf-8").count("data:image/png;base64,") == 2


def test_upscaling_the_folder_leaves_the_sheet_out(dsclora, photo: Path) -> None:
    assert dsclora("compare", photo, *MODELS).code == 0
    assert dsclora("compare", photo, *MODELS, "-o", "album").code == 0
    Image.open(photo).save("mine-compare.png")
    code, out, _ = dsclora("upscale", ".", "-m", "dsclora-x2", "-s", "2", "--json")
    lines = {line["input"]: line for line in map(json.loads, out.splitlines())}
    assert code == 0
    for sheet in ("photo-compare.png", "album.png"):
        assert (lines[sheet]["status"], lines[sheet]["warnings"]) == ("left-out", ["a result of an earlier run"])
        assert not Path(sheet).with_stem(f"{Path(sheet).stem}_x2").exists()
    assert lines["mine-compare.png"]["status"] == "done", "a picture of the user is an input, whatever the name is"


def test_a_sheet_without_a_place_for_the_record(dsclora, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("DSCLORA_STATE_DIR", "file")
    assert dsclora("compare", photo, *MODELS).code == 0
    assert Image.open("photo-compare.png").mode == "RGB"


def test_nothing_is_overwritten(dsclora, photo: Path) -> None:
    Path("photo-compare.html").write_text("mine")
    refused = dsclora("compare", photo, *MODELS)
    assert refused.code == 2
    assert "photo-compare.html exists already" in refused.err
    assert Path("photo-compare.html").read_text() == "mine"
    assert dsclora("compare", photo, *MODELS, "--overwrite").code == 0
    assert dsclora("compare", photo, *MODELS, "-o", "other").code == 0
    assert Path("other.html").exists()
    both = dsclora("compare", photo, *MODELS).err
    hint = "choose another name with -o, or add --overwrite"
    assert both == f"error: photo-compare.png and photo-compare.html exist already ({hint})\n"


@pytest.mark.parametrize("output", ["folder", ".", "new/folder/"])
def test_files_lie_in_a_folder_that_is_named(dsclora, photo: Path, output: str) -> None:
    Path("folder").mkdir()
    assert dsclora("compare", photo, "-m", "bicubic", "-m", "nearest", "-o", output).code == 0
    assert sorted(path.name for path in Path(output).glob("photo-*")) == ["photo-compare.html", "photo-compare.png"]
    assert not Path("folder.png").exists()


@pytest.mark.parametrize("folder", [".", "/", ".."])
def test_a_folder_is_no_picture(dsclora, photo: Path, folder: str) -> None:
    ran = dsclora("compare", folder, "-m", "bicubic")
    message = f"error: {Path(folder)}: is a folder, not a picture (give the path of a picture file)\n"
    assert (ran.code, ran.err) == (1, message)


def test_json(dsclora, photo: Path) -> None:
    Image.open(photo).resize((24, 18)).save("hr.png")
    code, out, err = dsclora("compare", photo, *MODELS, "--crop", "1,2,11,7", "--hr", "hr.png", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["version"], result["crop"], result["output_size"]) == (1, [1, 2, 11, 7], [22, 14])
    assert [each["kind"] for each in result["results"]] == ["filter", "model", "hr"]
    assert result["page"] == "photo-compare.html"


def test_auto_names_the_model(dsclora, photo: Path) -> None:
    code, out, err = dsclora("compare", photo, "-m", "auto", "--offline", "--json")
    assert (code, err) == (0, "note: dscf-x4 could not be fetched (offline): using the embedded dsclora-x4\n")
    assert json.loads(out)["results"][0]["name"] == "dsclora-x4 (auto)"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["absent.png"], 1, "absent.png"),
        (["photo.png", "--crop", "1,2,3"], 2, "'1,2,3' is not X,Y,W,H"),
        (["photo.png", "--crop", "10,0,5,5"], 2, "--crop 10,0,5,5 is not inside 12x9"),
        (["photo.png", "-s", "1"], 2, "--scale 1 is not above 1"),
        (["photo.png", "-m", "no-such-model"], 2, "no-such-model"),
        (["photo.png", "-m", "other.png"], 1, "other.png"),
        (["photo.png", "-m", "no-such-model", "-o", "x" * 251], 1, "File name too long"),
        (["photo.png", "-m", "bicubic", "-o", "photo.png/x"], 1, "photo.png/x cannot be written"),
    ],
)
def test_refusals(dsclora, photo: Path, arguments: list[str], code: int, message: str) -> None:
    ran = dsclora("compare", *arguments)
    assert (ran.code, message in ran.err, "Traceback" in ran.err) == (code, True, False)
    assert not list(Path().glob("*-compare*"))


@pytest.mark.parametrize("place", ["picture", "--hr", "finished"])
def test_floats_that_fit_no_page_are_refused_with_the_name_of_the_file(dsclora, photo: Path, place: str) -> None:
    size = (9, 12) if place == "picture" else (36, 48)
    tifffile.imwrite("hdr.tif", np.full((*size, 3), 10.5, np.float32), photometric="rgb")
    arguments = {"picture": ["hdr.tif"], "--hr": [photo, "--hr", "hdr.tif"], "finished": [photo, "-m", "hdr.tif"]}
    ran = dsclora("compare", *arguments[place], "-m", "bicubic", "-s", "4")
    expected = "error: hdr.tif: float values from 10.5 to 10.5 do not fit 8 bits (rescale the values to [0, 1])\n"
    assert ran == (1, "", expected)


def test_pages_of_a_run(dsclora, photos: Path) -> None:
    ran = dsclora("upscale", photos, "-o", "large", "-m", "dsclora-x2", "-s", "2", "--compare-page")
    assert ran.code == 0
    pages = sorted(Path("large").glob("*-compare.html"))
    assert len(pages) == 3
    assert all(f"before and after: {page}" in ran.err for page in pages)
    assert pages[0].read_text(encoding="utf-8").count("data:image/png;base64,") == 2
    pages[0].write_text("mine")
    again = dsclora("upscale", photos / "0.png", "-o", "large", "-m", "dsclora-x2", "-s", "2.5", "--compare-page")
    assert again.code == 0
    assert pages[0].read_text() == "mine"
