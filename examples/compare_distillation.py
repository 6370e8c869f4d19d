"""Train a teacher, then the same small student by every method of distillation, and write what came out as a table.

    python examples/compare_distillation.py --data PHOTOS --val HELD-OUT --benchmarks DIR --out RUNS

EDSR with 8 blocks of 32 channels teaches one with 4 of 16, at x4; `--arch rcan` compares small RCANs. Runs that are
finished are taken as they are and broken ones go on, so the same command continues after an interruption. DIR holds
Set5, Set14 and BSD100 as `dsclora eval --data-dir` reads them; without it they come from the Hub.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dsclora_cli.config import EvalOptions, ModelOptions
from dsclora_cli.distillation.distill import distill
from dsclora_cli.evaluation.evaluate import evaluate
from dsclora_cli.recipe import DataOptions, DistillOptions, NetworkOptions, OptimiserOptions, Recipe, RunOptions
from dsclora_cli.training.train import train
from dsclora_cli.training.trainer import Score, TrainCallbacks

SETS = ("Set5", "Set14", "BSD100")
SCALE = 4
SHAPES = {
    "edsr": (NetworkOptions("edsr", SCALE, 32, 8), NetworkOptions("edsr", SCALE, 16, 4)),
    "rcan": (NetworkOptions("rcan", SCALE, 32, 4, groups=3), NetworkOptions("rcan", SCALE, 16, 2, groups=3)),
}
METHODS = {
    "none": DistillOptions("none", rec=1.0),
    **{name: DistillOptions(name, rec=0.5, ts=0.5) for name in ("logits", "fd")},
    "fakd": DistillOptions("fakd", rec=0.5, ts=0.5, positions=512),
    "facd": DistillOptions("facd", rec=0.5, ts=0.5),
    "facd-l2": DistillOptions("facd", rec=0.5, ts=0.5, feature_distance="l2"),
}


@dataclass(frozen=True)
class Row:
    """What the runs of one network came to: `psnr_y` by set, one value for each seed, in dB.

    `hours` are those of one run's steps at its median pace, whatever else the machine did meanwhile.
    """

    name: str
    held_out: list[float]
    psnr_y: dict[str, list[float]]
    hours: float


class Printed(TrainCallbacks):
    """Tells each score on a line."""

    def __init__(self, run: str) -> None:
        self._run = run

    def on_note(self, note: str) -> None:
        """A sentence."""
        print(f"{self._run}: {note}", flush=True)

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """Nothing."""

    def on_score(self, score: Score, best: bool) -> None:
        """A line."""
        print(f"{self._run}: step {score.step}, {score.psnr_y:.3f} dB{' (best)' if best else ''}", flush=True)


def lines(run: Path) -> list[dict[str, Any]]:
    """The log of a run, empty before its first score."""
    log = run / "log.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def trained(recipe: Recipe, run: Path) -> Path:
    """The run folder, after the run is made or gone on with."""
    if not lines(run) or lines(run)[-1]["step"] < recipe.run.steps:
        make = distill if recipe.distill else train
        make(recipe, run, run.exists(), Printed(run.name), offline=True)
    return run


def hours(run: Path, batch: int) -> float:
    """Of all steps of a run."""
    log = lines(run)
    pace = statistics.median(line["images_per_second"] for line in log)
    return float(log[-1]["step"] * batch / pace / 3600)


def measured(name: str, runs: list[Path], data_dir: Path | None, batch: int) -> Row:
    """Scores of the best weights of each run."""
    models = tuple(ModelOptions(weights=run / "best.safetensors") for run in runs)
    report = evaluate(EvalOptions(datasets=SETS, data_dir=data_dir, models=models, scale=SCALE))
    psnr_y = {each.name: [row.mean["psnr_y"] for row in each.rows[-len(runs) :]] for each in report.sets}
    best = [max(line["psnr_y"] for line in lines(run)) for run in runs]
    return Row(name, best, psnr_y, statistics.mean(hours(run, batch) for run in runs))


def mean_and_spread(values: list[float]) -> str:
    """Mean, and of several values their standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table(rows: list[Row]) -> str:
    """Markdown."""
    head = ["", "held-out", *SETS, "hours"]
    body = [
        [row.name, mean_and_spread(row.held_out), *map(mean_and_spread, row.psnr_y.values()), f"{row.hours:.2f}"]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)) + "\n"


def draw(runs: dict[str, list[Path]], target: Path) -> None:
    """Held-out PSNR-Y over the steps, the mean over seeds, as a PNG."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, folders in runs.items():
        logs = [lines(run) for run in folders]
        scores = [statistics.mean(line["psnr_y"] for line in step) for step in zip(*logs, strict=True)]
        axes.plot([line["step"] for line in logs[0]], scores, label=name)
    axes.set(xlabel="step", ylabel="held-out PSNR-Y in dB")
    axes.legend()
    figure.savefig(target, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    """Train, compare, write."""
    args = parsed(arguments)
    teacher_shape, student_shape = SHAPES[args.arch]
    plain = Recipe(
        data=DataOptions(tuple(args.data), val=args.val, batch=args.batch, patch=args.patch),
        optimiser=OptimiserOptions(learning_rate=args.learning_rate, ema=0.998),
        run=RunOptions(validate=args.validate, threads=args.threads, device=args.device, compile=args.compile),
    )
    longer = replace(plain.run, steps=args.teacher_steps)
    teacher = trained(replace(plain, network=teacher_shape, run=longer), args.out / f"{args.arch}-teacher")
    runs: dict[str, list[Path]] = {}
    for name, method in METHODS.items():
        if name not in args.methods:
            continue
        options = replace(method, teacher=None if name == "none" else str(teacher / "best.safetensors"))
        for seed in args.seeds:
            run = replace(plain.run, steps=args.steps, seed=seed)
            recipe = replace(plain, network=student_shape, run=run, distill=options)
            runs.setdefault(name, []).append(trained(recipe, args.out / f"{args.arch}-{name}-{seed}"))
        if name == "none":
            check_advantage(teacher, runs[name], args.advantage)
    every = {"teacher": [teacher], **runs}
    rows = [measured(name, folders, args.benchmarks, args.batch) for name, folders in every.items()]
    args.page.write_text(table(rows), encoding="utf-8")
    draw(runs, args.page.with_suffix(".png"))
    print(table(rows))


def check_advantage(teacher: Path, scratch: list[Path], least: float) -> None:
    """A teacher that is hardly better has nothing to teach."""
    best = statistics.mean(max(line["psnr_y"] for line in lines(run)) for run in scratch)
    advantage = max(line["psnr_y"] for line in lines(teacher)) - best
    print(f"the teacher is {advantage:.3f} dB above students without one", flush=True)
    if advantage < least:
        raise SystemExit(f"that is less than {least}: raise --teacher-steps, or make the teacher larger")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--benchmarks", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="where the run folders go")
    parser.add_argument("--page", type=Path, default=Path("comparison.md"), help="the table; the plot lies beside it")
    parser.add_argument("--arch", choices=SHAPES, default="edsr")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--teacher-steps", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--advantage", type=float, default=0.15, help="dB that the teacher must be ahead")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--validate", type=int, default=250)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", default="auto")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
