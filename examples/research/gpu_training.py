"""Train the x4 network for some minutes on a GPU, in one command, on a machine without internet.

    python examples/research/gpu_training.py --data PHOTOS --val HELD-OUT --out RUN --minutes 10
    python examples/research/gpu_training.py --data PHOTOS --val HELD-OUT --out RUN --minutes 10 --resume

Every picture of 512 pixels a side or more is cut into tiles, and the tiles stay on the device as uint8, so no step
waits for a disk or a decoder.
The learning rate follows the clock, not a number of steps: the run ends in time on any card. Each minute the moving
average is scored on the held-out pictures, and a checkpoint is written. `dsclora train --init RUN/best.safetensors`
continues on a CPU, and `--init` here takes the weights of a run on a CPU. The script needs PyTorch, NumPy and Pillow,
and no other package; where dsclora is not installed, put `PYTHONPATH=.` before the command. Without the package
safetensors, the weights are written to `best.pth`, which dsclora reads as well.

A teacher is optional: `--teacher` names weights that dsclora can load, `--teacher-code` a Python file with a function
`open_teacher()` that returns a torch module, `(N, 3, H, W)` in [0, 1] to `(N, 3, 4H, 4W)`.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.models.initialization import fit_last_layer, lsuv_init, step_scales
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.paths import atomic_write
from dsclora_cli.recipe import OptimizerOptions
from dsclora_cli.training.optim import EMA, make_optimizer, rate_at
from dsclora_cli.weights.checkpoint import load_network, save_network

SCALE = 4
TILE = 128
"""Edge of a tile in LR pixels; patches are drawn inside tiles, so tiles overlap by half."""

CLOCK_STEPS = 100_000
"""Steps that the schedule divides the time into."""

FULL_PRECISION_SHARE = 0.2
"""Last share of the time that runs in float32: half precision hides the smallest corrections."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line; None stands for the arguments of the process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of HR pictures; repeatable")
    parser.add_argument("--val", type=Path, required=True, help="folder of held-out HR pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the whole run")
    parser.add_argument("--init", type=Path, help="weights to start from")
    parser.add_argument("--resume", action="store_true", help="resume from the checkpoint in --out")
    parser.add_argument("--teacher", type=Path, help="weights of a teacher")
    parser.add_argument("--teacher-code", type=Path, help="Python file with open_teacher()")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--patch", type=int, default=64, help="edge in LR pixels")
    parser.add_argument("--rate", type=float, default=0.05, help="SOAP: change of a weight per step, share of its size")
    parser.add_argument("--turn", type=int, default=20, help="SOAP: steps between two turns of its basis")
    parser.add_argument("--teacher-share", type=float, default=0.8, help="weight of the L1 distance to the teacher")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(argv)


def tiles_of(folders: list[Path], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return LR tiles `(T, 3, TILE, TILE)` and HR tiles `(T, 3, 4 TILE, 4 TILE)`, uint8, on the device."""
    lr_tiles, hr_tiles, small = [], [], 0
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        hr = np.array(Image.open(path).convert("RGB"))
        height, width = (side // SCALE for side in hr.shape[:2])
        if min(height, width) < TILE:
            small += 1  # a smaller picture holds no whole tile
            continue
        lr = downscale(hr, SCALE)
        for top in starts(height):
            for left in starts(width):
                lr_tiles.append(lr[top : top + TILE, left : left + TILE])
                rows, columns = (slice(SCALE * at, SCALE * (at + TILE)) for at in (top, left))
                hr_tiles.append(hr[rows, columns])
    if not lr_tiles:
        raise SystemExit(f"no picture of {', '.join(map(str, folders))} has {SCALE * TILE} pixels a side")
    if small:
        print(f"{small} pictures are left out: a side below {SCALE * TILE} pixels", flush=True)
    stacked = (torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous() for tiles in (lr_tiles, hr_tiles))
    lr, hr = (tiles.to(device) for tiles in stacked)
    return lr, hr


def starts(length: int) -> list[int]:
    """Return where tiles begin along a side: half a tile apart, the last one at the end."""
    return sorted({*range(0, length - TILE, TILE // 2), length - TILE})


class Patches:
    """Random patches of tiles, flipped and turned, drawn and cut on the device."""

    def __init__(self, lr: Tensor, hr: Tensor, options: argparse.Namespace) -> None:
        self._lr, self._hr, self._options = lr, hr, options
        self._generator = torch.Generator(lr.device).manual_seed(options.seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return LR `(N, 3, p, p)` and HR `(N, 3, 4p, 4p)`, float32 in [0, 1]."""
        batch, patch, device = self._options.batch, self._options.patch, self._lr.device
        draw = {"generator": self._generator, "device": device}
        chosen = torch.randint(len(self._lr), (batch,), **draw)
        top, left = torch.randint(TILE - patch + 1, (2, batch), **draw)
        # Each eighth of the batch has its own flip and turn: eight slices are cheaper than a gather for each sample.
        lr = cut(self._lr, chosen, top, left, patch)
        hr = cut(self._hr, chosen, top * SCALE, left * SCALE, patch * SCALE)
        pairs = zip(lr.chunk(8), hr.chunk(8), strict=True)
        turned = [(turn(one, index), turn(other, index)) for index, (one, other) in enumerate(pairs)]
        lr, hr = (torch.cat(parts).float().div_(255) for parts in zip(*turned, strict=True))
        return lr.contiguous(memory_format=torch.channels_last), hr

    def state(self) -> Tensor:
        """Return the state of the generator, for a checkpoint."""
        return self._generator.get_state()

    def load(self, state: Tensor) -> None:
        """Set the state of the generator."""
        self._generator.set_state(state.cpu())


def cut(tiles: Tensor, chosen: Tensor, top: Tensor, left: Tensor, edge: int) -> Tensor:
    """Return `(N, 3, edge, edge)` windows of chosen tiles."""
    steps = torch.arange(edge, device=tiles.device)
    rows, columns = top[:, None] + steps, left[:, None] + steps
    return tiles[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def turn(patches: Tensor, index: int) -> Tensor:
    """Return patches flipped and turned in way 0 to 7."""
    return torch.rot90(patches.flip(3) if index > 3 else patches, index % 4, (2, 3))


def open_teacher(options: argparse.Namespace, device: torch.device) -> nn.Module | None:
    """Return the frozen teacher on the device, or None."""
    if options.teacher_code:
        spec = importlib.util.spec_from_file_location("teacher_code", options.teacher_code)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        teacher: nn.Module = module.open_teacher()
    elif options.teacher:
        teacher = load_network(options.teacher)
    else:
        return None
    return teacher.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def new_network(patches: Patches) -> SPAN:
    """Return the student of the paper from random weights, scaled and fitted on first batches."""
    network = SPAN(SpanConfig(channels=26, blocks=6, scale=SCALE))
    first = [tuple(part[:16].cpu() for part in patches.draw()) for _ in range(4)]
    lsuv_init(network, first[0][0])
    fit_last_layer(network, first)
    return network


def pictures(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield LR and HR of the held-out pictures, `(h, w, 3)` uint8."""
    for path in sorted(folder.iterdir()):
        hr = np.array(Image.open(path).convert("RGB"))
        height, width = (side // SCALE * SCALE for side in hr.shape[:2])
        yield downscale(hr, SCALE), hr[:height, :width]


@torch.inference_mode()
def score(network: nn.Module, held_out: list[tuple[np.ndarray, np.ndarray]], device: torch.device) -> float:
    """Return the mean PSNR-Y in dB over held-out pictures, upscaled whole in float32."""
    scores = []
    for lr, hr in held_out:
        unit = torch.from_numpy(lr).to(device).permute(2, 0, 1)[None].float().div_(255)
        output = network(unit.contiguous(memory_format=torch.channels_last))[0].clamp_(0, 1).mul_(255).round_()
        scores.append(psnr_y(output.permute(1, 2, 0).byte().cpu().numpy(), hr, SCALE))
    return float(np.mean(scores))


class Run:
    """One run: the network, its optimizer and average, and how much of the time is used."""

    def __init__(self, options: argparse.Namespace) -> None:
        if not options.resume and (options.out / "state.pt").exists():
            raise SystemExit(f"{options.out} holds a run: add --resume, or choose another --out")
        self.options, self.device = options, torch.device(options.device)
        torch.manual_seed(options.seed)
        torch.backends.cudnn.benchmark = True
        self.patches = Patches(*tiles_of(options.data, self.device), options)
        self.held_out = list(pictures(options.val))
        network = load_network(options.init) if options.init else new_network(self.patches)
        assert isinstance(network, SPAN)
        scales = step_scales(network, self.patches.draw()[0][:16].cpu())
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.schedule = OptimizerOptions("soap", options.rate, betas=(0.95, 0.97), warmup=0.02)
        self.optimizer = make_optimizer(self.schedule, self.network, scales)
        for group in self.optimizer.param_groups:
            group["every"] = options.turn
        self.average = EMA(self.network, 0.998)
        self.teacher = open_teacher(options, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == "cuda")
        self.step, self.used, self.best = 0, 0.0, -math.inf
        options.out.mkdir(parents=True, exist_ok=True)
        if options.resume and (options.out / "state.pt").exists():
            self.load()

    def train(self) -> None:
        """Train until the time is used, scoring and saving each minute."""
        student, teacher = self.network, self.teacher
        if self.options.compile:
            student = torch.compile(self.network)
            teacher = teacher and torch.compile(teacher)
        seconds, started, before = 60 * self.options.minutes, time.perf_counter(), self.used
        next_score = self.used + 60
        while self.used < seconds:
            share = self.used / seconds
            # 1. Patches, and the teacher's answer to them; no gradient reaches the teacher.
            lr, hr = self.patches.draw()
            half = self.device.type == "cuda" and share < 1 - FULL_PRECISION_SHARE
            with torch.autocast(self.device.type, torch.float16, enabled=half):
                target = None
                if teacher:
                    with torch.no_grad():
                        target = teacher(lr).float()
                # 2. The loss: L1 to HR, and L1 to the teacher.
                output = student(lr).float()
            weight = self.options.teacher_share if target is not None else 0.0
            loss = (1 - weight) * F.l1_loss(output, hr)
            if target is not None:
                loss = loss + weight * F.l1_loss(output, target)
            # 3. One step. The scaled loss keeps small float16 gradients from becoming zero; a step with an infinite
            #    gradient is skipped and the scale halved, which is the scaler's own rule.
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            # The clock stands for the step, so that the schedule ends in time on any card.
            rate = rate_at(self.schedule, int(share * CLOCK_STEPS), CLOCK_STEPS)
            for group in self.optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            self.scaler.step(self.optimizer)
            self.scaler.update()
            # 4. The moving average is what is scored and kept.
            self.average.update(self.network, self.step)
            self.step += 1
            # The clock counts finished work: without a synchronization now and then, launches run far ahead of the GPU.
            if self.step % 10 == 0 and self.device.type == "cuda":
                torch.cuda.synchronize()
            self.used = before + time.perf_counter() - started
            if self.used >= next_score or self.used >= seconds:
                self.report(loss.item(), rate)
                next_score = self.used + 60

    def report(self, loss: float, rate: float) -> None:
        """Score the average, log, and write the checkpoint and the best weights."""
        psnr = score(self.average.module, self.held_out, self.device)
        line = {"step": self.step, "seconds": round(self.used, 1), "loss": round(loss, 6), "rate": rate, "psnr_y": psnr}
        print(json.dumps(line), flush=True)
        with (self.options.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        if psnr > self.best:
            self.best = psnr
            training = f"gpu_training.py, {self.step} steps of {self.options.batch} patches"
            save_weights(copy.deepcopy(self.average.module).cpu(), self.options.out, training)
        self.save()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "patches": self.patches.state(),
            "numbers": (self.step, self.used, self.best),
        }
        with atomic_write(self.options.out / "state.pt") as temporary:
            torch.save(state, temporary)

    def load(self) -> None:
        """Read the checkpoint of the run folder."""
        state = torch.load(self.options.out / "state.pt", map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.patches.load(state["patches"])
        self.step, self.used, self.best = state["numbers"]


def save_weights(network: SPAN, folder: Path, training: str) -> None:
    """Write `best.safetensors`, or `best.pth` where the package safetensors is absent."""
    if importlib.util.find_spec("safetensors"):
        save_network(network, folder / "best.safetensors", training)
        return
    with atomic_write(folder / "best.pth") as temporary:
        torch.save(network.state_dict(), temporary)


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    Run(parse(argv)).train()


if __name__ == "__main__":
    main()
