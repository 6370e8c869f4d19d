"""Time and peak memory of `dsclora upscale` beside a plain script, in fresh processes taken in turns.

    python benchmarks/upscale.py PHOTO [--rounds 3] [--format PNG] [--json out.json]

The plain script is what one writes in ten lines: eager torch on the whole picture (or on tiles with `--plain-tile`),
then Pillow's defaults. Both use the same weights and threads. Prints medians and the ratios, plain over dsclora.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = """
import sys, numpy as np, torch
from PIL import Image
from pathlib import Path
from dsclora_cli.config import ModelOptions
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.resolve import find_weights
source, target, tile, weights = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
options = ModelOptions(weights=Path(weights)) if weights else ModelOptions(offline=True)
network = load_network(find_weights(options, 4).path)
image = torch.from_numpy(np.array(Image.open(source).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
with torch.no_grad():
    if tile:
        height, width = image.shape[2:]
        result = torch.zeros(1, 3, 4 * height, 4 * width)
        for y in range(0, height, tile):
            for x in range(0, width, tile):
                y0, x0 = max(0, y - 21), max(0, x - 21)
                y1, x1 = min(height, y + tile + 21), min(width, x + tile + 21)
                part = network(image[:, :, y0:y1, x0:x1])
                ye, xe = min(height, y + tile), min(width, x + tile)
                result[:, :, 4*y:4*ye, 4*x:4*xe] = part[:, :, 4*(y-y0):4*(ye-y0), 4*(x-x0):4*(xe-x0)]
    else:
        result = network(image)
pixels = (result[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
Image.fromarray(pixels).save(target)
"""


def run(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak resident megabytes of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        assert process.stderr is not None
        sys.exit(f"{command[:4]} failed: {process.stderr.read().decode()}")
    return seconds, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Run both in turns and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo")
    parser.add_argument("--weights", default="", help="a file; default: the embedded x4 network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", default="png")
    parser.add_argument("--plain-tile", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chosen = ["--weights", args.weights] if args.weights else ["--offline"]
    taken: dict[str, list[tuple[float, float]]] = {"plain": [], "dsclora": []}
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / f"out.{args.format.lower()}")
        plain = [sys.executable, "-c", PLAIN, args.photo, target, str(args.plain_tile), args.weights]
        ours = [sys.executable, "-m", "dsclora_cli", "upscale", args.photo, "-o", target, "--overwrite", "-q"]
        for _ in range(args.rounds):
            taken["plain"].append(run(plain))
            taken["dsclora"].append(run([*ours, *chosen, "--device", "cpu"]))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in taken.items()}
    for name, (seconds, megabytes) in medians.items():
        print(f"{name:8} {seconds:8.2f} s {megabytes:8.0f} MB")
    ratios = [a / b for a, b in zip(medians["plain"], medians["dsclora"], strict=True)]
    print(f"{'ratio':8} {ratios[0]:8.2f}   {ratios[1]:8.2f}")
    if args.json:
        args.json.write_text(json.dumps({"photo": args.photo, "medians": medians, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
