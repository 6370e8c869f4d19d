"""The networks inside the package: outputs equal the golden files, scores equal the catalog."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dsclora_cli.config import ModelOptions
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.models.network import Network
from dsclora_cli.weights.catalog import EMBEDDED, load_catalog
from dsclora_cli.weights.resolve import find_weights, open_network

GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = [entry for entry in load_catalog().entries.values() if not (entry.repo or entry.url or entry.base)]
FLOORS = {"dsclora-x4": {"Set5": 31.70, "Set14": 28.34}, "dsclora-x3": {"Set5": 33.90}, "dsclora-x2": {"Set5": 37.63}}
BASES = {"dscf-x4": "team23_DSCF.pth", "spantiny-x4": "team39_spantiny_ch26_slim.pth"}
KINDS = ["text", "inverted text", "boxes"]
ADAPTERS = [entry for entry in load_catalog().entries.values() if entry.base]


def load(name: str) -> Network:
    return open_network(find_weights(ModelOptions(name), None))


def load_adapted(name: str, shared: Path) -> Network:
    entry = load_catalog().entry(name)
    base = shared / "weights" / BASES[str(entry.base)]
    return open_network(find_weights(ModelOptions(weights=base, adapter=EMBEDDED / entry.file), None))


def run(network: Network, lr: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()


def mean_psnr_y(network: Network, folder: Path) -> float:
    """Return the mean PSNR-Y in dB over the pictures of a folder, with LR by MATLAB's bicubic."""
    scale, scores = network.config.scale, []
    for path in sorted(folder.iterdir()):
        hr = np.array(Image.open(path).convert("RGB"))
        sr = np.rint(np.clip(run(network, downscale(hr, scale)), 0, 1) * 255).astype(np.uint8)
        scores.append(psnr_y(sr, hr[: sr.shape[0], : sr.shape[1]], border=scale))
    return float(np.mean(scores))


def agreement_on_graphics(network: Network, kind: str) -> float:
    """Return the PSNR in dB between a drawn input and the reduced result of a network.

    A network that was trained on photographs alone may turn text and pure colors into noise: seen at 20 dB.
    """
    picture = Image.new("RGB", (160, 60), "white")
    draw = ImageDraw.Draw(picture)
    if kind == "boxes":
        for index in range(24):
            left, top = index * 37 % 140, index * 23 % 45
            color = tuple(255 * (index + 1 >> bit & 1) for bit in range(3))
            draw.rectangle([left, top, left + 3 + index * 5 % 22, top + 2 + index * 7 % 18], fill=color)
    else:
        for line in range(3):
            draw.text((2, 2 + 19 * line), "Text in black & white 0123456789", fill="black", font_size=9 + 3 * line)
    lr = np.array(picture)
    lr = 255 - lr if kind == "inverted text" else lr
    sr = np.rint(np.clip(run(network, lr), 0, 1) * 255).astype(np.uint8)
    reduced = downscale(sr, network.config.scale).astype(float)
    return float(10 * np.log10(255**2 / np.square(reduced - lr).mean()))


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_outputs_equal_the_golden_outputs(name: str) -> None:
    """The golden file holds `lr`, (10, 16, 3) uint8 of the example photograph, and `sr`, float32 before clamping."""
    golden = np.load(GOLDEN / f"{name}.npz")
    assert np.abs(run(load(name), golden["lr"]) - golden["sr"]).max() < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
@pytest.mark.parametrize("kind", KINDS)
def test_graphics_do_not_blow_up(name: str, kind: str) -> None:
    assert agreement_on_graphics(load(name), kind) > 25


@pytest.mark.parametrize("kind", KINDS)
def test_graphics_do_not_blow_up_with_the_first_choice_at_x4(shared: Path, kind: str) -> None:
    assert agreement_on_graphics(load_adapted(load_catalog().auto[4][0], shared), kind) > 25


@pytest.mark.slow
@pytest.mark.parametrize(("name", "benchmark"), [(name, each) for name, floors in FLOORS.items() for each in floors])
def test_scores_equal_the_catalog_and_exceed_the_floor(shared: Path, name: str, benchmark: str) -> None:
    stated = load_catalog().entry(name).reference[benchmark]["psnr_y"]
    found = mean_psnr_y(load(name), shared / "data/benchmarks" / benchmark / "HR")
    assert found == pytest.approx(stated, abs=0.005)
    assert stated > FLOORS[name][benchmark]


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in ADAPTERS])
def test_an_adapter_gains_over_its_base_as_the_catalog_says(shared: Path, name: str) -> None:
    catalog = load_catalog()
    entry = catalog.entry(name)
    assert entry.base is not None
    base = catalog.entry(entry.base)
    assert all(entry.reference[each]["psnr_y"] > base.reference[each]["psnr_y"] for each in ("Set5", "Set14", "BSD100"))
    set5 = mean_psnr_y(load_adapted(name, shared), shared / "data/benchmarks/Set5/HR")
    assert set5 == pytest.approx(entry.reference["Set5"]["psnr_y"], abs=0.001)


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_embedded_files_are_small(name: str) -> None:
    assert load_catalog().entry(name).size <= 600_000


def test_weights_between_the_photo_network_and_its_sharp_model_are_useful() -> None:
    """Between networks of different origins PSNR falls by several dB halfway."""
    hr = np.array(Image.open(Path(__file__).parents[2] / "examples" / "photo.png").convert("RGB"))
    lr, scores = downscale(hr, 4), []
    for sharp in (0.0, 0.25, 0.5, 0.75, 1.0):
        network = open_network(find_weights(ModelOptions("dsclora-x4-photo", sharp=sharp), None))
        scores.append(psnr_y(np.rint(np.clip(run(network, lr), 0, 1) * 255).astype(np.uint8), hr, border=4))

    assert all(later < earlier + 0.05 for earlier, later in pairwise(scores))
    assert scores[0] - 1.5 < scores[-1] < scores[0] - 0.2
