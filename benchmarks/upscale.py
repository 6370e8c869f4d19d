"""Measure time and peak memory of `dsclora upscale` and of a plain script, in fresh processes that take turns.

    python benchmarks/upscale.py PHOTO [--rounds 3] [--ours 1] [--formats png jpg] [--plain-tiles 0 256] [--json F]

The plain script is about ten lines of code: eager PyTorch on the whole picture or on tiles, and saving with Pillow's
defaults. All programs use the same weights and threads. Prints medians, and how many times as long the plain script
takes. CPU time counts the work of all threads: programs that share the machine disturb CPU time less than wall time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import parser_of, save_results

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


def run(command: list[str]) -> tuple[float, float, float]:
    """Return the wall seconds, the peak resident megabytes and the CPU seconds of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        assert process.stderr is not None
        sys.exit(f"{command[:4]} failed: {process.stderr.read().decode()}")
    megabytes = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return seconds, megabytes, usage.ru_utime + usage.ru_stime


def medians(rows: list[tuple[float, ...]]) -> list[float]:
    """Return the median of each column."""
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def candidates(args: argparse.Namespace, target: str) -> dict[str, list[str]]:
    """Return the commands to measure, by name."""
    chosen = ["--weights", args.weights] if args.weights else ["--offline"]
    ours = [sys.executable, "-m", "dsclora_cli", "upscale", args.photo, "-o", target, "--overwrite", "-q", *chosen]
    found = {
        f"plain, {f'tiles of {tile}' if tile else 'whole'}": [
            *(sys.executable, "-c", PLAIN, args.photo, target, str(tile), args.weights)
        ]
        for tile in args.plain_tiles
    }
    return {**found, **{f"dsclora, {name}": [*ours, "--device", "cpu", "--engine", name] for name in args.engines}}


def turns(names: list[str], ours: int) -> list[str]:
    """Return the order of a round: each plain script once, for it takes minutes, and ours `ours` times in between."""
    plain = [name for name in names if name.startswith("plain")]
    mine = [name for name in names if name not in plain]
    return [
        each
        for turn in range(max(ours, len(plain)))
        for each in (*(mine if turn < ours else ()), *plain[turn : turn + 1])
    ]


def main() -> None:
    """Run all programs in turns and print the medians."""
    parser = parser_of(__doc__)
    parser.add_argument("photo")
    parser.add_argument("--weights", default="", help="file of weights; default: the embedded x4 network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--ours", type=int, default=1, help="runs of dsclora in each round, spread among the plain scripts"
    )
    parser.add_argument("--formats", nargs="+", default=["png"])
    parser.add_argument(
        "--plain-tiles", type=int, nargs="*", default=[0], help="tile edges of the plain script; 0 is the whole picture"
    )
    parser.add_argument("--engines", nargs="+", default=["auto"])
    args = parser.parse_args()
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DSCLORA_STATE_DIR"] = folder
        for suffix in args.formats:
            commands = candidates(args, str(Path(folder) / f"out.{suffix}"))
            taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in commands}
            for name in turns(list(commands), args.ours) * args.rounds:
                taken[name].append(run(commands[name]))
            results[suffix] = {name: medians(rows) for name, rows in taken.items()}
            show(suffix, results[suffix])
    save_results(args, {"photo": args.photo, "medians": results})


def show(suffix: str, results: dict[str, list[float]]) -> None:
    """Print time and memory of every program, and how many times as long the plain script takes, also in CPU time."""
    plain = {name: row for name, row in results.items() if name.startswith("plain")}
    for name, (seconds, megabytes, cpu) in results.items():
        ratios = [] if name in plain else [f"{rival} / this {plain[rival][0] / seconds:.2f}" for rival in plain]
        ratios += (
            [] if name in plain else [f"{rival} / this in CPU time {plain[rival][2] / cpu:.2f}" for rival in plain]
        )
        print(
            f"{suffix} {name:22} {seconds:8.2f} s {megabytes:8.0f} MB, CPU {cpu:7.2f} s   {'   '.join(ratios)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
