"""Measure a folder of small pictures: `dsclora upscale FOLDER` against a process of the plain script per picture.

    python benchmarks/folder.py [--pictures 50] [--plain 5] [--rounds 2] [--engines auto torch]

The pictures are 256x256 textures, PNG in and out. The plain script runs on `--plain` pictures only, and the median time
is multiplied by the number of pictures. `network` is the time inside the network, as `dsclora upscale --json` reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from results import parser_of, save_results
from upscale import PLAIN, medians, run

SIDE = 256


def fill(folder: Path, count: int) -> list[Path]:
    """Write pictures with edges and grain at many scales, and return their paths."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        layers = [Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)) for side in (4, 16, 64, SIDE)]
        grown = [np.asarray(layer.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float) for layer in layers]
        mixed = sum(weight * layer for weight, layer in zip((0.4, 0.3, 0.2, 0.1), grown, strict=True))
        paths.append(folder / f"{index:02}.png")
        Image.fromarray(np.asarray(mixed, np.uint8)).save(paths[-1])
    return paths


def ours(folder: Path, engine: str) -> tuple[float, ...]:
    """Return the seconds of the whole command, the seconds inside the network, and the CPU seconds."""
    command = [sys.executable, "-m", "dsclora_cli", "upscale", str(folder), "-o", str(folder / "out"), "--json"]
    command += ["-m", "dsclora-x4", "--device", "cpu", "--engine", engine, "--overwrite"]
    started, before = time.perf_counter(), os.times()
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    seconds, after = time.perf_counter() - started, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, sum(json.loads(line)["seconds"]["network"] for line in lines), cpu


def main() -> None:
    """Run all programs in turns and print the medians."""
    parser = parser_of(__doc__)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--plain", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--engines", nargs="+", default=["auto"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DSCLORA_STATE_DIR"] = str(folder / "state")
        pictures = fill(folder, args.pictures)
        (folder / "out").mkdir()
        script, scrap = [sys.executable, "-c", PLAIN], str(folder / "out" / "plain.png")
        plain: list[tuple[float, ...]] = []
        taken: dict[str, list[tuple[float, ...]]] = {engine: [] for engine in args.engines}
        for _ in range(args.rounds):
            plain += [run([*script, str(each), scrap, "0", ""]) for each in pictures[: args.plain]]
            for engine, times in taken.items():
                times.append(ours(folder, engine))
    loop, _, loop_cpu = (args.pictures * median for median in medians(plain))
    save_results(args, {"plain": loop, **{engine: medians(times) for engine, times in taken.items()}})
    print(f"plain, a process each   {loop:7.1f} s   CPU {loop_cpu:.1f} s")
    for engine, times in taken.items():
        whole, network, cpu = medians(times)
        print(
            f"dsclora, {engine:14} {whole:7.1f} s   plain / this {loop / whole:.1f}   network {network:.1f} s,"
            f" the rest {whole / network - 1:.0%}   CPU {cpu:.1f} s, plain / this in CPU time {loop_cpu / cpu:.1f}"
        )


if __name__ == "__main__":
    main()
