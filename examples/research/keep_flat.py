"""Train a network a little further, so that flat colors stay flat, and everything else stays as it is.

    python examples/research/keep_flat.py NETWORK OUT --config RECIPE --data PHOTOS [--data HALVED] [--lr LR]

A network that was trained for photographs, or a mixture of networks, may put a faint pattern on flat colors, and be
some levels off. Each step has a batch of the recipe's patches, degraded as the recipe says, for which the network shall
return what it returned before, and flat patches of random colors, for which it shall return the color. The loss is L1.
The result is the moving average of the weights; the script prints what flat colors look like before and after.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from train_sharp import prepare

from dsclora_cli.datasets.patches import TrainSet
from dsclora_cli.models.initialization import step_scales
from dsclora_cli.models.network import Network
from dsclora_cli.paths import sha256_of
from dsclora_cli.recipe import OptimizerOptions
from dsclora_cli.training.optim import EMA, make_optimizer, rate_at
from dsclora_cli.weights.checkpoint import load_network, save_network

_SIDE = 24  # LR pixels of a flat patch, a little more than the network sees in each direction
_FLAT = 32  # flat patches in a step
_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of each channel, for the colors that are measured


def flat_patches(colors: Tensor) -> Tensor:
    """Return LR patches `(N, 3, H, W)` of colors `(N, 3)` in [0, 1]."""
    return colors[:, :, None, None].expand(-1, -1, _SIDE, _SIDE).contiguous()


def middles_of(network: Network, colors: Tensor) -> Tensor:
    """Return the middle third of the network's results for flat patches, which no border reaches."""
    large: Tensor = network(flat_patches(colors))
    middle = slice(large.shape[-1] // 3, large.shape[-1] * 2 // 3)
    return large[:, :, middle, middle]


def random_colors(count: int) -> Tensor:
    """Return colors `(N, 3)` in [0, 1]; a third of their channels are 0 or 1, as in graphics."""
    values, pure = torch.rand(count, 3), torch.randint(0, 6, (count, 3))
    return torch.where(pure == 0, 0.0, torch.where(pure == 1, 1.0, values))


@torch.no_grad()
def flatness(network: Network) -> str:
    """Return how far results for 125 flat colors are from flat, and from the color, in levels of 255."""
    colors = torch.tensor(list(itertools.product(_LEVELS, repeat=3)))
    middle = middles_of(network, colors).clamp(0, 1) * 255
    pattern = (middle.amax((2, 3)) - middle.amin((2, 3))).amax(1)
    offset = (middle.mean((2, 3)) - colors * 255).abs().amax(1)
    return (
        f"pattern {pattern.mean():.1f} levels, at most {pattern.max():.1f}; "
        f"offset {offset.mean():.1f}, at most {offset.max():.1f}"
    )


def trained(before: Network, data: TrainSet, options: OptimizerOptions, steps: int, weight: float) -> Network:
    """Return the network after training; `weight` is that of the flat patches, next to 1 for all others."""
    student = copy.deepcopy(before).train()
    scales = step_scales(student, data.batch(0, slice(None)).lr)
    optimizer, average = make_optimizer(options, student, scales), EMA(student, options.ema)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(options, step, steps) * group["scale"]
        lr, colors = data.batch(step, slice(None)).lr, random_colors(_FLAT)
        with torch.no_grad():
            wanted = before(lr)
        same = (student(lr) - wanted).abs().mean()
        flat = (middles_of(student, colors) - colors[:, :, None, None]).abs().mean()
        optimizer.zero_grad()
        (same + weight * flat).backward()
        nn.utils.clip_grad_norm_(student.parameters(), options.clip)
        optimizer.step()
        average.update(student, step)
        if (step + 1) % 100 == 0:
            levels = [255 * each.item() for each in (same, flat)]
            print(f"step {step + 1}: other patches {levels[0]:.2f} levels, flat {levels[1]:.2f}", flush=True)
    network = average.module
    assert isinstance(network, Network)
    return network


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and write the network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--lr", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rate", type=float, default=0.003, help="highest learning rate")
    parser.add_argument("--weight", type=float, default=1.0, help="of the flat patches")
    args = parser.parse_args(arguments)
    recipe, data = prepare(args.config, tuple(args.data), args.lr, val=None)
    before = load_network(args.network)
    print(f"before: {flatness(before)}")
    network = trained(before, data, replace(recipe.optimiser, learning_rate=args.rate), args.steps, args.weight)
    print(f"after: {flatness(network)}")
    origin = {"keep_flat": sha256_of(args.network), "steps": args.steps, "rate": args.rate, "weight": args.weight}
    save_network(network, args.out, json.dumps(origin))


if __name__ == "__main__":
    main()
