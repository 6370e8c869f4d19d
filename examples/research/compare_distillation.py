"""Train a teacher, train the same small student with every method of distillation, and write the scores as a table.

    python examples/research/compare_distillation.py --data PHOTOS --val HELD-OUT --benchmarks DIR --out RUNS

An EDSR of 8 blocks with 32 channels teaches an EDSR of 4 blocks with 16 channels; `--arch rcan` compares small RCANs.
`--methods fd facd-infonce:0.1` also changes the weight of a method's loss. The methods keep their default otherwise.
Finished runs are used again and stopped runs resume, so the same command continues after an interruption; a command
with other options needs another `--out`. `--finished` trains nothing and writes table and plot of the runs that are
finished. All methods of a seed are trained before the next seed. Short trials look at the held-out pictures alone
(`--held-out-only`). DIR holds Set5, Set14 and BSD100 as `dsclora eval --data-dir` expects them; the default is to
download the sets.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dsclora_cli.config import EngineOptions, EvalOptions, ModelOptions
from dsclora_cli.distillation.distill import distill
from dsclora_cli.evaluation.evaluate import evaluate
from dsclora_cli.inference.device import resolve_device
from dsclora_cli.recipe import DataOptions, DistillOptions, NetworkOptions, OptimizerOptions, Recipe, RunOptions
from dsclora_cli.recipe_toml import differing_options, read_recipe, resolve_defaults
from dsclora_cli.training.run_dir import RunDir
from dsclora_cli.training.train import train
from dsclora_cli.training.trainer import Score, TrainCallbacks

SETS = ("Set5", "Set14", "BSD100")
SHAPES = {
    "edsr": (NetworkOptions("edsr", 4, 32, 8), NetworkOptions("edsr", 4, 16, 4)),
    "rcan": (NetworkOptions("rcan", 4, 32, 4, groups=3), NetworkOptions("rcan", 4, 16, 2, groups=3)),
}
METHODS = {
    "none": DistillOptions("none", rec=1.0),
    **{name: DistillOptions(name, rec=0.5, ts=0.5) for name in ("logits", "fd")},
    "fd-l1": DistillOptions("fd", rec=0.5, ts=0.5, feature_distance="l1"),
    "fakd": DistillOptions("fakd", rec=0.5, ts=0.5, positions=512),
    "facd-l1": DistillOptions("facd", rec=0.5, ts=0.5, feature_distance="l1"),
    "facd-l2": DistillOptions("facd", rec=0.5, ts=0.5, feature_distance="l2"),
    "facd-infonce": DistillOptions("facd", rec=0.5, ts=0.5, feature_distance="l2", contrast="infonce"),
    "augkd": DistillOptions("augkd", rec=0.5, ts=0.5),
    "facd-own-negatives": DistillOptions("facd", rec=0.5, ts=0.5, feature_distance="l2", negatives="student"),
}
USUAL = ("none", "logits", "fd", "fakd", "facd-l1", "facd-l2")
STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantile of Student's t by degrees of freedom."""


@dataclass(frozen=True)
class Row:
    """Scores of the runs of one network; every mapping to values by seed has the same seeds."""

    name: str
    held_out: dict[int, float]
    """Best PSNR-Y on the held-out pictures by seed, in dB."""
    sets: dict[str, dict[int, float]]
    """PSNR-Y by benchmark set and seed, in dB."""
    images: dict[int, float]
    """Mean PSNR-Y over the images of all sets together, by seed, in dB."""
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


def main(arguments: list[str] | None = None) -> None:
    """Train all networks, evaluate them, and write table and plot."""
    args = parsed(arguments)
    teacher, runs = train_all(args)
    runs = {name: found for name in args.methods if (found := runs.get(name))}
    if not runs:
        raise SystemExit(f"{args.out} holds no finished run of --scale {args.scale} and --arch {args.arch}")
    every = {"teacher": {0: teacher}, **runs}
    rows = [measured(name, folders, args) for name, folders in every.items()]
    text = table(rows, args.baseline)
    args.page.write_text(text, encoding="utf-8")
    draw(runs, rows, args.baseline, args.page.with_suffix(".png"))
    print(text)


def train_all(args: argparse.Namespace) -> tuple[Path, dict[str, dict[int, Path]]]:
    """Train the teacher and every student; return the teacher's folder, and the folders by method and seed."""
    teacher_shape, student_shape = (replace(shape, scale=args.scale) for shape in SHAPES[args.arch])
    plain = Recipe(
        data=DataOptions(tuple(args.data), val=args.val, batch=args.batch, patch=args.patch),
        optimiser=OptimizerOptions(learning_rate=args.learning_rate, ema=0.998),
        run=RunOptions(
            validate=args.validate, threads=args.threads, device=args.device, compile=args.compile, amp=args.amp
        ),
    )
    kind = f"x{args.scale}-{args.arch}"
    # The teacher needs more steps than the students, because large networks learn more slowly.
    longer = replace(plain.run, steps=args.teacher_steps)
    teacher = args.teacher or args.out / f"{kind}-teacher"
    if args.teacher is None:
        trained(replace(plain, network=teacher_shape, run=longer), teacher, args.finished)
    runs: dict[str, dict[int, Path]] = {}
    # Seed by seed, so that a comparison cut short still has every method of some seeds.
    for seed in args.seeds:
        for name in args.methods:
            options = replace(options_of(name), teacher=None if name == "none" else str(teacher / "best.safetensors"))
            run = replace(plain.run, steps=args.steps, seed=seed)
            folder = args.out / f"{kind}-{name.replace(':', '-w')}-{seed}"
            recipe = replace(plain, network=student_shape, run=run, distill=options)
            if trained(recipe, folder, args.finished):
                runs.setdefault(name, {})[seed] = folder
            if name == "none" and not args.finished:  # the first method: a teacher without an advantage teaches nothing
                check_advantage(teacher, folder, args.advantage)
    return teacher, runs


def options_of(method: str) -> DistillOptions:
    """Return the options of a method in `METHODS`; after a colon the name may have the weight of the method's loss."""
    name, _, weight = method.partition(":")
    return replace(METHODS[name], feature_weight=float(weight)) if weight else METHODS[name]


def method_name(text: str) -> str:
    """Return the name of a method as `options_of` takes it. Raises ArgumentTypeError for an unknown one."""
    try:
        options_of(text)
    except (KeyError, ValueError) as error:
        names = ", ".join(METHODS)
        raise argparse.ArgumentTypeError(f"{text!r} is none of {names}, and none of them with :WEIGHT") from error
    return text


def trained(recipe: Recipe, run: Path, only_look: bool) -> bool:
    """Train, or resume a stopped run, unless the run is finished or `only_look`; return whether the run is finished."""
    finished = is_finished(recipe, run)
    if finished or only_look:
        return finished
    make = distill if recipe.distill else train
    make(recipe, run, run.exists(), Printed(run.name), offline=True)
    return True


def is_finished(recipe: Recipe, run: Path) -> bool:
    """Tell whether a folder holds the whole run of a recipe. Raises SystemExit for the run of another recipe."""
    file = run / "recipe.toml"
    if not file.exists():
        return False
    stored = read_recipe(file)
    # Earlier versions of this script left the choice to `dsclora train`, which trains in float32 on a CPU.
    if stored.run.amp == "auto" and resolve_device(stored.run.device).type == "cpu":
        stored = replace(stored, run=replace(stored.run, amp="off"))
    if others := differing_options(stored, resolve_defaults(recipe)):
        raise SystemExit(f"{run} is a run with other {', '.join(others)}: give another --out")
    return bool(lines(run)) and lines(run)[-1]["step"] >= recipe.run.steps


def lines(run: Path) -> list[dict[str, Any]]:
    """Return the log of a run, empty before the first score."""
    return RunDir(run).lines()


def check_advantage(teacher: Path, scratch: Path, least: float) -> None:
    """Exit if the teacher is hardly better than a student without a teacher, so that methods cannot differ."""
    best, own = (max(line["psnr_y"] for line in lines(run)) for run in (teacher, scratch))
    print(f"the teacher is {best - own:.3f} dB above a student without one", flush=True)
    if best - own < least:
        raise SystemExit(f"the advantage is below {least} dB: raise --teacher-steps, or make the teacher larger")


def measured(name: str, runs: dict[int, Path], args: argparse.Namespace) -> Row:
    """Evaluate the best weights of each run."""
    models = tuple(ModelOptions(weights=run / "best.safetensors") for run in runs.values())
    engine = EngineOptions(dtype="float32", engine="torch", device=args.device)
    best = {seed: max(line["psnr_y"] for line in lines(run)) for seed, run in runs.items()}
    time = statistics.mean(hours(run, args.batch) for run in runs.values())
    if args.held_out_only:
        return Row(name, best, {}, {}, time)
    # All seeds in a single evaluation; the rows of the models follow the row of bicubic.
    options = EvalOptions(datasets=SETS, data_dir=args.benchmarks, models=models, scale=args.scale, engine=engine)
    scores = {each.name: dict(zip(runs, each.rows[-len(runs) :], strict=True)) for each in evaluate(options).sets}
    sets = {each: {seed: row.mean["psnr_y"] for seed, row in rows.items()} for each, rows in scores.items()}
    images = {
        seed: statistics.mean(image["psnr_y"] for rows in scores.values() for image in rows[seed].images.values())
        for seed in runs
    }
    return Row(name, best, sets, images, time)


def hours(run: Path, batch: int) -> float:
    """Return the hours that all steps of a run take at the median pace."""
    log = lines(run)
    pace = statistics.median(line["images_per_second"] for line in log)
    return float(log[-1]["step"] * batch / pace / 3600)


def table(rows: list[Row], other: str) -> str:
    """Return the rows as a Markdown table, with differences to the method `other` over the seeds of both."""
    baseline = next((row for row in rows if row.name == other), None)
    head = ["", "held-out", *rows[0].sets, "hours"]
    if baseline:
        head += [
            f"over {other}, held-out",
            *([f"over {other}, all images of the sets"] if baseline.images else []),
        ]
    body = []
    for row in rows:
        values = [row.held_out, *row.sets.values()]
        cells = [row.name, *(mean_and_spread(list(each.values())) for each in values), f"{row.hours:.2f}"]
        if baseline:
            pairs = [(row.held_out, baseline.held_out), (row.images, baseline.images)][: 2 if baseline.images else 1]
            cells += ["" if row.name in {"teacher", other} else difference_text(*pair) for pair in pairs]
        body.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)) + "\n"


def mean_and_spread(values: list[float]) -> str:
    """Return the mean and, for several values, the standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def difference(own: dict[int, float], other: dict[int, float]) -> tuple[float, float] | None:
    """Return mean and half width of the 95 % interval of a paired difference over the seeds of both.

    The interval is Student's t. The half width is infinite for a single seed; None without a common seed.
    """
    gaps = [own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())]
    if not gaps:
        return None
    if len(gaps) == 1:
        return gaps[0], math.inf
    return statistics.mean(gaps), STUDENT_T[min(len(gaps) - 1, 9)] * statistics.stdev(gaps) / math.sqrt(len(gaps))


def difference_text(own: dict[int, float], other: dict[int, float]) -> str:
    """Return a difference with its interval, in bold type where the interval excludes zero."""
    found = difference(own, other)
    if found is None:
        return ""
    mean, half = found
    if math.isinf(half):
        return f"{mean:+.3f} (one seed)"
    text = f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"
    return f"**{text}**" if abs(mean) > half else text


def draw(runs: dict[str, dict[int, Path]], rows: list[Row], other: str, target: Path) -> None:
    """Write a PNG: held-out PSNR-Y over the steps, the mean over the seeds, and the differences to `other`."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    curves, gaps = figure.subplots(1, 2, width_ratios=[3, 2])
    colors: dict[str, Any] = {}
    for name, folders in runs.items():
        logs = [lines(run) for run in folders.values()]
        scores = [statistics.mean(line["psnr_y"] for line in step) for step in zip(*logs, strict=True)]
        (line,) = curves.plot([line["step"] for line in logs[0]], scores, marker=".", label=name)
        colors[name] = line.get_color()
    curves.set(xlabel="step", ylabel="held-out PSNR-Y in dB")
    curves.legend()
    by_name = {row.name: row for row in rows}
    baseline = by_name.get(other)
    names = [name for name in runs if name != other] if baseline else []
    found = [(name, difference(by_name[name].held_out, baseline.held_out)) for name in names] if baseline else []
    known = [(name, each) for name, each in found if each is not None]
    for place, (name, (mean, half)) in enumerate(known):
        gaps.errorbar(mean, place, xerr=0 if math.isinf(half) else half, fmt="o", capsize=4, color=colors[name])
    gaps.locator_params("x", nbins=5)
    gaps.axvline(0, color="gray", linewidth=1)
    gaps.set_yticks(range(len(known)), [name for name, _ in known])
    gaps.set(xlabel=f"held-out PSNR-Y over {other} in dB, 95 % interval over seeds")
    figure.savefig(target, dpi=120)


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
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), default=4)
    parser.add_argument("--methods", type=method_name, nargs="+", default=USUAL, metavar="METHOD[:WEIGHT]")
    parser.add_argument("--teacher", type=Path, help="run folder of a teacher, in place of training one")
    parser.add_argument("--teacher-steps", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--finished", action="store_true", help="train nothing; use the runs that are finished")
    parser.add_argument("--baseline", type=method_name, default="fd", help="method that the differences refer to")
    parser.add_argument("--held-out-only", action="store_true", help="do not look at the benchmark sets")
    parser.add_argument("--advantage", type=float, default=0.15, help="least advantage of the teacher in dB")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=48)
    parser.add_argument("--validate", type=int, default=250)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", default="auto")
    parser.add_argument("--amp", choices=("off", "bfloat16"), default="off", help="as in `dsclora train`")
    args = parser.parse_args(arguments)
    # "none" first, whatever the order on the command line: it shows early whether the teacher has an advantage.
    args.methods = sorted(args.methods, key=lambda method: list(METHODS).index(method.partition(":")[0]))
    return args


if __name__ == "__main__":
    main()
