"""Measure at what strength an adapter serves pictures of several kinds, and write it at one.

    python examples/research/strength.py BASE RUN FOLDER...
    python examples/research/strength.py BASE RUN --write STRENGTH WEAKER

What a RUN of `dsclora distill` trained is added to its BASE whole or in part. Of each FOLDER, whose pictures the run
has not seen, a row says what the mean gain in PSNR-Y is, how many standard errors that is away from zero, which share
of the pictures gains, and what the worst loses. A part of an adapter gains less and more surely, as it is with any
fine-tuned weights (arXiv 2109.01903). WEAKER becomes a run folder with the adapter at that strength and RUN's log.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.models.lora import merge_adapters
from dsclora_cli.models.network import Network
from dsclora_cli.weights.adapters import build_adapters, load_adapters, save_adapters
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.resolve import find_named_weights, open_network

STRENGTHS = (0.15, 0.3, 0.6, 1.0)
LARGEST = 512
"""Pixels a side of HR; more is cut off."""

Pixels = NDArray[np.uint8]


def trained(base: Network, base_sha256: str, run: Path) -> Network:
    """What a run kept: adapters, merged, or a network trained without them."""
    adapter = run / "adapter.safetensors"
    if adapter.is_file():
        return merge_adapters(base, build_adapters(base, base_sha256, load_adapters(adapter)))
    return load_network(run / "best.safetensors")


def between(base: Network, other: Network, strength: float) -> Network:
    """The base and `strength` times the difference of the other from it."""
    network, changed = copy.deepcopy(base), other.state_dict()
    network.load_state_dict(
        {name: value + strength * (changed[name] - value) for name, value in base.state_dict().items()}
    )
    return network


def pairs(folder: Path, scale: int) -> list[tuple[Pixels, Pixels]]:
    """LR and HR of each picture."""
    found = []
    for path in sorted(folder.iterdir()):
        hr = np.array(Image.open(path).convert("RGB"))[:LARGEST, :LARGEST]
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        found.append((downscale(hr, scale), hr))
    return found


def scores(network: Network, pictures: list[tuple[Pixels, Pixels]], scale: int) -> NDArray[np.float64]:
    """PSNR-Y of each picture, dB."""
    results = []
    for lr, hr in pictures:
        with torch.inference_mode():
            sr = network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0)
        results.append(psnr_y((sr.clamp(0, 1) * 255).round().byte().numpy(), hr, scale))
    return np.array(results)


def weaker(base: Network, base_sha256: str, run: Path, strength: float, target: Path) -> None:
    """Write a run folder with the adapter at a strength."""
    file = load_adapters(run / "adapter.safetensors")
    adapters = build_adapters(base, base_sha256, file).scale(strength)
    target.mkdir()
    save_adapters(adapters, target / "adapter.safetensors", base_sha256, file.training)
    shutil.copyfile(run / "log.jsonl", target / "log.jsonl")


def main(arguments: list[str] | None = None) -> None:
    """Measure or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("run", type=Path)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--write", nargs=2, metavar=("STRENGTH", "WEAKER"))
    args = parser.parse_args(arguments)
    found = find_named_weights(args.base)
    base = open_network(found).eval()
    if args.write:
        weaker(base, found.sha256, args.run, float(args.write[0]), Path(args.write[1]))
    for folder in args.folders:
        pictures = pairs(folder, base.config.scale)
        before, after = scores(base, pictures, base.config.scale), trained(base, found.sha256, args.run)
        for strength in STRENGTHS:
            gain = scores(between(base, after, strength), pictures, base.config.scale) - before
            errors = gain.mean() / (gain.std(ddof=1) / len(gain) ** 0.5)
            surety = f"{errors:.2f} standard errors, {np.mean(gain > 0):.0%} gain, worst {gain.min():+.3f} dB"
            print(f"{folder.name} at {strength:.2f}: {gain.mean():+.4f} dB, {surety}", flush=True)


if __name__ == "__main__":
    main()
