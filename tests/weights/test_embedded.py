"""The networks that the package ships: pinned by goldens, and as good as the catalogue says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsclora_cli.config import ModelOptions
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.model.network import Network
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.network import open_network
from dsclora_cli.weights.resolve import find_weights

GOLDEN = Path(__file__).parents[1] / "golden"
NETWORKS = [entry for entry in load_catalog().entries.values() if not (entry.repo or entry.url or entry.base)]
FLOORS = {"dsclora-x4": {"Set5": 31.2, "Set14": 27.9}, "dsclora-x3": {"Set5": 33.5}, "dsclora-x2": {"Set5": 37.2}}


def load(name: str) -> Network:
    return open_network(find_weights(ModelOptions(name), None))


def run(network: Network, lr: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_answers_as_when_it_was_shipped(name: str) -> None:
    """`lr` (10, 16, 3) uint8 of the example photograph, `sr` float32 before clamping."""
    golden = np.load(GOLDEN / f"{name}.npz")
    assert np.abs(run(load(name), golden["lr"]) - golden["sr"]).max() < 2e-5


@pytest.mark.parametrize(("name", "benchmark"), [(name, each) for name, floors in FLOORS.items() for each in floors])
def test_scores_what_the_catalogue_says_and_no_less_than_its_floor(shared: Path, name: str, benchmark: str) -> None:
    network, scores = load(name), []
    scale = network.config.scale
    for path in sorted((shared / "data/benchmarks" / benchmark / "HR").iterdir()):
        hr = np.array(Image.open(path).convert("RGB"))
        lr = downscale(hr, scale)
        sr = np.rint(np.clip(run(network, lr), 0, 1) * 255).astype(np.uint8)
        scores.append(psnr_y(sr, hr[: sr.shape[0], : sr.shape[1]], border=scale))
    stated = load_catalog().entry(name).reference[benchmark]["psnr_y"]
    assert np.mean(scores) == pytest.approx(stated, abs=0.005)
    assert stated > FLOORS[name][benchmark]


@pytest.mark.parametrize("name", [entry.name for entry in NETWORKS])
def test_is_small(name: str) -> None:
    assert load_catalog().entry(name).size <= 600_000
