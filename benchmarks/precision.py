"""Measure what bfloat16 gains and costs in training: time of a step, and the angle between the two gradients.

    python benchmarks/precision.py DIR [--networks dsclora edsr rcan] [--weights dsclora-x4 FILE...] [--threads 1]

Each network takes a step in float32 and a step in bfloat16 in turn, both compiled where the machine has a compiler, so
that other work on the machine slows both alike. Then follow trained weights of scale 4: the cosine between the
gradients in both precisions over a batch of the pictures in DIR, for `--loss psnr`, and the change of the output.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from dsclora_cli.datasets.patches import Batch, open_data
from dsclora_cli.models.network import Network
from dsclora_cli.recipe import DataOptions, LossOptions, NetworkOptions, Recipe
from dsclora_cli.recipe_toml import resolve_defaults
from dsclora_cli.training.compile import compiled
from dsclora_cli.training.losses import ReconstructionLoss
from dsclora_cli.training.optim import Precision
from dsclora_cli.training.train import initial_network
from dsclora_cli.weights.resolve import find_named_weights, open_network

_WARMUP = 3  # steps before the measurement: the first step compiles
_PRECISIONS = ("off", "bfloat16")
_NETWORKS = {
    "dsclora": NetworkOptions("dsclora"),
    "edsr": NetworkOptions("edsr", channels=32, blocks=8),
    "rcan": NetworkOptions("rcan", channels=32, blocks=4, groups=3),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="*", choices=_NETWORKS, default=list(_NETWORKS))
    parser.add_argument("--weights", nargs="*", default=["dsclora-x4"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if note := Precision("bfloat16", torch.device("cpu")).note:
        raise SystemExit(note)
    data, _ = open_data(Recipe(data=DataOptions(data=(str(args.folder),), batch=args.batch, patch=args.patch)))
    batch = data.batch(0, slice(None)).to(torch.device("cpu"))
    for name in args.networks:
        network = initial_network(resolve_defaults(Recipe(_NETWORKS[name])), data, offline=True)
        whole, half = step_seconds(network, batch, args.steps)
        print(f"{name}: float32 {whole * 1e3:.0f} ms, bfloat16 {half * 1e3:.0f} ms, {whole / half:.2f} times as fast")
    for name in args.weights:
        network = open_network(find_named_weights(name)).train()
        (output, gradient), (mixed_output, mixed_gradient) = (gradient_of(network, batch, each) for each in _PRECISIONS)
        cosine = torch.cosine_similarity(gradient, mixed_gradient, dim=0)
        change = (mixed_output - output).square().mean().sqrt() * 255
        print(f"{name}: cosine of the gradients {cosine:.4f}, change of the output {change:.2f} gray levels (rms)")


def step_seconds(network: Network, batch: Batch, steps: int) -> tuple[float, float]:
    """Return the median time of a forward and backward pass in float32 and in bfloat16, in seconds."""
    device = torch.device("cpu")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward = compiled(network, "auto", device, print)
    taken: dict[str, list[float]] = {choice: [] for choice in _PRECISIONS}
    for _ in range(_WARMUP + steps):
        for choice in _PRECISIONS:
            started = time.perf_counter()
            with Precision(choice, device).autocast():
                loss = l1_loss(forward(batch.lr), batch.hr)
            torch.autograd.backward(loss)
            taken[choice].append(time.perf_counter() - started)
    whole, half = (statistics.median(taken[choice][_WARMUP:]) for choice in _PRECISIONS)
    return whole, half


def gradient_of(network: Network, batch: Batch, choice: str) -> tuple[Tensor, Tensor]:
    """Return the output of a network, and the gradient of `--loss psnr` with respect to all weights, as one vector."""
    network.zero_grad()
    with Precision(choice, torch.device("cpu")).autocast():
        output = network(batch.lr)
        loss = sum(ReconstructionLoss(LossOptions(loss="psnr"))(output, batch.hr).values())
    torch.autograd.backward(loss)
    return output.detach(), torch.cat([each.grad.flatten() for each in network.parameters() if each.grad is not None])


if __name__ == "__main__":
    main()
