"""Networks that restore pictures at their own size: SPAN and Compact of scale 1."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_networks import made

from dsclora_cli.weights.checkpoint import save_network

NAMES = ["restoring span", "restoring compact"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photo.png`, 40x30, and the weights `span.safetensors` and `compact.safetensors`."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        save_network(made(name), Path(f"{name.split()[1]}.safetensors"), "")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    return tmp_path


@pytest.mark.parametrize("size", [(), ("-s", "1")])
@pytest.mark.parametrize("name", ["span", "compact"])
def test_the_result_has_the_size_of_the_picture(dsclora, folder: Path, name: str, size: tuple[str, ...]) -> None:
    ran = dsclora("upscale", "photo.png", "--weights", f"{name}.safetensors", "--engine", "torch", *size)
    assert (ran.code, ran.err.count("error")) == (0, 0)
    assert Image.open("photo_x1.png").size == (40, 30)
    assert not np.array_equal(np.asarray(Image.open("photo_x1.png")), np.asarray(Image.open("photo.png")))


def restored(dsclora, name: str, engine: str, tile: int) -> np.ndarray:
    """Return the photo restored with an engine and an edge of tiles."""
    arguments = ("--weights", f"{name}.safetensors", "--engine", engine, "--tile", tile, "-o", f"{engine}{tile}.png")
    ran = dsclora("upscale", "photo.png", *arguments)
    assert ran.code == 0, ran.err
    return np.asarray(Image.open(f"{engine}{tile}.png")).astype(int)


@pytest.mark.parametrize("name", ["span", "compact"])
def test_tiles_give_the_same_picture(dsclora, folder: Path, name: str) -> None:
    whole, tiles = (restored(dsclora, name, "torch", tile) for tile in (0, 16))
    assert np.abs(whole - tiles).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["span", "compact"])
def test_openvino_gives_the_same_picture(dsclora, folder: Path, openvino: None, name: str) -> None:
    assert np.abs(restored(dsclora, name, "torch", 0) - restored(dsclora, name, "openvino", 16)).max() <= 1


def test_the_native_engine_runs_span_and_declines_compact(dsclora, folder: Path, native: None) -> None:
    assert np.abs(restored(dsclora, "span", "torch", 0) - restored(dsclora, "span", "native", 16)).max() <= 1
    ran = dsclora("upscale", "photo.png", "--weights", "compact.safetensors", "--engine", "native")
    assert ran.code == 2
    assert "the native engine runs SPAN networks, and compact is of the architecture compact" in ran.err


@pytest.mark.parametrize("size", [("-s", "2"), ("--long-edge", "80"), ("--width", "20")])
def test_a_larger_size_is_refused(dsclora, folder: Path, size: tuple[str, str]) -> None:
    ran = dsclora("upscale", "photo.png", "--weights", "span.safetensors", *size)
    flag = "--scale" if size[0] == "-s" else size[0]
    assert ran.code == 2
    assert f"{flag} with a model that restores pictures at their own size" in ran.err
    assert not Path("photo_x2.png").exists()


def test_scale_1_stays_refused_for_other_models(dsclora, folder: Path) -> None:
    ran = dsclora("upscale", "photo.png", "-m", "dsclora-x4", "-s", "1")
    assert ran.code == 2
    assert "--scale 1 is not above 1 and at most 16" in ran.err


def test_a_restoring_network_is_scored_against_the_damaged_picture(dsclora, folder: Path) -> None:
    Path("hr").mkdir()
    Image.open("photo.png").save("hr/photo.png")
    arguments = ("--hr", "hr", "-s", "1", "--jpeg", "50", "--weights", "span.safetensors", "--device", "cpu")
    code, out, err = dsclora("eval", *arguments, "--json")
    assert code == 0, err
    rows = {row["name"]: row for row in json.loads(out)["sets"][0]["rows"]}
    # Bicubic at scale 1 is the JPEG itself.
    assert rows["bicubic"]["mean"]["psnr_y"] > rows["span"]["mean"]["psnr_y"] > 0
