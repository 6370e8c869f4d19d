"""Train adapters with every choice of feature maps, teacher and ranks, and write their gains over the base as a table.

    python examples/research/compare_adapters.py --base spantiny-x4 --data PHOTOS --val HELD-OUT --benchmarks DIR
    --out RUNS --teachers base team00_SPAN.pth --pictures ANSWERS --ranks paper 2 4 8 12 full

The recipe is examples/recipes/dsclora-paper.toml unless --config names another. With the first of the ranks, every
teacher is combined with every choice of maps; the other ranks are trained with the first teacher and the first maps.
ANSWERS is a folder of a strong teacher's pictures, which serve the loss to the teacher's output, while the affinities
are the affinities of the base. --second-stage N adds a row for each adapter, continued for N steps with HR patches of
256. The last columns of the table are the gains over the row --over, paired by seed. Finished runs are used again and
stopped runs resume. A run that does not beat the base counts with its last adapter, so a loss shows as a loss.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from compare_distillation import SETS, Printed, difference_text, is_finished

from dsclora_cli.config import EngineOptions, EvalOptions
from dsclora_cli.distillation.distill import distill
from dsclora_cli.evaluation.evaluate import evaluate
from dsclora_cli.recipe import Recipe
from dsclora_cli.recipe_toml import read_recipe, with_values
from dsclora_cli.weights.resolve import named_options

RECIPE = Path(__file__).parents[1] / "recipes" / "dsclora-paper.toml"
TAPS = {
    "figure": ("block_1", "block_2", "block_3", "conv_2"),
    "commit": ("block_1.*", "block_2.*", "block_3.*"),
    "none": (),
}
SECOND_PATCH = 64
"""Patch of the second stage in LR pixels: 256 pixels of HR at x4."""


def main(arguments: list[str] | None = None) -> None:
    """Train all adapters, evaluate them, and write the table."""
    args = parsed(arguments)
    runs: dict[str, dict[int, Path]] = {}
    # Seed by seed, so that a comparison cut short still has every choice for some seeds.
    for seed in args.seeds:
        for name, values in choices(args).items():
            recipe = with_values(base_recipe(args), {**values, "seed": seed})
            run = trained(recipe, args.out / f"{name.replace(' ', '-')}-{seed}")
            runs.setdefault(name, {})[seed] = run
            if args.second_stage:
                further = {"init_adapter": best_adapter(run), "patch": SECOND_PATCH, "steps": args.second_stage}
                again = trained(with_values(recipe, further), Path(f"{run}-second"))
                runs.setdefault(f"{name} second", {})[seed] = again
    text = table(runs, args)
    args.page.write_text(text, encoding="utf-8")
    print(text)


def choices(args: argparse.Namespace) -> dict[str, Mapping[str, object]]:
    """Return the options of each run by the name of its row."""
    named = [(Path(each).stem, {} if each == "base" else {"teacher": each}) for each in args.teachers]
    if args.pictures:
        named.append(("pictures", {"teacher_images": str(args.pictures)}))
    teachers: dict[str, dict[str, object]] = dict(named)
    if len(teachers) < len(named):
        raise SystemExit("two teachers have one name, and rows are named after teachers: rename a file")
    found: dict[str, Mapping[str, object]] = {}
    for teacher, options in teachers.items():
        for taps in args.taps:
            loss = {"taps": TAPS[taps]} if TAPS[taps] else {"taps": (), "ad": 0.0}
            found[f"{teacher} {taps} {args.ranks[0]}"] = {**options, **loss, "adapters": rules(args.ranks[0])}
    first = next(iter(found))
    for ranks in args.ranks[1:]:
        found[f"{first.rpartition(' ')[0]} {ranks}"] = {**found[first], "adapters": rules(ranks)}
    return found


def rules(ranks: str) -> str:
    """Return the value of --adapters: a preset by its name, or one rank for every convolution that a preset adapts."""
    if ranks != "full" and not ranks.isdigit():
        return ranks
    return f"block_*:{ranks} conv_2.*:{ranks} upsampler.0:{ranks}"


def base_recipe(args: argparse.Namespace) -> Recipe:
    """Return the recipe that all runs share."""
    given = {"base": args.base, "data": tuple(args.data), "val": args.val, "positions": args.positions}
    recipe = with_values(read_recipe(args.config), {name: each for name, each in given.items() if each is not None})
    run = replace(recipe.run, validate=args.validate, threads=args.threads, device=args.device, compile=args.compile)
    return replace(recipe, run=replace(run, steps=args.steps or run.steps, amp=args.amp))


def trained(recipe: Recipe, run: Path) -> Path:
    """Train, or resume a stopped run, unless the run is finished; return the run folder."""
    if not is_finished(recipe, run):
        distill(recipe, run, run.exists(), Printed(run.name), offline=True)
    return run


def best_adapter(run: Path) -> Path:
    """Return the adapter that beat the base, or the last adapter where none did."""
    kept = run / "adapter.safetensors"
    return kept if kept.exists() else run / "last.safetensors"


def table(runs: dict[str, dict[int, Path]], args: argparse.Namespace) -> str:
    """Return a Markdown table of gains in dB, over the base and over the row --over: means over the seeds.

    The intervals are Student's, of 95 %. The columns over --over are paired by seed.
    """
    folders = {(name, seed): run for name, seeds in runs.items() for seed, run in seeds.items()}
    held_out = gains(folders, EvalOptions(hr=args.val), args)
    columns, head = [*held_out.values()], ["gain in dB", "held-out"]
    if not args.held_out_only:
        sets = gains(folders, EvalOptions(datasets=SETS, data_dir=args.benchmarks), args)
        together = {run: [gain for each in sets.values() for gain in each[run]] for run in folders}
        columns, head = [*columns, *sets.values(), together], [*head, *SETS, "all images of the sets"]
    means = {
        name: [{seed: statistics.mean(column[name, seed]) for seed in seeds} for column in columns]
        for name, seeds in runs.items()
    }
    compared = {0, len(columns) - 1} if args.over in runs else set()
    head += [f"over {args.over}, {head[1 + column]}" for column in sorted(compared)]
    rows = [head, ["---"] * len(head)]
    for name, own in means.items():
        other = means[args.over] if compared and name != args.over else None
        paired = [difference_text(own[column], other[column]) if other else "" for column in sorted(compared)]
        rows.append([name, *(difference_text(each, dict.fromkeys(each, 0.0)) for each in own), *paired])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def gains(
    folders: dict[tuple[str, int], Path], options: EvalOptions, args: argparse.Namespace
) -> dict[str, dict[tuple[str, int], list[float]]]:
    """Return the gain in PSNR-Y over the base of every image, in dB, by set and run."""
    engine = EngineOptions(dtype="float32", engine="torch", device=args.device)
    adapters = (named_options(args.base, offline=True, adapter=best_adapter(run)) for run in folders.values())
    # All runs in a single evaluation, which makes each LR once.
    models = (named_options(args.base, offline=True), *adapters)
    report = evaluate(replace(options, models=models, scale=base_recipe(args).network.scale, engine=engine))
    found = {}
    for each in report.sets:
        # The rows of the models follow the row of bicubic: the base, then the runs.
        base, *own = each.rows[-len(models) :]
        pairs = zip(folders, own, strict=True)
        found[each.name] = {
            run: [scores["psnr_y"] - base.images[image]["psnr_y"] for image, scores in row.images.items()]
            for run, row in pairs
        }
    return found


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="file or name of the weights to adapt")
    parser.add_argument("--data", action="append", required=True)
    parser.add_argument("--val", type=Path, required=True)
    parser.add_argument("--benchmarks", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder for the run folders")
    parser.add_argument("--page", type=Path, default=Path("adapters.md"), help="Markdown file of the table")
    parser.add_argument("--config", type=Path, default=RECIPE)
    parser.add_argument("--teachers", nargs="+", default=["base"], help="weight files; base is the base itself")
    parser.add_argument("--pictures", type=Path, help="folder of a teacher's pictures: one more teacher")
    parser.add_argument("--taps", choices=TAPS, nargs="+", default=list(TAPS))
    parser.add_argument("--ranks", nargs="+", default=["paper"], help="presets, numbers or full")
    parser.add_argument("--over", default="base none paper", help="row of the table that the last columns compare with")
    parser.add_argument("--positions", type=int, help="positions for affinities; default: as in the recipe")
    parser.add_argument("--steps", type=int, help="steps of a run; default: as in the recipe")
    parser.add_argument("--second-stage", type=int, default=0, help="steps of a second stage; 0 for none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--held-out-only", action="store_true", help="do not look at the benchmark sets")
    parser.add_argument("--validate", type=int, default=250)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", default="auto")
    parser.add_argument("--amp", choices=("off", "bfloat16"), default="off", help="as in `dsclora train`")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
