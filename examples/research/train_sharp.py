"""Train a sharp network: a sharp teacher's pictures as targets, and a discriminator that compares the two.

    python examples/research/train_sharp.py --config dsclora-x4-sharp.toml --data PHOTOS --data HALVED --val HELD-OUT \
        --teacher-images SHARP --out RUN [--resume]

L1 to a sharp teacher gives soft results, because a small network cannot know where the teacher puts its detail, and
returns the mean of all places. The discriminator (spectral norm, hinge loss: arXiv 1802.05957) learns to tell the
student's patches from the teacher's, and the student learns to be taken for the teacher. The feature maps of the
discriminator are matched too, as in pix2pixHD (arXiv 1711.11585, equation 2): the teacher's patch shows where a detail
belongs, so that the student does not fill patches with a pattern.

`PARTS` leads the run; the recipe gives all else. `validate` is the number of steps between two scores. A score is NIQE
(lower is sharper) and PSNR-Y, for the middle 512 pixels of the held-out pictures, with LR that is not degraded and with
LR saved as JPEG 75. RUN holds `last.safetensors`, `log.jsonl`, and for each score the results for the first picture,
without and with JPEG; --resume continues after the last score, or begins.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from saved_pictures import read
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from dsclora_cli.datasets.degradation import jpeg
from dsclora_cli.datasets.patches import Batch, TrainSet, open_data
from dsclora_cli.datasets.teacher_pictures import with_teacher_pictures
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.niqe import niqe
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.inference.tiling import TileOptions, upscale_array
from dsclora_cli.inference.torch_cpu import open_torch_engine
from dsclora_cli.models.initialization import step_scales
from dsclora_cli.models.network import Network
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import read_recipe, recipe_digest, resolve_defaults
from dsclora_cli.training.compile import compiled
from dsclora_cli.training.optim import EMA, Precision, make_optimizer, rate_at
from dsclora_cli.training.train import initial_network
from dsclora_cli.weights.checkpoint import save_network

STATE = "state.pt"
"""Name of the file for `--resume` in the folder of a run."""

_CPU = torch.device("cpu")
_JPEG = 75  # quality of the JPEGs that are scored
_MIDDLE = 512  # pixels: edge of the part of a held-out picture that is scored
_WIDTH = 32  # channels of the discriminator at half the size of a patch
_RAMP = 100, 400  # steps of a new run: first L1 alone, then a linear ramp up to both weights
_MEASURE = 20  # steps between two measurements of the sizes of the gradients
_LEAST_SHARE = 0.1  # the discriminator's rate falls to this share of its highest rate
_FIRST = 50  # steps of a new run in which each step measures


class Discriminator(nn.Module):
    """Tell patches of the student from patches of the teacher: `(N, 3, H, W)` in [0, 1], H and W multiples of 8.

    Three scales with two convolutions and a score map each. Besides color the input has detail, eight times as strong:
    the difference to the picture reduced to a quarter of its size.
    """

    def __init__(self) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return spectral_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding=1))

        widths = (_WIDTH, 2 * _WIDTH, 3 * _WIDTH)
        layers = [conv(24, _WIDTH), conv(_WIDTH, _WIDTH)]  # 24: color and detail of 2x2 pixels
        for narrow, wide in pairwise(widths):
            layers += [conv(narrow, wide, kernel=4, stride=2), conv(wide, wide)]
        self.layers = nn.ModuleList(layers)
        self.heads = nn.ModuleList(conv(channels, 1) for channels in widths)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the score map of each scale, above 0 for the teacher, and the feature map of each layer."""
        body = F.pixel_unshuffle(torch.cat([x * 2 - 1, (x - _rough(x)) * 8], dim=1), 2)
        body = body.contiguous(memory_format=torch.channels_last)
        scores, features = [], []
        for index, layer in enumerate(self.layers):
            body = F.leaky_relu(layer(body), 0.2)
            features.append(body)
            if index % 2:
                scores.append(self.heads[index // 2](body).float())
        return scores, features


@dataclass(frozen=True)
class Part:
    """Settings of a part of the run.

    Sizes of gradients with respect to the student's output are shares of the size of the gradient of L1.
    """

    end: int
    """The step at which the part ends."""
    adversarial: float
    """Size of the gradient of the adversarial loss."""
    matching: float
    """Size of the gradient of the loss between feature maps."""
    rate: float
    """Highest learning rate of the student; the schedule runs over all parts."""
    other_rate: float
    """Highest learning rate of the discriminator."""
    noise: float = 0.0
    """Standard deviation of noise on all patches that the discriminator sees, in [0, 1]."""


PARTS = (
    Part(1500, 0.2, 0.3, 0.004, 1e-4),
    Part(2000, 0.6, 0.4, 0.004, 1e-4),
    Part(2500, 2.0, 0.5, 0.004, 1e-4),
    Part(3500, 4.0, 0.5, 0.012, 1e-4),
    Part(5000, 20.0, 0.5, 0.012, 1e-4),
    Part(5500, 20.0, 0.5, 0.02, 2e-4, noise=0.012),
    Part(7500, 80.0, 1.0, 0.02, 2e-4, noise=0.012),
    Part(10_000, 80.0, 1.0, 0.02, 4e-4, noise=0.005),
    Part(12_000, 240.0, 1.5, 0.03, 4e-4, noise=0.005),
)
"""Let the discriminator learn at small weights first: else the student fills everything with lines every four pixels.

Most of the adversarial gradient is different for each patch and cancels out, hence the large sizes. The noise hides
differences that are too fine for the student to learn.
"""


class Run:
    """Train by adversarial distillation on the CPU."""

    def __init__(self, recipe: Recipe, data: TrainSet, out: Path) -> None:
        self._recipe, self._data, self._out = recipe, data, out
        self._student = initial_network(recipe, data, offline=True)
        self._student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        scales = step_scales(self._student, torch.cat([data.batch(step, slice(None)).lr for step in range(4)]))
        self._forward = compiled(self._student, recipe.run.compile, _CPU, print)
        self._optimizer = make_optimizer(recipe.optimiser, self._student, scales)
        self._average = EMA(self._student, recipe.optimiser.ema)
        self._discriminator = Discriminator().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._other = torch.optim.Adam(self._discriminator.parameters(), betas=(0.5, 0.99))
        self._precision = Precision(recipe.run.amp, _CPU)
        self._step, self._seconds = 0, 0.0
        self._ratios: list[float] = []  # size of the gradient of L1 over the sizes of the two others, averaged
        self._sums: dict[str, float] = {}  # of the values for the next line of the log
        self._counted = 0  # steps in these sums

    def run(self, held_out: Path) -> None:
        """Take all steps that are left, and score as the recipe says."""
        steps, every = PARTS[-1].end, self._recipe.run.validate
        scale = self._recipe.network.scale
        pairs = [(downscale(hr, scale), hr) for hr in read(held_out, _MIDDLE, scale)]
        with ThreadPoolExecutor(1) as loader:
            loading = loader.submit(self._data.batch, self._step, slice(None))
            while self._step < steps:
                started = time.monotonic()
                batch = loading.result()
                loading = loader.submit(self._data.batch, self._step + 1, slice(None))
                self._take(batch, next(part for part in PARTS if self._step < part.end))
                self._seconds += time.monotonic() - started
                if self._step % every == 0 or self._step == steps:
                    self._score(pairs)

    def _take(self, batch: Batch, part: Part) -> None:
        """Take a step of the discriminator, and a step of the student."""
        target = _target(batch)
        rate = rate_at(replace(self._recipe.optimiser, learning_rate=part.rate), self._step, PARTS[-1].end)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        for group in self._other.param_groups:
            group["lr"] = part.other_rate * max(_LEAST_SHARE, rate / part.rate)

        with self._precision.autocast():
            output = self._forward(batch.lr).float()
            scores, features = self._discriminator(_noisy(torch.cat([target, output.detach()]), part.noise))
        # Hinge loss: what is told apart by more than 1 no longer counts, so the discriminator does not grow over-sure.
        count = len(target)
        hinges = [F.relu(1 - each[:count]).mean() + F.relu(1 + each[count:]).mean() for each in scores]
        hinge = torch.stack(hinges).mean()
        self._other.zero_grad()
        torch.autograd.backward(hinge)
        self._other.step()

        # The student's gradient with respect to its output is put together from three, and goes back through it once.
        shown = output.detach().requires_grad_()
        l1 = torch.sign(shown.detach() - target) / shown.numel()
        gradient = l1 + self._ramp() * self._pull(shown, [each[:count].detach() for each in features], l1, part)
        self._optimizer.zero_grad()
        torch.autograd.backward(output, gradient)
        nn.utils.clip_grad_norm_(self._student.parameters(), self._recipe.optimiser.clip)
        self._optimizer.step()
        self._average.update(self._student, self._step)
        self._step += 1
        self._counted += 1
        self._count({"l1": (shown - target).abs().mean().item(), "discriminator": hinge.item()})

    def _pull(self, shown: Tensor, features: list[Tensor], l1: Tensor, part: Part) -> Tensor:
        """Return the gradient of the adversarial loss and of feature matching with respect to the output.

        Args:
            shown: The output, apart from the student.
            features: The discriminator's feature maps of the teacher's patches, from before its step: computing them
                again would change them by one step and cost a pass.
            l1: Gradient of L1.
            part: Sizes of the gradients.
        """
        self._discriminator.requires_grad_(False)
        with self._precision.autocast():
            scores, own = self._discriminator(_noisy(shown, part.noise))
        adversarial = -torch.stack([each.mean() for each in scores]).mean()
        pairs = ((mine.float(), other.float()) for mine, other in zip(own, features, strict=True))
        matching = torch.stack([F.l1_loss(mine, other) / other.abs().mean() for mine, other in pairs]).mean()
        if self._step < _FIRST or self._step % _MEASURE == 0:
            sizes = (torch.autograd.grad(each, shown, retain_graph=True)[0].norm() for each in (adversarial, matching))
            new = [(l1.norm() / (size + 1e-12)).item() for size in sizes]
            pace = 1.0 if self._step < _FIRST else 0.1
            self._ratios = [old + pace * (ratio - old) for old, ratio in zip(self._ratios or new, new, strict=True)]
        first, second = self._ratios
        loss = part.adversarial * first * adversarial + part.matching * second * matching
        (gradient,) = torch.autograd.grad(loss, shown)
        self._discriminator.requires_grad_(True)
        self._count({"adversarial": adversarial.item(), "matching": matching.item()})
        return gradient

    def _ramp(self) -> float:
        """Return the share of the gradients of the discriminator at this step."""
        wait, rise = _RAMP
        return min(1.0, max(0.0, (self._step - wait) / rise))

    def _count(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _score(self, pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
        """Write a line of the log, the weights, the first result, and the state for `--resume`."""
        network, scale = self._average.module, self._recipe.network.scale
        assert isinstance(network, Network)
        engine = open_torch_engine(network, network.config.descriptor, _CPU, torch.float32)
        inputs = {"": [lr for lr, _ in pairs], "_jpeg": [jpeg(lr, _JPEG) for lr, _ in pairs]}
        scores: dict[str, float] = {}
        shown = []
        for kind, pictures in inputs.items():
            results = [upscale_array(lr, engine, TileOptions(0)).astype(np.uint8, copy=False) for lr in pictures]
            psnr = [psnr_y(result, hr, scale) for result, (_, hr) in zip(results, pairs, strict=True)]
            scores |= {f"psnr_y{kind}": float(np.mean(psnr)), f"niqe{kind}": float(np.mean([*map(niqe, results)]))}
            shown.append(results[0])
        means = {name: total / self._counted for name, total in self._sums.items()}
        line = {
            "step": self._step,
            "loss": means["l1"],
            "terms": means,
            **scores,
            "rate": self._optimizer.param_groups[0]["lr"] / self._optimizer.param_groups[0]["scale"],
            "seconds": self._seconds,
        }
        words = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        print(f"step {self._step}: {words}", flush=True)
        with (self._out / "log.jsonl").open("a", encoding="utf-8") as log:
            print(json.dumps(line), file=log)
        self._sums, self._counted = {}, 0
        Image.fromarray(np.concatenate(shown, axis=1)).save(self._out / f"result-{self._step:06d}.png")
        origin = f"train_sharp.py, recipe {recipe_digest(self._recipe)}, data {self._data.digest}, step {self._step}"
        save_network(network, self._out / "last.safetensors", origin)
        state = {name: part.state_dict() for name, part in self._stateful().items()}
        others = {"step": self._step, "seconds": self._seconds, "ratios": self._ratios}
        torch.save({**state, **others}, self._out / "state.tmp")
        (self._out / "state.tmp").replace(self._out / STATE)

    def resume(self) -> None:
        """Continue after the last score."""
        state = torch.load(self._out / STATE, weights_only=True)
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        self._step, self._seconds, self._ratios = state["step"], state["seconds"], state["ratios"]

    def _stateful(self) -> dict[str, Any]:
        return {
            "student": self._student,
            "average": self._average.module,
            "discriminator": self._discriminator,
            "optimizer": self._optimizer,
            "other": self._other,
        }


def _noisy(patches: Tensor, deviation: float) -> Tensor:
    return patches + deviation * torch.randn_like(patches)


def _target(batch: Batch) -> Tensor:
    """Return the teacher's detail over the colors of HR, `(N, 3, H, W)` in [0, 1]: a sharp teacher changes colors."""
    assert batch.teacher is not None
    return (batch.teacher + _rough(batch.hr - batch.teacher)).clamp(0, 1)


def _rough(x: Tensor) -> Tensor:
    """Return patches reduced to a quarter of their size and enlarged again."""
    return F.interpolate(F.avg_pool2d(x, 4), scale_factor=4.0, mode="bilinear")


def prepare(config: Path, data: tuple[str, ...], lr: Path | None, val: Path | None) -> tuple[Recipe, TrainSet]:
    """Seed PyTorch as a recipe says, and return the recipe with these folders, and the training pictures."""
    recipe = read_recipe(config)
    recipe = resolve_defaults(replace(recipe, data=replace(recipe.data, data=data, lr=lr, val=val)))
    torch.manual_seed(recipe.run.seed)
    torch.set_flush_denormal(True)
    torch.set_num_threads(recipe.run.threads or torch.get_num_threads())
    return recipe, open_data(recipe)[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--lr", type=Path)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--teacher-images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args(arguments)
    recipe, data = prepare(args.config, tuple(args.data), args.lr, args.val)
    data = with_teacher_pictures(data, args.teacher_images)
    is_begun = (args.out / STATE).exists()
    if is_begun and not args.resume:
        raise SystemExit(f"{args.out} holds a run (add --resume, or name another folder)")
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, data, args.out)
    if is_begun:
        run.resume()
    run.run(args.val)


if __name__ == "__main__":
    main()
