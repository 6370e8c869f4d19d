"""Measure the seconds per megapixel of LR for several tile edges, to find the largest edge for `--tile auto`.

    python benchmarks/tiles.py [--size 1536x1024] [--rounds 3] [--device cpu] [--engine torch] [--edges 256 512]

The edges take turns. Prints medians, and the ratio of each median to the fastest.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from results import parser_of, save_results

from dsclora_cli.config import EngineOptions, ModelOptions
from dsclora_cli.inference.tiling import ArraySource, TileOptions, upscale_bands, value_range
from dsclora_cli.upscaling.engines import choose_device, load_engine
from dsclora_cli.weights.resolve import find_weights

EDGES = (96, 128, 192, 256, 384, 512, 768, 1024)


def main() -> None:
    """Measure all edges and print the medians."""
    parser = parser_of(__doc__)
    parser.add_argument("--size", default="1536x1024")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--edges", type=int, nargs="+", default=EDGES)
    args = parser.parse_args()
    width, height = (int(side) for side in args.size.split("x"))
    options = EngineOptions(device=args.device, engine=args.engine)
    engine = load_engine(find_weights(ModelOptions(model="dsclora-x4"), 4), choose_device(options), options)
    rows, columns = np.mgrid[:height, :width]
    wave = 127 + 60 * np.sin(rows / 17) + 60 * np.cos(columns / 11)
    picture = np.repeat(wave[:, :, None], 3, axis=2).astype(np.uint8)
    taken: dict[int, list[float]] = {edge: [] for edge in args.edges}
    for _ in range(args.rounds):
        for edge in args.edges:
            started = time.perf_counter()
            for _ in upscale_bands(ArraySource(picture), engine, value_range(picture), TileOptions(edge)):
                pass
            taken[edge].append((time.perf_counter() - started) / (width * height / 1e6))
    medians = {edge: statistics.median(seconds) for edge, seconds in taken.items()}
    save_results(args, medians)
    for edge, seconds in medians.items():
        print(f"tile {edge:5} {seconds:7.2f} s/MP   {seconds / min(medians.values()):.2f}")


if __name__ == "__main__":
    main()
