"""Results of one picture by several candidates, and the page that shows them."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.config import CompareOptions
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.evaluation.compare import BICUBIC, compare
from dsclora_cli.evaluation.compare_page import draw_sheet, write_page
from dsclora_cli.upscaling.upscaler import Upscaler


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A picture of 150x140."""
    corners = np.random.default_rng(3).integers(0, 256, (14, 15, 3), np.uint8)
    Image.fromarray(corners).resize((150, 140), Image.Resampling.BICUBIC).save(tmp_path / "small.png")
    return tmp_path / "small.png"


def test_a_part_equals_the_part_of_the_whole(small: Path) -> None:
    """The crop is upscaled with what surrounds it: no network sees a border that the picture does not have."""
    options = CompareOptions(("dsclora-x2", BICUBIC), 2.0, crop=(70, 66, 12, 9))
    result, pictures = compare(small, options, Callbacks())
    assert (result.input_size, result.output_size, result.crop) == ((12, 9), (24, 18), (70, 66, 12, 9))
    whole = Upscaler("dsclora-x2", scale=2)(np.asarray(Image.open(small)))
    assert np.array_equal(pictures[0].pixels, whole[132:150, 140:164])
    bicubic = np.asarray(Image.open(small).resize((300, 280), Image.Resampling.BICUBIC))
    assert np.array_equal(pictures[1].pixels, bicubic[132:150, 140:164])


@pytest.mark.parametrize("factor", [2.5, 1.3])
def test_a_part_equals_the_part_of_the_whole_at_any_factor(small: Path, factor: float) -> None:
    options = CompareOptions(("dsclora-x4", BICUBIC, "lanczos"), factor, crop=(71, 67, 13, 9))
    _, pictures = compare(small, options, Callbacks())
    sides = [math.floor(side * factor + 0.5) for side in (150, 140)]
    image = Image.open(small)
    wholes = [np.asarray(image.resize(sides, each)) for each in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)]
    wholes.insert(0, Upscaler("dsclora-x4", scale=factor)(np.asarray(image)))
    left, top, width, height = (math.floor(side * factor + 0.5) for side in (71, 67, 13, 9))
    for each, whole in zip(pictures, wholes, strict=True):
        expected = whole[top : top + height, left : left + width].astype(int)
        assert np.abs(each.pixels - expected).max() <= 1


def test_brighter_pixels_next_to_the_part_do_not_matter(small: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(small)).astype(np.float32) / 255
    pixels[20:22, 31] = 5  # next to the part, and far from it
    pixels[130, 130] = 9
    tifffile.imwrite(tmp_path / "bright.tif", pixels, photometric="rgb")
    options = CompareOptions(("dsclora-x2", BICUBIC), 2.0, crop=(9, 12, 22, 20))
    _, pictures = compare(tmp_path / "bright.tif", options, Callbacks())
    assert [each.pixels.shape for each in pictures] == [(40, 44, 3)] * 2


@pytest.mark.parametrize("factor", [1.14, 1.13])
def test_a_whole_picture_and_its_part_have_one_size(tmp_path: Path, factor: float) -> None:
    Image.new("RGB", (50, 25)).save(tmp_path / "a.png")
    results = [
        compare(tmp_path / "a.png", CompareOptions(("dsclora-x2", BICUBIC), factor, crop=crop), Callbacks())[0]
        for crop in (None, (0, 0, 50, 25))
    ]
    (whole,) = {result.output_size for result in results}
    assert whole == Upscaler("dsclora-x2", scale=factor)(Image.open(tmp_path / "a.png")).size


def test_scores_and_finished_files(small: Path, tmp_path: Path) -> None:
    truth = Image.open(small)
    lr = truth.resize((75, 70), Image.Resampling.BICUBIC)
    lr.save(tmp_path / "lr.png")
    lr.resize((150, 140), Image.Resampling.LANCZOS).save(tmp_path / "other.png")
    options = CompareOptions((str(tmp_path / "other.png"), "nearest"), 2.0, hr=small)
    result, pictures = compare(tmp_path / "lr.png", options, Callbacks())
    other, nearest, hr = result.results
    assert (other.kind, nearest.kind, hr.kind, hr.name) == ("file", "filter", "hr", "HR")
    assert other.psnr_y > nearest.psnr_y
    assert other.ssim_y > nearest.ssim_y
    assert hr.psnr_y is None
    assert other.seconds is None
    assert all(each.faithfulness > 20 for each in result.results)
    assert draw_sheet(pictures).shape[2] == 3


def test_a_large_picture_shows_the_middle(tmp_path: Path) -> None:
    Image.new("L", (1400, 1000), 90).save(tmp_path / "large.png")
    notes = []
    callbacks = Callbacks()
    callbacks.on_note = notes.append
    result, _ = compare(tmp_path / "large.png", CompareOptions((BICUBIC,)), callbacks)
    assert result.crop == (444, 244, 512, 512)
    assert len(notes) == 1
    assert "--crop" in notes[0]


@pytest.mark.parametrize("crop", [(0, 0, 151, 10), (149, 0, 2, 2), (0, 0, 0, 5)])
def test_a_part_outside_the_picture(small: Path, crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(UsageError, match="is not inside 150x140"):
        compare(small, CompareOptions((BICUBIC,), crop=crop), Callbacks())


def test_a_finished_file_of_another_size(small: Path, tmp_path: Path) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "other.png")
    with pytest.raises(ImageError, match="10x10 is not 2 times 150x140"):
        compare(small, CompareOptions((str(tmp_path / "other.png"),), 2.0), Callbacks())
    with pytest.raises(UsageError, match="bicubic is named twice"):
        compare(small, CompareOptions((BICUBIC, BICUBIC)), Callbacks())


def hostile_page(folder: Path) -> Path:
    """Return a page whose title and names try to become markup."""
    name = "</script><img src=x onerror=alert(1)>&amp;'\"`${1}.png".replace("/", "\u2044")
    picture = folder / name
    Image.new("RGB", (8, 6), (200, 30, 30)).save(picture)
    Image.new("RGB", (16, 12), (30, 200, 30)).save(folder / f"2{name}")
    options = CompareOptions((BICUBIC, "nearest", str(folder / f"2{name}")), 2.0)
    write_page(folder / "page.html", *compare(picture, options, Callbacks()))
    return folder / "page.html"


def test_names_stay_text(tmp_path: Path) -> None:
    text = hostile_page(tmp_path).read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*)</script>', text)
    assert "<" not in data[1]
    assert "<img src=x" in json.loads(data[1])["title"]
    assert "http://" not in text
    assert "https://" not in text


def test_the_page_of_equal_pictures_holds_no_infinity(small: Path, tmp_path: Path) -> None:
    Image.open(small).resize((75, 70), Image.Resampling.BICUBIC).save(tmp_path / "lr.png")
    shutil.copy(small, tmp_path / "equal.png")
    options = CompareOptions((str(tmp_path / "equal.png"),), 2.0, hr=small)
    result, pictures = compare(tmp_path / "lr.png", options, Callbacks())
    assert result.results[0].psnr_y == float("inf")
    write_page(tmp_path / "page.html", result, pictures)
    data = re.search(r'id="data">(.*)</script>', (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "Infinity" not in data[1]
    assert json.loads(data[1])["pictures"][0]["psnr"] == 99


DRIVE = """
<script>
addEventListener("load", () => setTimeout(() => {
  const fire = (kind, target, type, more) =>
    target.dispatchEvent(new kind(type, {bubbles: true, cancelable: true, ...more}));
  const key = (key, code, shiftKey) => fire(KeyboardEvent, document.body, "keydown", {key, code, shiftKey});
  const pointer = (type, target, clientX, clientY, pointerId = 1) =>
    fire(PointerEvent, target, type, {clientX, clientY, pointerId});
  Element.prototype.setPointerCapture = () => {};  // refuses pointers that no hand holds
  const all = (selector) => document.querySelectorAll(selector);
  const cell = () => all(".cell")[0], box = () => cell().getBoundingClientRect();
  const transform = () => all(".cell img")[0].style.transform, border = () => all(".handle")[0].ariaValueNow;
  const chosen = (side) => document.getElementById(side).value;
  const seen = {images: all("img[src^=data]").length, foreign: all("img:not([src^=data])").length};
  seen.options = document.getElementById("left").length;
  seen.middle = border();
  key("ArrowLeft");
  seen.left = border();
  pointer("pointerdown", all(".handle")[0], box().left + box().width / 2, 90);
  pointer("pointermove", stage, box().left + box().width / 4, 90);
  pointer("pointerup", stage, 0, 0);
  seen.dragged = border();
  const fitted = transform();
  pointer("pointerdown", cell(), 50, 90);
  pointer("pointermove", stage, 70, 95);
  pointer("pointerup", stage, 0, 0);
  seen.moved = transform() !== fitted;
  key("0");
  seen.fitted = transform() === fitted;
  key("+");
  seen.zoomed = transform() !== fitted;
  key("0");
  key("3", "Digit3");
  seen.right = chosen("right");
  key("@", "Digit2", true);
  seen.chosenLeft = chosen("left");
  key("s");
  seen.swapped = chosen("left") + chosen("right");
  pointer("pointerdown", cell(), 50, 90);
  pointer("pointerdown", cell(), 90, 90, 2);
  pointer("pointermove", cell(), 150, 90, 2);
  seen.pinched = transform() !== fitted;
  pointer("pointerup", stage, 0, 0);
  pointer("pointerup", stage, 0, 0, 2);
  key("g");
  seen.cells = all(".cell").length;
  key("+");
  seen.inStep = new Set([...all(".cell img")].map((each) => each.style.transform)).size;
  seen.overflow = document.documentElement.scrollWidth > innerWidth;
  seen.paper = getComputedStyle(document.body).backgroundColor;
  document.body.dataset.seen = JSON.stringify(seen);
}, 300));
</script></body>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1280])
def test_the_page_in_a_browser(tmp_path: Path, width: int) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("Chromium is not installed")
    page = hostile_page(tmp_path)
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", DRIVE), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += f" --disable-component-update --disable-sync --virtual-time-budget=5000 --window-size={width},800"
    command = [browser, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'data-seen="([^"]*)"', shown)
    assert found, shown[-500:]
    seen = json.loads(found[1].replace("&quot;", '"'))
    assert seen.pop("paper") == "rgb(246, 246, 244)"
    assert seen == {
        "images": 2,
        "foreign": 0,
        "options": 3,
        "middle": "50",
        "left": "48",
        "dragged": "25",
        "moved": True,
        "fitted": True,
        "zoomed": True,
        "right": "2",
        "chosenLeft": "1",
        "swapped": "21",
        "pinched": True,
        "cells": 3,
        "inStep": 1,
        "overflow": False,
    }
