"""`dsclora distill`: from the command line to `tasks.distill`."""

from __future__ import annotations

import typer

from dsclora_cli.cli import recipes, ui
from dsclora_cli.cli.options import Json, Quiet

EXAMPLES = """[bold]Examples[/]

  dsclora distill --base dscf-x4 --data photos/ --steps 2000 --learning-rate 1e-4 --out mine/

  dsclora upscale photo.jpg --adapter mine/adapter.safetensors

  dsclora distill --method logits --teacher big.pth --data DIV2K --out student/

  dsclora distill --method facd --teacher edsr.pt --student edsr --student-width 16 --student-blocks 4 --data DIV2K
    --out student/

  dsclora distill --out mine/ --resume
"""


_STUDENT = {"arch": "--student", "channels": "--student-width", "blocks": "--student-blocks"}


@recipes.with_recipe("distill", "network", "data", "degrade", "loss", "optimiser", "run", also=_STUDENT)
def distill(
    *,
    out: recipes.Out,
    config: recipes.Config = None,
    resume: recipes.Resume = False,
    offline: recipes.Offline = False,
    given: recipes.Given,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Adapt a network to your pictures, or train one with the help of a teacher.

    Adapters are kept only if they raise the PSNR of held-out pictures; if none does, the exit code is 1.
    """
    recipe = recipes.resolve(given, out, config, resume, distill=True)
    if quiet:
        ui.hush_downloads()
    from dsclora_cli.cli.trainview import TrainView
    from dsclora_cli.tasks.distill import distill as run

    with TrainView(json, quiet) as view:
        result = run(recipe, out, resume, view, offline)
    raise typer.Exit(view.end(result))
