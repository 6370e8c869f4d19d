"""Seconds per megapixel of LR for several tile edges, in turns: what `--tile auto` should choose at most.

    python benchmarks/tiles.py [--size 1536x1024] [--rounds 3] [--device cpu]

Prints medians, and each tile's time over that of the fastest.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from dsclora_cli.config import ModelOptions
from dsclora_cli.imaging.ranges import value_range
from dsclora_cli.imaging.tiling import ArraySink, ArraySource, TileRun, upscale_rows
from dsclora_cli.runtime.device import resolve_device, resolve_dtype
from dsclora_cli.runtime.torch_engine import TorchEngine
from dsclora_cli.weights.checkpoint import load_network
from dsclora_cli.weights.resolve import find_weights

EDGES = (96, 128, 192, 256, 384, 512, 768, 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1536x1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    width, height = (int(side) for side in args.size.split("x"))
    network = load_network(find_weights(ModelOptions(model="dsclora-x4"), 4).path)
    descriptor, device = network.config.descriptor, resolve_device(args.device)
    engine = TorchEngine(network, descriptor, device, resolve_dtype("auto", device, descriptor))
    rows, columns = np.mgrid[:height, :width]
    wave = 127 + 60 * np.sin(rows / 17) + 60 * np.cos(columns / 11)
    picture = np.repeat(wave[:, :, None], 3, axis=2).astype(np.uint8)
    result = np.empty((height * descriptor.scale, width * descriptor.scale, 3), np.uint8)
    taken: dict[int, list[float]] = {edge: [] for edge in EDGES}
    for _ in range(args.rounds):
        for edge in EDGES:
            started = time.perf_counter()
            upscale_rows(ArraySource(picture), ArraySink(result), engine, value_range(picture), TileRun(edge))
            taken[edge].append((time.perf_counter() - started) / (width * height / 1e6))
    medians = {edge: statistics.median(seconds) for edge, seconds in taken.items()}
    for edge, seconds in medians.items():
        print(f"tile {edge:5} {seconds:7.2f} s/MP   {seconds / min(medians.values()):.2f}")


if __name__ == "__main__":
    main()
