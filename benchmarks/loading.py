"""Measure how many training patches per second are loaded, clean and degraded, and the share of a training step.

    python benchmarks/loading.py DIR [--scale 4] [--batch 16] [--patch 48] [--steps 50] [--device cpu]

In training, one thread loads the next batch while the network works. A share below 100 % therefore costs no time where
a CPU core is free for the thread. The step to compare with is that of the DSCLoRA student with L1 and Adam, compiled
where the machine has a compiler.
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
from dsclora_cli.recipe import DEFAULT_SHAPES, DataOptions, DegradeOptions, NetworkOptions, Recipe
from dsclora_cli.training.compile import compiled

_WARMUP = 3  # calls before the measurement: the first call compiles


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
        loading[name] = median_seconds(partial(next, batches), args.steps)
    step = training_step(data.batch(0, slice(None)), args.scale, resolve_device(args.device))
    working = median_seconds(step, args.steps)
    print(f"a step of {args.batch} patches of {args.patch} pixels: {working * 1e3:.1f} ms")
    for name, seconds in loading.items():
        rate = args.batch / seconds
        print(f"{name:8} {seconds * 1e3:7.1f} ms a batch, {rate:6.0f} patches/s, {seconds / working:6.1%} of a step")


def training_step(batch: Batch, scale: int, device: torch.device) -> Callable[[], float]:
    """Return a function that trains the student for one step on a batch and returns the loss."""
    channels, blocks = DEFAULT_SHAPES["dsclora"]
    network = SPAN(SpanConfig(scale=scale, channels=channels, blocks=blocks))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = compiled(network, "auto", device, print)
    optimizer, here = torch.optim.Adam(network.parameters()), batch.to(device)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = l1_loss(forward(here.lr), here.hr)
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()  # waits for a GPU, whose work would not be timed otherwise

    return step


def median_seconds(call: Callable[[], object], times: int) -> float:
    """Return the median time of a call in seconds, after calls that warm up."""
    taken = []
    for _ in range(_WARMUP + times):
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[_WARMUP:])


if __name__ == "__main__":
    main()
