"""Milliseconds for one picture through the x4 network alone: the engine against PyTorch as a plain script runs it.

    python benchmarks/network.py [--weights FILE] [--sizes 256 512] [--rounds 7] [--threads N] [--compiled] [--json F]

In turns, medians over the rounds. The roofline is what the convolutions' multiply-adds would take at the rate of a
large matrix product. `--compiled` adds torch.compile, which needs a C++ compiler and half a minute.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dsclora_cli.config import ModelOptions
from dsclora_cli.model.network import Network
from dsclora_cli.runtime.complexity import complexity
from dsclora_cli.runtime.fused import fuse
from dsclora_cli.weights.network import open_network
from dsclora_cli.weights.resolve import find_weights

SIDE = 2048  # of the matrices


def contenders(network: Network, compiled: bool) -> dict[str, nn.Module]:
    """Modules with the same answers; `plain` is what the ratios are to."""
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = {"plain": network, "channels_last": last, "dsclora": fuse(network)}
    return {**found, "torch.compile": torch.compile(copy.deepcopy(last))} if compiled else found


def milliseconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def measured(network: Network, size: int, rounds: int, compiled: bool) -> dict[str, float]:
    """Medians in ms by contender, and that of the roofline."""
    picture = torch.rand(1, 3, size, size)
    matrix = torch.rand(SIDE, SIDE)
    modules = contenders(network, compiled)
    layouts = {name: torch.contiguous_format if name == "plain" else torch.channels_last for name in modules}
    inputs = {name: picture.contiguous(memory_format=layouts[name]) for name in modules}
    taken: dict[str, list[float]] = {name: [] for name in (*modules, "roofline")}
    share = complexity(network, size).multiply_adds / SIDE**3
    for warm in range(rounds + 1):
        for name, module in modules.items():
            spent = milliseconds(lambda module=module, name=name: module(inputs[name]))
            taken[name] += [spent] if warm else []
        taken["roofline"].append(share * milliseconds(lambda: matrix @ matrix))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    options = ModelOptions(weights=args.weights) if args.weights else ModelOptions("dsclora-x4")
    network = open_network(find_weights(options, 4)).eval()
    with torch.inference_mode():
        results = {size: measured(network, size, args.rounds, args.compiled) for size in args.sizes}
    for size, times in results.items():
        for name, spent in times.items():
            ratios = f"plain / it {times['plain'] / spent:.2f}, roofline / it {times['roofline'] / spent:.0%}"
            print(f"{size}x{size} {name:13} {spent:8.1f} ms   {ratios}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
