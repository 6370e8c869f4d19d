"""Patches per second that training data gives, clean and degraded, and its share of a training step.

    python benchmarks/loading.py DIR [--scale 4] [--batch 16] [--patch 48] [--steps 50] [--device cpu]

Data is loaded by one thread while the network works, so a share below 100 % is no wait where a core is
free for it. The step is that of the DSCLoRA student, L1 and Adam, compiled where there is a compiler.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import torch
from torch.nn.functional import l1_loss

from dsclora_cli.datasets.patches import Batch, open_data
from dsclora_cli.inference.device import resolve_device
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.recipe import ARCHITECTURES, DataOptions, DegradeOptions, NetworkOptions, Recipe
from dsclora_cli.training.compile import compiled


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    options = DataOptions(data=(str(args.folder),), batch=args.batch, patch=args.patch)
    loading: dict[str, float] = {}
    for name, degrade in (("clean", False), ("degraded", True)):
        recipe = Recipe(NetworkOptions(scale=args.scale), options, DegradeOptions(degrade=degrade))
        started = time.perf_counter()
        data, _ = open_data(recipe)
        print(f"{name}: {len(data.pictures)} pictures opened in {time.perf_counter() - started:.2f} s")
        batches = (data.batch(step, slice(None)) for step in count())
        loading[name] = median(partial(next, batches), args.steps)
    step = training_step(data.batch(0, slice(None)), args.scale, resolve_device(args.device))
    working = median(step, args.steps)
    print(f"a step of {args.batch} patches of {args.patch} pixels: {working * 1e3:.1f} ms")
    for name, seconds in loading.items():
        rate = args.batch / seconds
        print(f"{name:8} {seconds * 1e3:7.1f} ms a batch, {rate:6.0f} patches/s, {seconds / working:6.1%} of a step")


def training_step(batch: Batch, scale: int, device: torch.device) -> Callable[[], float]:
    """One step of the student on a batch; it answers with the loss."""
    channels, blocks = ARCHITECTURES["dsclora"]
    network = SPAN(SpanConfig(scale=scale, channels=channels, blocks=blocks))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = compiled(network, "auto", device, print)
    optimizer, here = torch.optim.Adam(network.parameters()), batch.to(device)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = l1_loss(forward(here.lr), here.hr)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    return step


def median(call: Callable[[], object], times: int) -> float:
    """Seconds of a call, after three that do not count."""
    taken = []
    for _ in range(3 + times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[3:])


if __name__ == "__main__":
    main()
