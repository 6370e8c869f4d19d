"""Measure the seconds of whole processes: `dsclora --help`, a 256x256 picture, and `import torch` for comparison.

    python benchmarks/startup.py [--rounds 7] [--json F]

Prints medians over fresh processes. The commands take turns, so that a busy machine slows all of them alike. Targets:
help in under 0.4 s, and the picture with OpenVINO in at most 0.45 of the time that the picture takes with PyTorch.
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
}


def seconds(arguments: list[str], folder: str) -> float:
    """Return the wall time of a fresh interpreter that runs in a folder."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - started


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
    medians = {name: statistics.median(run[name] for run in times[1:]) for name in COMMANDS}
    save_results(args, medians)
    for name, median in medians.items():
        print(f"{name:27} {median:6.3f} s   {median / medians['import torch']:5.2f} of `import torch`")


if __name__ == "__main__":
    main()
