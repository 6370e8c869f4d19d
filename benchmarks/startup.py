"""Measure the seconds of whole processes: `dsclora --help`, a 256x256 picture, and `import torch` for comparison.

    python benchmarks/startup.py [--rounds 7] [--json F]

Prints medians over fresh processes, the least times and the least CPU times. The commands take turns, so that a busy
machine slows all of them alike. Targets: help in under 0.4 s, and the picture with the native engine in at most 0.6 s.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from results import parser_of, save_results

from dsclora_cli.inference.native.library import why_unavailable

PICTURE = "small.png"
UPSCALE = ["-m", "dsclora_cli", "upscale", PICTURE, "-m", "dsclora-x4", "-q", "--overwrite", "--device", "cpu"]
COMMANDS = {
    "python": ["-c", "pass"],
    "dsclora --version": ["-m", "dsclora_cli", "--version"],
    "dsclora --help": ["-m", "dsclora_cli", "--help"],
    "dsclora upscale --help": ["-m", "dsclora_cli", "upscale", "--help"],
    "import torch": ["-c", "import torch"],
    "256x256, --engine torch": [*UPSCALE, "--engine", "torch"],
    **({"256x256, --engine openvino": [*UPSCALE, "--engine", "openvino"]} if find_spec("openvino") else {}),
    **({} if why_unavailable() else {"256x256, --engine native": [*UPSCALE, "--engine", "native"]}),
}


def seconds(arguments: list[str], folder: str) -> tuple[float, float]:
    """Return the wall time and the CPU time of a fresh interpreter that runs in a folder."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - started
    if status:
        sys.exit(f"{arguments} failed")
    return taken, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Time all commands in turn; the first round is a warm-up."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DSCLORA_STATE_DIR"] = folder
        Image.effect_noise((256, 256), 40).convert("RGB").save(Path(folder) / PICTURE)
        turns = range(args.rounds + 1)
        times = [{name: seconds(arguments, folder) for name, arguments in COMMANDS.items()} for _ in turns]
    medians = {name: statistics.median(run[name][0] for run in times[1:]) for name in COMMANDS}
    save_results(args, medians)
    for name, median in medians.items():
        least, least_cpu = (min(run[name][column] for run in times[1:]) for column in (0, 1))
        ratio = median / medians["import torch"]
        print(
            f"{name:27} {median:6.3f} s   {ratio:5.2f} of `import torch`   least {least:.3f} s, CPU {least_cpu:.3f} s"
        )


if __name__ == "__main__":
    main()
