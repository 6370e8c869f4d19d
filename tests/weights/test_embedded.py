"""The network that the package ships: pinned by a golden, and as good as the catalogue says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsclora_cli.config import ModelOptions
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.model.span import Span
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.resolve import find_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "dsclora-x4.npz"


@pytest.fixture(scope="module")
def network() -> Span:
    return load_network(find_weights(ModelOptions(model="dsclora-x4"), 4).path)


def run(network: Span, lr: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()


def test_answers_as_when_it_was_shipped(network: Span) -> None:
    """`lr` (16, 24, 3) uint8 of the example photograph, `sr` (64, 96, 3) float32 before clamping."""
    golden = np.load(GOLDEN)
    assert np.abs(run(network, golden["lr"]) - golden["sr"]).max() < 2e-5


@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_scores_what_the_catalogue_says(shared: Path, network: Span, name: str) -> None:
    scores = []
    for path in sorted((shared / "data/benchmarks" / name / "HR").iterdir()):
        hr = np.array(Image.open(path).convert("RGB"))
        lr = downscale(hr, 4)
        sr = np.rint(np.clip(run(network, lr), 0, 1) * 255).astype(np.uint8)
        scores.append(psnr_y(sr, hr[: sr.shape[0], : sr.shape[1]], border=4))
    stated = load_catalog().entry("dsclora-x4").reference[name]["psnr_y"]
    assert np.mean(scores) == pytest.approx(stated, abs=0.005)
    if name == "Set5":
        assert np.mean(scores) > 31.0
