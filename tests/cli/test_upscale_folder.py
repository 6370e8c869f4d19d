"""A folder with every kind of picture: each kind comes back, broken files do no harm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.upscaling import inputs

SIZE = (10, 8)
RGB = np.arange(240, dtype=np.uint8).reshape(8, 10, 3)
DEEP = (RGB.astype(np.uint16) << 8) + 77


def _save(name: str, mode: str = "RGB", **options: object) -> None:
    Image.fromarray(RGB).convert(mode).save(name, **options)


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One picture of every kind in `in/`, the current folder being above it, with some that are none."""
    folder = tmp_path / "in"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("a.jpg", "b.png", "c.webp", "d.tif", "e.bmp", "f.avif", "g.jp2", "h.ppm", "i.tga"):
        _save(name)
    _save("grey.png", "L")
    _save("bits.png", "1")
    _save("palette.gif", "P")
    _save("alpha.png", "RGBA")
    _save("cmyk.jpg", "CMYK")
    pages = [Image.new("RGB", SIZE, (shade, 90, 200 - shade)) for shade in (10, 90, 170)]
    for name in ("moving.gif", "moving.webp", "moving.png", "pages.tiff"):
        pages[0].save(name, save_all=True, append_images=pages[1:], **({} if "pages" in name else {"duration": 60}))
    Path("deep.png").write_bytes(imagecodecs.png_encode(DEEP))
    tifffile.imwrite("float.tif", RGB.astype(np.float32) / 255, photometric="rgb")
    pictures = sorted(path.name for path in folder.iterdir())
    Path("broken.jpg").write_bytes(Path("a.jpg").read_bytes()[:200])
    Path("notes.txt").write_text("no picture", encoding="utf-8")
    Path("Thumbs.db").write_bytes(b"junk")
    monkeypatch.chdir(tmp_path)
    return pictures


def test_every_kind_of_picture_comes_back_as_the_same_kind(dsclora, kinds: list[str]) -> None:
    code, out, err = dsclora("upscale", "in", "-o", "out", "-m", "dsclora-x4", "--json")
    assert code == 1
    results = {Path(result["input"]).name: result for result in map(json.loads, out.splitlines())}
    failures = {name: result["error"] for name, result in results.items() if result["status"] != "done"}
    assert [results.pop(name)["status"] for name in ("Thumbs.db", "notes.txt")] == ["left-out"] * 2
    assert list(failures) == ["Thumbs.db", "notes.txt", "broken.jpg"]
    assert sum(line.startswith("failed: ") for line in err.splitlines()) == 1
    assert sorted(results) == sorted([*kinds, "broken.jpg"])
    for name in kinds:
        with open_picture(Path("in") / name) as before, open_picture(Path(results[name]["output"])) as after:
            assert (after.header.width, after.header.height) == (40, 32)
            assert (after.header.format, after.header.frames) == (before.header.format, before.header.frames)
            assert after.header.dtype == before.header.dtype
            assert sum(1 for _ in after.frames()) == before.header.frames
    assert len(list(Path("out").iterdir())) == len(kinds)
    again = dsclora("upscale", "in", "-o", "out", "-m", "dsclora-x4")
    assert again.code == 1
    assert f"{len(kinds)} already done, 1 failed" in again.err


@pytest.mark.parametrize("stop", ["fail-fast", "interrupt"])
def test_every_file_seen_has_one_account_however_the_run_ends(dsclora, kinds, monkeypatch, stop) -> None:
    count = len(list(Path("in").iterdir()))
    options = ["--fail-fast"] if stop == "fail-fast" else []
    if stop == "interrupt":
        opened = iter(range(100))
        real = inputs.open_picture

        def interrupt(*arguments: object, **named: object) -> object:
            if next(opened) == 7:
                raise KeyboardInterrupt
            return real(*arguments, **named)

        monkeypatch.setattr(inputs, "open_picture", interrupt)
    code, out, err = dsclora("upscale", "in", "-o", "out", "-m", "dsclora-x4", "--json", *options)
    assert code == (1 if options else 130)
    objects = [json.loads(line) for line in out.splitlines()]
    results = [each for each in objects if "status" in each]
    assert len(results) == len({each["input"] for each in results}) == count
    assert "not-reached" in {each["status"] for each in results}
    summary = err.splitlines()[-1]
    numbers = re.findall(r"(\d+) (?:done|failed|cut short|not started|left out)\b", summary)
    assert sum(map(int, numbers)) == count, summary


def test_a_second_run_on_the_folder_has_nothing_to_do(dsclora, kinds: list[str]) -> None:
    Path("in/broken.jpg").unlink()
    assert dsclora("upscale", "in", "-m", "dsclora-x4", "-q") == (0, "", "")
    written = sorted(path.name for path in Path("in").glob("*_x4.*"))
    assert len(written) == len(kinds)
    code, _, err = dsclora("upscale", "in", "-m", "dsclora-x4")
    assert code == 0
    left_out = "hidden files of systems and programs: 1, not named like pictures: 1"
    left_out += f", results of earlier runs: {len(kinds)}"
    assert err.splitlines() == [
        "left out: in/notes.txt: not named like a picture",
        f"nothing to do: {len(kinds)} already done, {len(kinds) + 2} left out ({left_out})",
    ]
    assert not list(Path("in").glob("*_x4_x4.*"))


@pytest.mark.parametrize("inputs", [["a.png", "a_x2.png"], ["."]])
def test_overwrite_replaces_a_result_without_a_record_and_no_picture_of_another_size(
    dsclora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _save("a.png")
    Image.new("RGB", (31, 23)).save("a_x2.png")
    before = Path("a_x2.png").read_bytes()
    for way in ("--json", "--dry-run"):
        _, out, _ = dsclora("upscale", *inputs, "-s", "2", "--offline", "--overwrite", "--json", way)
        account = next(each for each in map(json.loads, out.splitlines()) if each["input"].endswith("a.png"))
        word, sentences = ("status", "warnings") if way == "--json" else ("action", "notes")
        assert account[word] in ("kept", "keep")
        assert "a_x2.png is kept: not a result of" in account[sentences][-1]
        assert Path("a_x2.png").read_bytes() == before
    Path("a_x2.png").write_bytes(b"precious")
    kept = dsclora("upscale", *inputs, "-s2", "--offline", "--overwrite").err
    assert "a_x2.png is kept: a file that cannot be read" in kept
    assert Path("a_x2.png").read_bytes() == b"precious"
    Image.new("RGB", (20, 16)).save("a_x2.png")  # as from another machine
    assert dsclora("upscale", *inputs, "-s", "2", "--offline", "--overwrite").code == 0
    assert Image.open("a_x2.png").getcolors() is None
