"""`dsclora train`: from the command line to `training.train`.

`dsclora distill`: from the command line to `distillation.distill`.

`dsclora merge`: from the command line to `distillation.merge`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsclora_cli.cli import console, options, recipe_options
from dsclora_cli.cli.options import JsonOption, QuietOption

TRAIN_EXAMPLES = """[bold]Examples[/]

  dsclora train --data photos/ --out run/

  dsclora train --arch span --channels 48 -s 2 --data DIV2K --out span-x2/

  dsclora train --config recipe.toml --data photos/ --steps 50000 --out long/

  dsclora train --out run/ --resume

  torchrun --nproc-per-node 2 -m dsclora_cli train --data photos/ --out run/
"""


@recipe_options.with_recipe("network", "data", "degrade", "loss", "optimiser", "run")
def train(
    *,
    out: recipe_options.Out,
    config: recipe_options.Config = None,
    resume: recipe_options.Resume = False,
    offline: recipe_options.Offline = False,
    given: recipe_options.Given,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a network on your pictures; the best weights on held-out ones of them are kept.

    Stopped by Ctrl-C or SIGTERM it writes a checkpoint, and --resume goes on from there exactly.
    """
    recipe = recipe_options.resolve(given, out, config, resume)
    if quiet:
        console.hush_downloads()
    from dsclora_cli.cli.train_progress import TrainView
    from dsclora_cli.training.train import train as run

    with TrainView(json, quiet) as view:
        result = run(recipe, out, resume, view, offline)
    raise typer.Exit(view.end(result))


DISTILL_EXAMPLES = """[bold]Examples[/]

  dsclora distill --base dscf-x4 --data photos/ --steps 2000 --learning-rate 1e-4 --out mine/

  dsclora upscale photo.jpg --adapter mine/adapter.safetensors

  dsclora distill --method logits --teacher big.pth --data DIV2K --out student/

  dsclora distill --method facd --teacher edsr.pt --student edsr --student-width 16 --student-blocks 4 --data DIV2K
    --out student/

  dsclora distill --out mine/ --resume
"""


_STUDENT = {"arch": "--student", "channels": "--student-width", "blocks": "--student-blocks"}


@recipe_options.with_recipe("distill", "network", "data", "degrade", "loss", "optimiser", "run", also=_STUDENT)
def distill(
    *,
    out: recipe_options.Out,
    config: recipe_options.Config = None,
    resume: recipe_options.Resume = False,
    offline: recipe_options.Offline = False,
    given: recipe_options.Given,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Adapt a network to your pictures, or train one with the help of a teacher.

    Adapters are kept only if they raise the PSNR of held-out pictures; if none does, the exit code is 1.
    """
    recipe = recipe_options.resolve(given, out, config, resume, distill=True)
    if quiet:
        console.hush_downloads()
    from dsclora_cli.cli.train_progress import TrainView
    from dsclora_cli.distillation.distill import distill as run

    with TrainView(json, quiet) as view:
        result = run(recipe, out, resume, view, offline)
    raise typer.Exit(view.end(result))


MERGE_EXAMPLES = """[bold]Examples[/]

  dsclora merge dscf-x4 mine/adapter.safetensors -o mine.safetensors

  dsclora merge dscf-x4 mine/adapter.safetensors --strength 0.5 -o halfway.safetensors

  dsclora upscale photo.jpg --weights mine.safetensors
"""


def merge(
    base: Annotated[str, typer.Argument(help="Weights that the adapter is for, a file or a name.", show_default=False)],
    adapter: Annotated[Path, typer.Argument(help="Adapter, as `dsclora distill` writes it.", show_default=False)],
    output: Annotated[Path, options.option(options.FILES, "File to write.", "-o", "--output", show_default=False)],
    strength: Annotated[
        float, options.option(options.FILES, "Share of the adapter that is merged.", "--strength")
    ] = 1.0,
    force: Annotated[bool, options.option(options.FILES, "Also over another base, if it fits.", "--force")] = False,
    offline: options.OfflineOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Merge an adapter into its base: one file of weights, as fast as the base alone."""
    from dsclora_cli.distillation.merge import merge as run

    merged = run(base, adapter, output, strength, force, offline)
    if json:
        console.show_json(merged)
    elif not quiet:
        console.show(f"{merged.file}: {merged.base} with {adapter} (sha256 {merged.sha256})")
