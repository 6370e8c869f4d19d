"""Train a teacher, train the same small student with every method of distillation, and write the scores as a table.

    python examples/research/compare_distillation.py --data PHOTOS --val HELD-OUT --benchmarks DIR --out RUNS

At x4, an EDSR of 8 blocks with 32 channels teaches an EDSR of 4 blocks with 16 channels; `--arch rcan` compares small
RCANs. Finished runs are used again and stopped runs resume, so the same command continues after an interruption.
DIR holds Set5, Set14 and BSD100 as `dsclora eval --data-dir` expects them; the default is to download the sets.
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
from dsclora_cli.recipe import DataOptions, DistillOptions, NetworkOptions, OptimizerOptions, Recipe, RunOptions
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
    "facd-l1": DistillOptions("facd", rec=0.5, ts=0.5, feature_distance="l1"),
    "facd-l2": DistillOptions("facd", rec=0.5, ts=0.5, feature_distance="l2"),
}


@dataclass(frozen=True)
class Row:
    """Scores of the runs of one network, with a value for each seed."""

    name: str
    held_out: list[float]
    """Best PSNR-Y on the held-out pictures, in dB."""
    psnr_y: dict[str, list[float]]
    """PSNR-Y by benchmark set, in dB."""
    hours: float
    """Time of all steps of a run at the median pace, so that other load on the machine hardly counts."""


class Printed(TrainCallbacks):
    """Prints notes and scores, a line for each."""

    def __init__(self, run: str) -> None:
        self._run = run

    def on_note(self, note: str) -> None:
        """Print a sentence."""
        print(f"{self._run}: {note}", flush=True)

    def on_step(self, step: int, steps: int, loss: float) -> None:
        """Print nothing."""

    def on_score(self, score: Score, best: bool) -> None:
        """Print a score."""
        print(f"{self._run}: step {score.step}, {score.psnr_y:.3f} dB{' (best)' if best else ''}", flush=True)


def lines(run: Path) -> list[dict[str, Any]]:
    """Return the log of a run, empty before the first score."""
    log = run / "log.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def trained(recipe: Recipe, run: Path) -> Path:
    """Train, or resume a stopped run, unless the run is finished; return the run folder."""
    if not lines(run) or lines(run)[-1]["step"] < recipe.run.steps:
        make = distill if recipe.distill else train
        make(recipe, run, run.exists(), Printed(run.name), offline=True)
    return run


def hours(run: Path, batch: int) -> float:
    """Return the hours that all steps of a run take at the median pace."""
    log = lines(run)
    pace = statistics.median(line["images_per_second"] for line in log)
    return float(log[-1]["step"] * batch / pace / 3600)


def measured(name: str, runs: list[Path], data_dir: Path | None, batch: int) -> Row:
    """Evaluate the best weights of each run."""
    models = tuple(ModelOptions(weights=run / "best.safetensors") for run in runs)
    # All seeds in a single evaluation; the rows of the models follow the row of bicubic.
    report = evaluate(EvalOptions(datasets=SETS, data_dir=data_dir, models=models, scale=SCALE))
    psnr_y = {each.name: [row.mean["psnr_y"] for row in each.rows[-len(runs) :]] for each in report.sets}
    best = [max(line["psnr_y"] for line in lines(run)) for run in runs]
    return Row(name, best, psnr_y, statistics.mean(hours(run, batch) for run in runs))


def mean_and_spread(values: list[float]) -> str:
    """Return the mean and, for several values, the standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["", "held-out", *SETS, "hours"]
    body = [
        [row.name, mean_and_spread(row.held_out), *map(mean_and_spread, row.psnr_y.values()), f"{row.hours:.2f}"]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)) + "\n"


def draw(runs: dict[str, list[Path]], target: Path) -> None:
    """Write a PNG of the held-out PSNR-Y over the steps, the mean over the seeds."""
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
    """Train all networks, evaluate them, and write table and plot."""
    args = parsed(arguments)
    teacher_shape, student_shape = SHAPES[args.arch]
    plain = Recipe(
        data=DataOptions(tuple(args.data), val=args.val, batch=args.batch, patch=args.patch),
        optimiser=OptimizerOptions(learning_rate=args.learning_rate, ema=0.998),
        run=RunOptions(validate=args.validate, threads=args.threads, device=args.device, compile=args.compile),
    )
    # The teacher needs more steps than the students, because large networks learn more slowly.
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
        if name == "none":  # the first method: nothing else is trained for a teacher without an advantage
            check_advantage(teacher, runs[name], args.advantage)
    every = {"teacher": [teacher], **runs}
    rows = [measured(name, folders, args.benchmarks, args.batch) for name, folders in every.items()]
    args.page.write_text(table(rows), encoding="utf-8")
    draw(runs, args.page.with_suffix(".png"))
    print(table(rows))


def check_advantage(teacher: Path, scratch: list[Path], least: float) -> None:
    """Exit if the teacher is hardly better than students without a teacher, so that methods cannot differ."""
    best = statistics.mean(max(line["psnr_y"] for line in lines(run)) for run in scratch)
    advantage = max(line["psnr_y"] for line in lines(teacher)) - best
    print(f"the teacher is {advantage:.3f} dB above students without one", flush=True)
    if advantage < least:
        raise SystemExit(f"the advantage is below {least} dB: raise --teacher-steps, or make the teacher larger")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--benchmarks", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the run folders")
    parser.add_argument(
        "--page",
        type=Path,
        default=Path("comparison.md"),
        help="Markdown file; the plot is a PNG next to it",
    )
    parser.add_argument("--arch", choices=SHAPES, default="edsr")
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS))
    parser.add_argument("--teacher-steps", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--advantage", type=float, default=0.15, help="least advantage of the teacher in dB")
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
