"""Seconds that `dsclora --help` takes, beside those of `import torch`, which it must not pay.

    python benchmarks/startup.py [rounds]

Prints the medians of interleaved fresh processes, so that a busy machine slows both alike. Target: under 0.4 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python": ["-c", "pass"],
    "dsclora --version": ["-m", "dsclora_cli", "--version"],
    "dsclora --help": ["-m", "dsclora_cli", "--help"],
    "dsclora upscale --help": ["-m", "dsclora_cli", "upscale", "--help"],
    "import torch": ["-c", "import torch"],
}


def seconds(arguments: list[str]) -> float:
    """Wall time of one fresh interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Time all commands in turn, `rounds` times after one warm-up."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    times = [{name: seconds(arguments) for name, arguments in COMMANDS.items()} for _ in range(rounds + 1)][1:]
    medians = {name: statistics.median(run[name] for run in times) for name in COMMANDS}
    for name, median in medians.items():
        print(f"{name:24} {median:6.3f} s   {median / medians['import torch']:5.2f} of `import torch`")


if __name__ == "__main__":
    main()
