"""Small sets, small networks and options for tests of evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.catalog import WeightEntry
from dsclora_cli.weights.checkpoint import save_network

PHOTO = Path(__file__).parents[2] / "examples" / "photo.png"
CORNERS = {"bird": (0, 0), "boat": (70, 90), "bush": (140, 10)}
CPU = EngineOptions(device="cpu", dtype="float32")
ENTRY = WeightEntry("a", "span", 4, 26, "a.pth", 1, "0" * 64, "MIT", "a paper", Path())
STATED = replace(
    ENTRY,
    published={"Set5": {"psnr_y": 31.70, "ssim_y": 0.889}, "Set14": {"psnr_y": 28.0}},
    reference={"Set5": {"psnr_rgb": 29.85}},
)


def save_set(folder: Path, names: tuple[str, ...] = tuple(CORNERS)) -> Path:
    """A folder of 64x48 pieces of a photograph."""
    photo = np.array(Image.open(PHOTO).convert("RGB"))
    folder.mkdir(parents=True)
    for name in names:
        top, left = CORNERS[name]
        Image.fromarray(photo[top : top + 48, left : left + 64]).save(folder / f"{name}.png")
    return folder


def save_network_file(path: Path, seed: int = 0, scale: int = 4) -> Path:
    """A network of four channels and one block, not trained: its results are gray with a faint pattern."""
    torch.manual_seed(seed)
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=scale))
    with torch.no_grad():
        network.upsampler[0].weight *= 0.01
        network.upsampler[0].bias.fill_(0.45)
    save_network(network, path, training="")
    return path


def options(hr: Path, /, *weights: Path, **changes: object) -> EvalOptions:
    """Evaluate files of weights, the embedded network without any, on a folder."""
    models = tuple(ModelOptions(weights=path) for path in weights) or (ModelOptions("dsclora-x4"),)
    return EvalOptions(**{"hr": hr, "models": models, "engine": CPU, **changes})
