"""Measure which share of an adapter serves pictures of several kinds best, and write an adapter with a chosen share.

    python examples/research/strength.py BASE RUN FOLDER...
    python examples/research/strength.py BASE RUN --write STRENGTH WEAKER

RUN is a folder of `dsclora distill`; shares of the trained change are added to the BASE. FOLDER holds pictures that
the run has not seen. For every FOLDER and share a row gives the mean gain in PSNR-Y, the gain in standard errors, the
share of pictures with a gain, and the loss of the worst picture. Part of an adapter gains less, but on more pictures,
like part of any fine-tuned weights (arXiv 2109.01903). WEAKER becomes a run folder with the adapter at STRENGTH and
the log of RUN.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from folders import pictures_in
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.models.lora import merge_adapters
from dsclora_cli.models.network import Network, interpolate
from dsclora_cli.weights.adapters import build_adapters, load_adapters, save_adapters
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.resolve import find_named_weights, open_network

STRENGTHS = (0.15, 0.3, 0.6, 1.0)
LARGEST = 512
"""Pixels a side of HR; the rest is cut off."""

Pixels = NDArray[np.uint8]


def trained(base: Network, base_sha256: str, run: Path) -> Network:
    """Return the result of a run: the base with the adapter merged, or a network trained without adapters."""
    adapter = run / "adapter.safetensors"
    if adapter.is_file():
        return merge_adapters(base, build_adapters(base, base_sha256, load_adapters(adapter)))
    return load_network(run / "best.safetensors")


def pairs(folder: Path, scale: int) -> list[tuple[Pixels, Pixels]]:
    """Return LR and HR of each picture, `(H, W, 3)` uint8."""
    found = []
    for path in pictures_in(folder):
        hr = np.array(Image.open(path).convert("RGB"))[:LARGEST, :LARGEST]
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        found.append((downscale(hr, scale), hr))
    return found


def scores(network: Network, pictures: list[tuple[Pixels, Pixels]], scale: int) -> NDArray[np.float64]:
    """Return the PSNR-Y of each picture in dB."""
    results = []
    for lr, hr in pictures:
        with torch.inference_mode():  # whole pictures, no tiles: HR is at most `LARGEST` a side
            sr = network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0)
        results.append(psnr_y((sr.clamp(0, 1) * 255).round().byte().numpy(), hr, scale))
    return np.array(results)


def weaker(base: Network, base_sha256: str, run: Path, strength: float, target: Path) -> None:
    """Write a run folder with the adapter at a strength and the log of the run."""
    file = load_adapters(run / "adapter.safetensors")
    adapters = build_adapters(base, base_sha256, file).scale(strength)
    target.mkdir()
    save_adapters(adapters, target / "adapter.safetensors", base_sha256, file.training)
    shutil.copyfile(run / "log.jsonl", target / "log.jsonl")


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, and measure or write."""
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
            gain = scores(interpolate(base, after, strength), pictures, base.config.scale) - before
            # The mean divided by the standard error: above 2 a gain is hardly chance.
            errors = gain.mean() / (gain.std(ddof=1) / len(gain) ** 0.5)
            surety = f"{errors:.2f} standard errors, {np.mean(gain > 0):.0%} gain, worst {gain.min():+.3f} dB"
            print(f"{folder.name} at {strength:.2f}: {gain.mean():+.4f} dB, {surety}", flush=True)


if __name__ == "__main__":
    main()
