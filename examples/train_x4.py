"""Train an x4 network from random initialisation on a folder of photographs and save it as safetensors.

    python examples/train_x4.py --data PHOTOS --out RUN --steps 6000

Seeded, resumable (run the same command again), and selected on held-out photographs of the same folder. This is the
whole recipe behind the embedded `dsclora-x4`: L1 on random 48x48 LR patches, Adam with warm-up and cosine, EMA.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.model.span import Span, SpanConfig, merge
from dsclora_cli.weights.checkpoint import save_network

SCALE = 4
VALIDATION_EVERY = 25  # one photograph in this many is held out
CHECKPOINT_SECONDS = 120

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def load_pairs(folder: Path, patch: int) -> list[Pair]:
    """LR and HR of every photograph that holds a patch, LR by MATLAB bicubic of the whole picture."""
    pairs = []
    for path in sorted(p for p in folder.iterdir() if p.suffix in {".png", ".jpg", ".webp", ".tif"}):
        hr = np.array(Image.open(path).convert("RGB"))
        hr = hr[: hr.shape[0] // SCALE * SCALE, : hr.shape[1] // SCALE * SCALE]
        if min(hr.shape[:2]) >= patch * SCALE:
            pairs.append((downscale(hr, SCALE), hr))
    return pairs


def sample_batch(
    pairs: list[Pair], size: int, patch: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of randomly cropped, flipped and turned patches, `(N, 3, p, p)` and `(N, 3, 4p, 4p)` in [0, 1]."""
    area = np.array([lr.shape[0] * lr.shape[1] for lr, _ in pairs], float)
    lrs, hrs = [], []
    for index in rng.choice(len(pairs), size, p=area / area.sum()):
        lr, hr = pairs[index]
        y, x = (int(rng.integers(0, side - patch + 1)) for side in lr.shape[:2])
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        for source, scale, into in ((lr, 1, lrs), (hr, SCALE, hrs)):
            crop = source[y * scale : (y + patch) * scale, x * scale : (x + patch) * scale]
            crop = np.rot90(crop[:, ::-1] if flip else crop, turns)
            into.append(torch.from_numpy(np.ascontiguousarray(crop)))
    return tuple(torch.stack(t).permute(0, 3, 1, 2).float() / 255 for t in (lrs, hrs))  # type: ignore[return-value]


def held_out_psnr(network: Span, pairs: list[Pair]) -> float:
    """Mean PSNR-Y in dB over whole pictures, border = scale."""
    merged, scores = merge(network).eval(), []
    with torch.inference_mode():
        for lr, hr in pairs:
            x = torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255
            y = merged(x)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
            scores.append(psnr_y(y, hr, SCALE))
    return float(np.mean(scores))


def initial_network(config: SpanConfig, seed: int) -> Span:
    """Random weights, the last convolution nearly silent and centred on mid-grey: it then learns detail at once."""
    torch.manual_seed(seed)
    network = Span(config)
    last = network.upsampler[0]
    assert isinstance(last, torch.nn.Conv2d)
    with torch.no_grad():
        last.weight.mul_(0.01)
        assert last.bias is not None
        last.bias.fill_(0.45)
    return network


class Run:
    """A training run: networks, optimiser and step, with everything needed to go on exactly from a checkpoint."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.config = SpanConfig(channels=args.channels, blocks=args.blocks, scale=SCALE, expanded=args.expanded)
        self.network = initial_network(self.config, args.seed)
        self.ema = initial_network(self.config, args.seed)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=args.lr, betas=(0.9, 0.99))
        self.step, self.best = 0, 0.0
        self.state_file = args.out / "state.pt"
        if self.state_file.exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self.state_file, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.best = state["step"], state["best"]

    def checkpoint(self) -> None:
        """Write the whole state, atomically."""
        parts = {"network": self.network, "ema": self.ema, "optimiser": self.optimiser}
        state = {name: part.state_dict() for name, part in parts.items()} | {"step": self.step, "best": self.best}
        partial = self.state_file.with_suffix(".tmp")
        torch.save(state, partial)
        partial.replace(self.state_file)

    def learning_rate(self) -> float:
        """Linear warm-up over 2 % of the steps, then a cosine to a hundredth."""
        warm = max(1, self.args.steps // 50)
        progress = max(0, self.step - warm) / max(1, self.args.steps - warm)
        return self.args.lr * min(1.0, (self.step + 1) / warm) * (0.505 + 0.495 * math.cos(math.pi * progress))

    def train_step(self, forward: torch.nn.Module, pairs: list[Pair]) -> float:
        """One optimiser step; returns the loss."""
        rng = np.random.default_rng([self.args.seed, self.step])
        lr, hr = sample_batch(pairs, self.args.batch, self.args.patch, rng)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        loss = F.l1_loss(forward(lr.to(memory_format=torch.channels_last)), hr)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(self.args.ema, 1 - 1 / (1 + self.step / 4))
        with torch.no_grad():
            for average, value in zip(self.ema.parameters(), self.network.parameters(), strict=True):
                average.lerp_(value, 1 - decay)
        return loss.item()

    def save_best(self, score: float) -> None:
        """Keep the averaged network if it is the best on the held-out photographs so far."""
        if score <= self.best:
            return
        self.best = score
        training = {
            "recipe": "examples/train_x4.py",
            "held_out_psnr_y": round(score, 4),
            "step": self.step,
            **{key: value for key, value in vars(self.args).items() if isinstance(value, (int, float))},
            "network": asdict(replace(self.config, expanded=False)),
        }
        save_network(merge(self.ema), self.args.out / "best.safetensors", training=json.dumps(training))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of HR photographs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    for name, default in (("steps", 6000), ("batch", 16), ("patch", 48), ("channels", 26), ("blocks", 6), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--ema", type=float, default=0.995)
    parser.add_argument("--validate", type=int, default=250, help="steps between held-out scores")
    parser.add_argument("--expanded", action=argparse.BooleanOptionalAction, default=True, help="SPAN's training form")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args()


def main() -> None:
    """Train until `--steps`, logging held-out PSNR-Y to `log.jsonl`."""
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    pairs = load_pairs(args.data, args.patch)
    held_out, training = pairs[::VALIDATION_EVERY], [p for i, p in enumerate(pairs) if i % VALIDATION_EVERY]
    run = Run(args)
    run.network.to(memory_format=torch.channels_last)
    forward = torch.compile(run.network) if args.compile else run.network
    saved, losses, started = time.monotonic(), [], time.monotonic()
    while run.step < args.steps:
        losses.append(run.train_step(forward, training))
        if run.step % args.validate == 0 or run.step == args.steps:
            score = held_out_psnr(run.ema, held_out)
            run.save_best(score)
            seconds = round(time.monotonic() - started, 1)
            line = {"step": run.step, "loss": float(np.mean(losses)), "held_out_psnr_y": score, "seconds": seconds}
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            losses = []
        if time.monotonic() - saved > CHECKPOINT_SECONDS:
            run.checkpoint()
            saved = time.monotonic()
    run.checkpoint()


if __name__ == "__main__":
    main()
