"""EDSR and RCAN on the command line: train, evaluate and upscale, as with SPAN."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from dsclora_cli.weights.checkpoint import load_network

QUICK = ("--patch", "8", "--batch", "2", "--steps", "2", "--validate", "1", "-s", "2", "--blocks", "1")
HERE = ("--device", "cpu", "--compile", "off", "--threads", "1")
SHAPES = {"compact": ("--channels", "4"), "edsr": ("--channels", "4"), "rcan": ("--channels", "4", "--groups", "1")}


@pytest.mark.slow
@pytest.mark.parametrize("arch", SHAPES)
def test_a_network_is_trained_evaluated_and_used(dsclora, photos: Path, arch: str) -> None:
    trained = dsclora("train", "--arch", arch, *SHAPES[arch], "--data", photos, "--out", "run", *QUICK, *HERE)
    assert trained.code == 0, trained.err
    weights = Path("run/best.safetensors")
    assert load_network(weights).config.descriptor.arch == arch

    code, out, _ = dsclora("eval", "--hr", photos, "-s", 2, "--weights", weights, "--device", "cpu", "--json")
    assert code == 0 and "best" in [row["name"] for row in json.loads(out)["sets"][0]["rows"]]

    code, _, err = dsclora(
        "upscale", "photos/0.png", "-s", 2, "--weights", weights, "--device", "cpu", "-o", "whole.png"
    )
    assert (code, Image.open("whole.png").size) == (0, (80, 64))
    assert "looks at the whole picture" not in err
    code, _, err = dsclora("upscale", "photos/0.png", "-s", 2, "--weights", weights, "--tile", 16, "-o", "tiles.png")
    assert code == 0
    warning = "rcan looks at the whole picture, so the result of 6 tiles differs a little from the result for the whole"
    assert (warning in err) == (arch == "rcan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--arch", "edsr", "--expanded"), "--expanded: edsr has no training form"),
        (("--arch", "edsr", "--groups", "2"), "--groups: edsr has no groups of blocks"),
    ],
)
def test_options_of_other_architectures_are_refused(dsclora, photos: Path, arguments, message: str) -> None:
    code, _, err = dsclora("train", *arguments, "--data", photos, "--out", "run")
    assert code == 2 and message in err
    assert not Path("run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["span", "compact"])
def test_a_network_learns_to_restore_pictures_at_their_size(dsclora, photos: Path, arch: str) -> None:
    at_one = ("--scale", "1", "--degrade")
    quick = ["--patch", "8", "--batch", "2", "--steps", "2", "--validate", "1", "--blocks", "1"]
    trained = dsclora(
        "train", "--arch", arch, "--channels", "4", "--data", photos, "--out", "run", *quick, *at_one, *HERE
    )
    assert trained.code == 0, trained.err
    weights = Path("run/best.safetensors")
    assert load_network(weights).config.descriptor.scale == 1
    assert dsclora("upscale", "photos/0.png", "--weights", weights, "--device", "cpu", "-o", "clean.png").code == 0
    assert Image.open("clean.png").size == Image.open("photos/0.png").size


def test_scale_1_needs_damaged_inputs(dsclora, photos: Path) -> None:
    code, _, err = dsclora("train", "--arch", "span", "--scale", "1", "--data", photos, "--out", "run")
    assert code == 2 and "--scale: at 1 the inputs equal the targets without --degrade" in err


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["compact", "edsr"])
def test_adapters_of_other_networks_are_trained_and_merged(dsclora, photos: Path, arch: str) -> None:
    trained = dsclora("train", "--arch", arch, *SHAPES[arch], "--data", photos, "--out", "run", *QUICK, *HERE)
    assert trained.code == 0, trained.err
    quick = ("--patch", "8", "--batch", "2", "--steps", "2", "--validate", "1", "--scale", "2")
    base = ("--base", "run/best.safetensors", "--learning-rate", "1e-3")
    adapted = dsclora("distill", *base, "--data", photos, "--out", "mine", *quick, *HERE)
    assert adapted.code in {0, 1}, adapted.err  # 1: two steps need not be better than the base
    assert adapted.err.count("error") == 0
    if adapted.code == 0:
        adapter = "mine/adapter.safetensors"
        assert dsclora("merge", "run/best.safetensors", adapter, "-o", "both.safetensors").code == 0
        assert load_network(Path("both.safetensors")).config.descriptor.arch == arch
