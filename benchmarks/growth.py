"""Measure how time and memory of `dsclora upscale` grow with the size of the picture.

    python benchmarks/growth.py PHOTO [--megapixels 2 8 32] [--rounds 2] [--format png] [--engine auto]

The pictures are parts of PHOTO; parts larger than PHOTO are filled with mirror images. Prints seconds, peak memory, and
the ratio of the time to the time of the part before: a ratio of 4 is linear when every part has four times the pixels.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from results import parser_of, save_results
from upscale import medians, run


def part(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the upper left part of a picture, mirrored at the borders if the picture is too small."""
    pixels = np.asarray(image)
    beyond = ((0, max(0, height - image.height)), (0, max(0, width - image.width)), (0, 0))
    return Image.fromarray(np.pad(pixels, beyond, mode="symmetric")[:height, :width])


def main() -> None:
    """Run all sizes in turns and print the medians."""
    parser = parser_of(__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[2, 8, 32])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--format", default="png")
    parser.add_argument("--engine", default="auto")
    args = parser.parse_args()
    image = Image.open(args.photo).convert("RGB")
    taken: dict[float, list[tuple[float, ...]]] = {size: [] for size in args.megapixels}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DSCLORA_STATE_DIR"] = name
        for size in args.megapixels:
            share = (size * 1e6 / image.width / image.height) ** 0.5
            part(image, round(image.width * share), round(image.height * share)).save(folder / f"{size}.tif")
        for _ in range(args.rounds):
            for size, times in taken.items():
                command = [sys.executable, "-m", "dsclora_cli", "upscale", str(folder / f"{size}.tif"), "-q"]
                command += ["-m", "dsclora-x4", "--device", "cpu", "--engine", args.engine, "--overwrite"]
                times.append(run([*command, "-o", str(folder / f"out.{args.format}")]))
    save_results(args, {size: medians(times) for size, times in taken.items()})
    before = None
    for size, times in taken.items():
        seconds, megabytes, cpu = medians(times)
        ratio = f"{seconds / before:.2f} times the part before" if before else ""
        print(f"{size:6} MP {seconds:8.2f} s {megabytes:8.0f} MB, CPU {cpu:7.2f} s   {ratio}", flush=True)
        before = seconds


if __name__ == "__main__":
    main()
