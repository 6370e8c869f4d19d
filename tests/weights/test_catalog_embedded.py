"""The networks inside the package: outputs equal the golden files, scores equal the catalog."""

from __future__ import annotations

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
ADAPTERS = [entry for entry in load_catalog().entries.values() if entry.base]


def load(name: str) -> Network:
    return open_network(find_weights(ModelOptions(name), None))


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


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_outputs_equal_the_golden_outputs(name: str) -> None:
    """The golden file holds `lr`, (10, 16, 3) uint8 of the example photograph, and `sr`, float32 before clamping."""
    golden = np.load(GOLDEN / f"{name}.npz")
    assert np.abs(run(load(name), golden["lr"]) - golden["sr"]).max() < 2e-5


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
@pytest.mark.parametrize("kind", ["text", "inverted text", "boxes"])
def test_graphics_do_not_blow_up(name: str, kind: str) -> None:
    """A network that was trained on photographs alone may turn text and pure colors into noise: seen at 20 dB."""
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
    network = load(name)
    sr = np.rint(np.clip(run(network, lr), 0, 1) * 255).astype(np.uint8)
    reduced = downscale(sr, network.config.scale).astype(float)
    assert 10 * np.log10(255**2 / np.square(reduced - lr).mean()) > 25


@pytest.mark.parametrize(("name", "benchmark"), [(name, each) for name, floors in FLOORS.items() for each in floors])
def test_scores_equal_the_catalog_and_exceed_the_floor(shared: Path, name: str, benchmark: str) -> None:
    stated = load_catalog().entry(name).reference[benchmark]["psnr_y"]
    found = mean_psnr_y(load(name), shared / "data/benchmarks" / benchmark / "HR")
    assert found == pytest.approx(stated, abs=0.005)
    assert stated > FLOORS[name][benchmark]


@pytest.mark.parametrize("name", [entry.name for entry in ADAPTERS])
def test_an_adapter_gains_over_its_base_as_the_catalog_says(shared: Path, name: str) -> None:
    catalog = load_catalog()
    entry = catalog.entry(name)
    assert entry.base is not None
    base = catalog.entry(entry.base)
    assert all(entry.reference[each]["psnr_y"] > base.reference[each]["psnr_y"] for each in ("Set5", "Set14", "BSD100"))
    options = ModelOptions(weights=shared / "weights" / BASES[base.name], adapter=EMBEDDED / entry.file)
    set5 = mean_psnr_y(open_network(find_weights(options, None)), shared / "data/benchmarks/Set5/HR")
    assert set5 == pytest.approx(entry.reference["Set5"]["psnr_y"], abs=0.001)


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_embedded_files_are_small(name: str) -> None:
    assert load_catalog().entry(name).size <= 600_000
