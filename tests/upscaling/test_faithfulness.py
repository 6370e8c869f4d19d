"""Faithfulness: results reduced again by the kernel of the benchmarks, against their inputs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from batches import RepeatUpscaler, run, save_animation, save_photo
from PIL import Image

from dsclora_cli.cli.app import main
from dsclora_cli.config import EngineOptions, ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.imaging.color import convert_pixels
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import StreamedBicubic, matlab_bicubic
from dsclora_cli.upscaling import faithfulness
from dsclora_cli.upscaling.faithfulness import measure_pixels

OPTIONS = UpscaleOptions(model=ModelOptions("dsclora-x2"), size=SizeOptions(scale=2), measure=True)


def by_definition(path: Path, result: Path) -> float:
    """Return the PSNR of luma from whole 8-bit pictures, transparent pixels on white."""
    opened = (np.atleast_3d(np.array(Image.open(each))) for each in (path, result))
    small, large = (convert_pixels(each, 3, np.uint8) for each in opened)
    return psnr_y(matlab_bicubic(large, *small.shape[:2]), small, border=0)


@pytest.mark.parametrize(
    ("height", "width", "to"), [(97, 61, (33, 40)), (40, 36, (9, 10)), (8, 8, (8, 8)), (3, 5, (2, 1))]
)
@pytest.mark.parametrize("cuts", [[], [1, 2, 5], "each"])
def test_bands_are_reduced_to_the_same_bits(height: int, width: int, to: tuple[int, int], cuts: object) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
    places = range(1, height) if cuts == "each" else [cut for cut in cuts if cut < height]  # type: ignore[attr-defined]
    reducer = StreamedBicubic(height, *to)
    parts = [part for band in np.split(pixels, places) if (part := reducer.add(band)) is not None]
    assert np.array_equal(np.concatenate(parts), matlab_bicubic(pixels, to[1], to[0]))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("scale", [2, 2.5])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_the_number_is_the_psnr_against_the_reduced_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, scale: float, name: str
) -> None:
    monkeypatch.setattr(faithfulness, "_STEP_VALUES", 2000)  # several steps in each band
    picture = Image.open(save_photo(tmp_path / "photo.png", (70, 90)))
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(tmp_path / name)
    options = replace(OPTIONS, size=SizeOptions(scale=scale), engine=EngineOptions(tile=32))
    (result,) = run([tmp_path / name], options)
    assert result.status == "done" and result.faithfulness is not None
    assert result.faithfulness == pytest.approx(by_definition(tmp_path / name, Path(str(result.output))), abs=1e-4)
    assert result.faithfulness > 40


def test_16_bits_are_measured_in_16_bits(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 40, 3), np.uint8)
    larger = noise.repeat(2, axis=0).repeat(2, axis=1)
    shallow, deep = (
        measure_pixels(noise, larger),
        measure_pixels(noise.astype(np.uint16) * 257, larger * np.uint16(257)),
    )
    assert deep == pytest.approx(shallow, abs=0.1)  # the same picture
    # A difference that 8 bits cannot show.
    tifffile.imwrite(tmp_path / "deep.tif", noise.astype(np.uint16) * 257 + 60, photometric="rgb")
    (result,) = run([tmp_path / "deep.tif"], OPTIONS)
    assert result.faithfulness is not None and 20 < result.faithfulness < 100
    assert measure_pixels(np.full((2, 2, 3), 1000, np.uint16), np.full((4, 4, 3), 1001, np.uint16)) > 90


def test_gray_and_pictures_that_repeat(tmp_path: Path) -> None:
    Image.open(save_photo(tmp_path / "a.png", (40, 32))).convert("L").save(tmp_path / "gray.png")
    for options in (OPTIONS, replace(OPTIONS, wrap=True)):
        (result,) = run([tmp_path / "gray.png"], replace(options, batch=replace(options.batch, overwrite=True)))
        expected = by_definition(tmp_path / "gray.png", Path(str(result.output)))
        assert result.faithfulness == pytest.approx(expected, abs=1e-4)


def test_all_frames_of_an_animation_count(tmp_path: Path) -> None:
    save_animation(tmp_path / "a.gif")
    (result,) = run([tmp_path / "a.gif"], replace(OPTIONS, size=SizeOptions(scale=4)), RepeatUpscaler())
    assert result.frames == 4 and result.faithfulness == math.inf  # of one color each


def test_floats_have_no_faithfulness(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.random.default_rng(0).random((20, 16), np.float32) * 9)
    (result,) = run([tmp_path / "a.tif"], OPTIONS)
    assert result.status == "done" and result.faithfulness is None
    assert measure_pixels(np.zeros((2, 2, 3), np.float32), np.zeros((4, 4, 3), np.float32)) is None


def test_only_verbose_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(save_photo(tmp_path / "a.png", (40, 32)))
    arguments = ["upscale", path, "-m", "dsclora-x2", "-s", "2", "--overwrite"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["faithfulness"] is None
    assert main([*arguments, "--json", "-v"]) == 0
    out, err = capsys.readouterr()
    assert f"; faithfulness {json.loads(out)['faithfulness']:.2f} dB)" in err
    # A finished picture is not measured again.
    assert main(["upscale", path, "-m", "dsclora-x2", "-s", "2", "--json", "-v"]) == 0
    assert json.loads(capsys.readouterr().out)["faithfulness"] is None


def test_a_preview_is_measured_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(save_photo(tmp_path / "a.png", (40, 32)))
    assert main(["upscale", path, "-m", "dsclora-x2", "-s", "2", "--crop-preview", "4,4,20,16", "--json", "-v"]) == 0
    result = json.loads(capsys.readouterr().out)
    part = np.array(Image.open(path))[4:20, 4:24]
    preview = np.array(Image.open(result["output"]))
    assert result["faithfulness"] == pytest.approx(psnr_y(matlab_bicubic(preview, 16, 20), part, border=0), abs=1e-4)
