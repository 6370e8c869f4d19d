"""`upscale --crop-preview`: a part of each picture with all settings of the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.cli.app import main

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
    assert main(["upscale", str(picture), *MODEL, "--crop-preview", "90,0,20,10"]) == 2
    assert "--crop-preview 90,0,20,10 is not inside 100x90" in capsys.readouterr().err
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
