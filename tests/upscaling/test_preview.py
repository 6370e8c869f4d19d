"""`upscale --crop-preview`: a part of each picture with all settings of the run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from dsclora_cli.cli.app import main
from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.weights.checkpoint import save_network

MODEL = ("-m", "dsclora-x2", "-s", "2", "-q")


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    corners = np.random.default_rng(1).integers(0, 256, (9, 10, 3), np.uint8)
    Image.fromarray(corners).resize((100, 90), Image.Resampling.BICUBIC).save("a.png", dpi=(300, 300))
    return Path("a.png")


def test_the_preview_is_that_part_of_the_result(picture: Path) -> None:
    assert main(["upscale", str(picture), *MODEL]) == 0
    assert main(["upscale", str(picture), *MODEL, "--crop-preview", "70,60,21,13"]) == 0
    whole, part = (np.asarray(Image.open(name)) for name in ("a_x2.png", "a_x2-preview.png"))
    assert np.array_equal(part, whole[120:146, 140:182])


@pytest.mark.parametrize("size", [("-s", "2.5"), ("-s", "1.3"), ("--long-edge", "333"), ("--width", "207", "--wrap")])
@pytest.mark.parametrize("part", [(7, 9, 33, 27), (60, 41, 40, 49)])
def test_the_preview_is_that_part_at_any_factor(
    picture: Path, size: tuple[str, ...], part: tuple[int, int, int, int]
) -> None:
    arguments = ["upscale", str(picture), "--offline", *size, "-q"]
    assert main([*arguments, "-o", "whole.png"]) == 0
    assert main([*arguments, "-o", "part.png", "--crop-preview", ",".join(map(str, part))]) == 0
    whole, cut = (np.asarray(Image.open(name)).astype(int) for name in ("whole.png", "part-preview.png"))
    factor = float(size[1]) if size[0] == "-s" else int(size[1]) / 100
    left, top, width, height = (math.floor(side * factor + 0.5) for side in part)
    expected = whole[top : top + height, left : left + width]
    assert cut.shape == expected.shape and np.abs(cut - expected).max() <= 1


def test_floats_around_the_preview_decide_about_the_range(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.asarray(Image.open(picture)).astype(np.float32) / 255
    pixels[80, 90] = 9
    tifffile.imwrite("hdr.tif", pixels, photometric="rgb")
    assert main(["upscale", "hdr.tif", *MODEL[:-1], "-o", "whole.tif"]) == 0
    assert main(["upscale", "hdr.tif", *MODEL[:-1], "-o", "part.tif", "--crop-preview", "10,20,21,13"]) == 0
    whole, part = (tifffile.imread(name) for name in ("whole.tif", "part-preview.tif"))
    assert np.abs(part - whole[40:66, 20:62]).max() <= 1 / 255
    assert capsys.readouterr().err.count("values from 0 to 9 were rescaled") == 2


def test_sizes_are_those_of_the_whole_picture(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "upscale",
        str(picture),
        "-m",
        "dsclora-x2",
        "--width",
        "150",
        "--crop-preview",
        "10,10,20,10",
        "--json",
    ]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["status"], result["input_size"], result["output_size"]) == ("done", [20, 10], [30, 15])
    assert Path(result["output"]).name == "a_x1.5-preview.png"


def test_a_part_outside_and_a_broken_picture(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (200, 20)).save("b.png")
    assert main(["upscale", str(picture), "b.png", *MODEL, "--crop-preview", "90,0,20,10"]) == 1
    assert "failed: a.png: --crop-preview 90,0,20,10 is not inside 100x90" in capsys.readouterr().err
    assert Path("b_x2-preview.png").exists()
    Path("broken.png").write_bytes(picture.read_bytes()[:60])
    assert main(["upscale", "broken.png", str(picture), *MODEL, "--crop-preview", "0,0,20,10"]) == 1
    assert "broken.png" in capsys.readouterr().err
    assert Path("a_x2-preview.png").exists()
    assert main(["upscale", str(picture), "--crop-preview", "0,0,20"]) == 2
    assert "is not X,Y,W,H" in capsys.readouterr().err


def test_a_preview_with_other_settings_is_kept(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ["upscale", str(picture), "-m", "dsclora-x2", "-s", "2", "--crop-preview", "0,0,20,10"]
    other = [*first[:-1], "5,5,20,10"]
    assert main(first) == 0
    assert main(other) == 0
    assert "is kept" in capsys.readouterr().err
    assert main([*other, "--overwrite"]) == 0


def test_a_named_output_gets_the_ending_too(picture: Path) -> None:
    crop = ["--crop-preview", "10,10,20,10"]
    assert main(["upscale", str(picture), *MODEL, "-o", "large.png", *crop]) == 0
    assert Path("large-preview.png").exists() and not Path("large.png").exists()
    assert main(["upscale", str(picture), *MODEL, "-o", "large.png"]) == 0
    assert Path("large.png").exists()
    assert main(["upscale", str(picture), *MODEL, "-o", "folder/", *crop]) == 0
    assert [path.name for path in Path("folder").iterdir()] == ["a_x2-preview.png"]


def test_no_later_run_takes_a_preview_for_a_picture(picture: Path) -> None:
    for more in (["--crop-preview", "10,10,20,10"], [], ["--crop-preview", "10,10,20,10"], []):
        assert main(["upscale", ".", *MODEL, *more]) == 0
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "a_x2-preview.png", "a_x2.png"]


@pytest.mark.parametrize("factor", ["2", "1.5", "3"])
def test_the_preview_of_a_texture_continues_at_the_edges_of_the_picture(picture: Path, factor: str) -> None:
    wrapped = ("--offline", "-s", factor, "-q", "--wrap")
    assert main(["upscale", str(picture), *wrapped, "-o", "whole.png"]) == 0
    assert main(["upscale", str(picture), *wrapped, "--crop-preview", "0,80,20,10", "-o", "part.png"]) == 0
    whole, part = (np.asarray(Image.open(name)).astype(int) for name in ("whole.png", "part-preview.png"))
    top, side = round(80 * float(factor)), round(20 * float(factor))
    assert np.abs(part - whole[top:, :side]).max() <= 1


@pytest.mark.slow
def test_a_preview_sees_as_far_as_the_network(picture: Path, tmp_path: Path) -> None:
    save_network(EDSR(EdsrConfig(channels=4, blocks=40, scale=2)), tmp_path / "deep.safetensors", "")
    deep = ("--weights", str(tmp_path / "deep.safetensors"), "-s", "2", "-q", "--device", "cpu")
    Image.open(picture).resize((220, 24)).save("wide.png")
    assert main(["upscale", "wide.png", *deep, "--tile", "0"]) == 0
    assert main(["upscale", "wide.png", *deep, "--crop-preview", "100,4,16,16"]) == 0
    whole, part = (np.asarray(Image.open(name)) for name in ("wide_x2.png", "wide_x2-preview.png"))
    assert np.abs(part.astype(int) - whole[8:40, 200:232]).max() <= 1
