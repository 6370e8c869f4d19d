"""`--sharp` of every command that takes it: between a network and its sharp network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import small
from PIL import Image
from safetensors.torch import load_file

from dsclora_cli.inference.native.library import why_unavailable
from dsclora_cli.weights.checkpoint import save_network

FIRST, SHARP = Path("first.safetensors"), Path("sharp.safetensors")
BETWEEN = ("--weights", FIRST, "--sharp-weights", SHARP, "--device", "cpu", "-s", 2)


@pytest.fixture(autouse=True)
def _files(photo: Path) -> None:
    """Two small networks in the current folder."""
    network = small(blocks=1)
    save_network(network, FIRST, "test")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.1)
    save_network(network, SHARP, "test")


def _pixels(name: str) -> np.ndarray:
    return np.asarray(Image.open(name), int)


def test_strength_0_and_1_are_the_two_networks_byte_for_byte(dsclora, photo: Path) -> None:
    _check_ends(dsclora, photo, "torch")


@pytest.mark.slow
def test_openvino_runs_every_strength(openvino: None, dsclora, photo: Path) -> None:
    _check_ends(dsclora, photo, "openvino")
    _check_ends(dsclora, photo, "openvino")  # from the cache of converted networks


def test_the_native_engine_runs_every_strength(dsclora, photo: Path) -> None:
    if reason := why_unavailable():
        pytest.skip(reason)
    _check_ends(dsclora, photo, "native")
    _check_ends(dsclora, photo, "native")  # from the cache of kept tensors


def _check_ends(dsclora, photo: Path, engine: str) -> None:
    run = ("upscale", photo, "--engine", engine, "--overwrite")
    for network, name in ((FIRST, "plain"), (SHARP, "sharpest")):
        assert dsclora(*run, "--weights", network, "--device", "cpu", "-s", 2, "-o", f"{name}.png").code == 0
    for strength in (0, 0.5, 1):
        assert dsclora(*run, *BETWEEN, "--sharp", strength, "-o", f"{strength}.png").code == 0

    assert Path("0.png").read_bytes() == Path("plain.png").read_bytes()
    assert Path("1.png").read_bytes() == Path("sharpest.png").read_bytes()
    steps = [np.abs(_pixels("0.5.png") - _pixels(name)).mean() for name in ("plain.png", "sharpest.png")]
    assert min(steps) > 0 and max(steps) < np.abs(_pixels("plain.png") - _pixels("sharpest.png")).mean()


def test_the_report_and_the_name_tell_strengths_apart(dsclora, photo: Path) -> None:
    run = ("upscale", photo, *BETWEEN, "--name", "{model}.png")
    (line,) = map(json.loads, dsclora(*run, "--sharp", 0.5, "--json").out.splitlines())
    assert (line["status"], line["model"], line["choice"]) == ("done", "first-sharp0.5", None)
    assert Path("first-sharp0.5.png").exists()
    (plan,) = map(json.loads, dsclora(*run, "--sharp", 0.25, "--dry-run", "--json").out.splitlines())
    assert plan["model"] == "first-sharp0.25"


def test_a_result_of_another_strength_is_not_skipped(dsclora, photo: Path) -> None:
    assert "1 done" in dsclora("upscale", photo, *BETWEEN, "--sharp", 0.5).err
    assert dsclora("upscale", photo, *BETWEEN, "--sharp", 0.5).err == "nothing to do: 1 already done\n"
    assert "1 kept" in dsclora("upscale", photo, *BETWEEN, "--sharp", 0.75).err
    assert "1 kept" in dsclora("upscale", photo, "--weights", FIRST, "--device", "cpu", "-s", 2).err


def test_the_package_has_a_sharp_model_for_every_picture_at_x4(dsclora, photo: Path) -> None:
    (line,) = map(json.loads, dsclora("upscale", photo, "--sharp", 0.5, "--offline", "--json").out.splitlines())
    assert (line["status"], line["model"]) == ("done", "dsclora-x4-photo-sharp0.5")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (
            ("--weights", FIRST, "--sharp", 0.5),
            2,
            "first has no sharp model (name a model that has one: dsclora-x4-",
        ),
        (
            ("-m", "dsclora-x2", "--sharp", 0.5),
            2,
            "dsclora-x2 has no sharp model (name a model that has one: dsclora-x",
        ),
        (
            ("-m", "dsclora-x4-sharp", "--sharp", 0.5),
            2,
            "dsclora-x4-sharp is a sharp model already (leave",
        ),
        (("--weights", FIRST, "--sharp-weights", SHARP), 2, "--sharp-weights is given without --sharp (give a"),
        (
            ("-m", "dsclora-x4", "--sharp-weights", SHARP, "--sharp", 0.5),
            3,
            "sharp cannot sharpen dsclora-x4.safetensors: their sizes differ (give a sharp network that was trained",
        ),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    dsclora, photo: Path, arguments: tuple[object, ...], code: int, error: str
) -> None:
    result = dsclora("upscale", photo, *arguments)
    assert (result.code, result.out) == (code, "")
    assert f"error: {error}" in result.err
    assert not Path("photo_x4.png").exists() and not Path("photo_x2.png").exists()


def test_eval_has_a_row_for_each_sharpness(dsclora, photo: Path) -> None:
    Path("hr").mkdir()
    Image.open(photo).resize((48, 40)).save("hr/a.png")
    run = ("eval", "--hr", "hr", "-s", 2, "--weights", FIRST, "--sharp-weights", SHARP, "--device", "cpu", "--json")
    report = json.loads(dsclora(*run, "--sharp", 0.5, "--sharp", 1).out)
    rows = {row["name"]: row["mean"]["psnr_y"] for row in report["sets"][0]["rows"]}
    assert list(rows) == ["bicubic", "first", "first-sharp0.5", "first-sharp1"]
    only = json.loads(dsclora("eval", "--hr", "hr", "-s", 2, "--weights", SHARP, "--device", "cpu", "--json").out)
    assert only["sets"][0]["rows"][1]["mean"]["psnr_y"] == rows["first-sharp1"] != rows["first"]

    code, _, err = dsclora(*run[:7], "--sharp", 0.5)
    assert (code, err.splitlines()[0][:35]) == (2, "error: first has no sharp model (na")


def test_compare_has_a_result_for_each_sharpness(dsclora, photo: Path) -> None:
    run = (
        "compare",
        photo,
        "-s",
        2,
        "-m",
        "bicubic",
        "-m",
        FIRST,
        "--sharp-weights",
        SHARP,
        "--device",
        "cpu",
        "--json",
    )
    result = json.loads(dsclora(*run, "--sharp", 0.5, "--sharp", 1).out)
    scores = {each["name"]: each["faithfulness"] for each in result["results"]}
    assert list(scores) == ["bicubic", str(FIRST), f"{FIRST}, sharpness 0.5", f"{FIRST}, sharpness 1"]
    only = json.loads(dsclora("compare", photo, "-s", 2, "-m", SHARP, "-o", "only", "--device", "cpu", "--json").out)
    assert only["results"][0]["faithfulness"] == scores[f"{FIRST}, sharpness 1"] != scores[str(FIRST)]

    code, _, err = dsclora("compare", photo, "-m", "bicubic", "-o", "none", "--sharp", 1)
    assert (code, err) == (2, "error: --sharp is given without a model to sharpen (name one with --model)\n")
    assert not Path("none.png").exists()


@pytest.mark.parametrize("command", ["eval", "compare"])
@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--sharp-weights", SHARP), "--sharp-weights is given without --sharp (give a sharpness from 0 to 1"),
        (("--sharp", 0, "--sharp", 1), "--sharp 0 is the model itself (give a sharpness above 0)"),
        (("--sharp", 1, "--sharp", 1.0), "a sharpness is given twice (give each --sharp once)"),
    ],
)
def test_sharpnesses_that_add_no_result_are_an_error(
    dsclora, photo: Path, command: str, arguments: tuple[object, ...], error: str
) -> None:
    inputs = ("--hr", photo.parent) if command == "eval" else (photo,)
    result = dsclora(command, *inputs, *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {error}")


def test_an_exported_model_is_as_sharp_and_states_both_licences(dsclora) -> None:
    run = ("export", FIRST, "--sharp-weights", SHARP, "--json")
    exported = json.loads(dsclora(*run, "--sharp", 0.5, "-o", "half.safetensors").out)
    assert exported["model"] == "first-sharp0.5"
    half, first, sharp = (load_file(name) for name in ("half.safetensors", FIRST, SHARP))
    assert all(torch.allclose(value, (first[name] + sharp[name]) / 2) for name, value in half.items())

    run = ("export", "dsclora-x4-photo", "--sharp", 0.75, "-o", "mixture.safetensors", "--json")
    facts = json.loads(dsclora(*run).out)["metadata"]
    assert (facts["name"], facts["licence"]) == ("dsclora-x4-photo-sharp0.75", "MIT AND CC-BY-4.0")
    assert "; " in facts["source"]

    code, _, err = dsclora("export", FIRST, "--sharp", 0.5, "-o", "none.safetensors")
    assert (code, err[:38]) == (2, "error: first has no sharp model (name ")
    assert not Path("none.safetensors").exists()
