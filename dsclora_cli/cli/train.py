"""`dsclora train`: from the command line to `tasks.train`."""

from __future__ import annotations

import typer

from dsclora_cli.cli import recipes, ui
from dsclora_cli.cli.options import Json, Quiet

EXAMPLES = """[bold]Examples[/]

  dsclora train --data photos/ --out run/

  dsclora train --arch span --channels 48 -s 2 --data DIV2K --out span-x2/

  dsclora train --config recipe.toml --data photos/ --steps 50000 --out long/

  dsclora train --out run/ --resume

  torchrun --nproc-per-node 2 -m dsclora_cli train --data photos/ --out run/
"""


@recipes.with_recipe("network", "data", "degrade", "loss", "optimiser", "run")
def train(
    *,
    out: recipes.Out,
    config: recipes.Config = None,
    resume: recipes.Resume = False,
    offline: recipes.Offline = False,
    given: recipes.Given,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network on your pictures; the best weights on held-out ones of them are kept.

    Stopped by Ctrl-C or SIGTERM it writes a checkpoint, and --resume goes on from there exactly.
    """
    recipe = recipes.resolve(given, out, config, resume)
    if quiet:
        ui.hush_downloads()
    from dsclora_cli.cli.trainview import TrainView
    from dsclora_cli.tasks.train import train as run

    with TrainView(json, quiet) as view:
        result = run(recipe, out, resume, view, offline)
    raise typer.Exit(view.end(result))
