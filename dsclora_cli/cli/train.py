"""`dsclora train`, `dsclora distill` and `dsclora merge`.

`recipe_options` makes a recipe of the options; `training.train`, `distillation.distill` and `distillation.merge` do the
work; `views.train_progress` shows the progress of a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dsclora_cli.cli import console, recipe_options
from dsclora_cli.cli.completion import complete_model
from dsclora_cli.cli.options import FILES, JsonOption, OfflineOption, QuietOption, option, parse_file

if TYPE_CHECKING:
    from dsclora_cli.recipe import Recipe

TRAIN_EXAMPLES = """[bold]Examples[/]

  dsclora train --data photos/ --out run/

  dsclora train --arch span --channels 48 -s 2 --data DIV2K --out span-x2/

  dsclora train --config recipe.toml --data photos/ --steps 50000 --out long/

  dsclora train --out run/ --resume

  dsclora train --data photos/ --teacher-images answers/ --rec 0.2 --ts 0.8 --out taught/

  torchrun --nproc-per-node 2 -m dsclora_cli train --data photos/ --out run/

More options, for experts, are in docs/train.md.
"""


@recipe_options.with_recipe_options(
    "network", "data", "degrade", "loss", "optimiser", "run", more=recipe_options.TEACHER_PICTURES
)
def train(
    *,
    out: recipe_options.OutOption,
    config: recipe_options.ConfigOption = None,
    resume: recipe_options.ResumeOption = False,
    offline: recipe_options.RunOfflineOption = False,
    given: recipe_options.Given,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a network on your pictures, and keep the weights with the best score on held-out pictures.

    Ctrl-C, SIGTERM or a closed terminal writes a checkpoint before the command ends; --resume continues exactly from
    the checkpoint.
    """
    # Wrong options end the command here, before anything slow is imported or downloaded.
    recipe = recipe_options.resolve_recipe(given, out, config, resume)
    _run(recipe, out, resume, offline, json, quiet)


DISTILL_EXAMPLES = """[bold]Examples[/]

  dsclora distill --base dscf-x4 --data photos/ --steps 2000 --learning-rate 1e-4 --out mine/

  dsclora upscale photo.jpg --adapter mine/adapter.safetensors

  dsclora distill --method logits --teacher big.pth --data DIV2K --out student/

  dsclora distill --method logits --teacher-images answers/ --data photos/ --out student/

  dsclora distill --method facd --teacher edsr.pt --student edsr --student-width 16 --student-blocks 4 --data DIV2K
    --out student/

  dsclora distill --out mine/ --resume

More options, for experts (all parts of FACD, for example), are in docs/train.md.
"""

_STUDENT_FLAGS = {"arch": "--student", "channels": "--student-width", "blocks": "--student-blocks"}


@recipe_options.with_recipe_options(
    "distill", "network", "data", "degrade", "loss", "optimiser", "run", second_flags=_STUDENT_FLAGS
)
def distill(
    *,
    out: recipe_options.OutOption,
    config: recipe_options.ConfigOption = None,
    resume: recipe_options.ResumeOption = False,
    offline: recipe_options.RunOfflineOption = False,
    given: recipe_options.Given,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train an adapter for your pictures, or train a network with a teacher.

    Adapters are kept only if they raise the PSNR on held-out pictures; if not, the exit code is 1.
    """
    recipe = recipe_options.resolve_recipe(given, out, config, resume, distill=True)
    _run(recipe, out, resume, offline, json, quiet)


def _run(recipe: Recipe, out: Path, resume: bool, offline: bool, json: bool, quiet: bool) -> NoReturn:
    """Train as the recipe says, show the progress and the result, and leave with the exit code."""
    if quiet:
        console.hide_download_bars()
    # Imports torch, so the imports wait until the options are checked.
    from dsclora_cli.cli.views.train_progress import TrainView

    with TrainView(json, quiet) as view:
        # `train --teacher-images` is method logits without a network, so the recipe decides and not the command.
        if recipe.distill:
            from dsclora_cli.distillation.distill import distill as train_with_teacher

            result = train_with_teacher(recipe, out, resume, view, offline)
        else:
            from dsclora_cli.training.train import train as train_network

            result = train_network(recipe, out, resume, view, offline)
    raise typer.Exit(view.end(result))


MERGE_EXAMPLES = """[bold]Examples[/]

  dsclora merge dscf-x4 mine/adapter.safetensors -o mine.safetensors

  dsclora merge dscf-x4 mine/adapter.safetensors --strength 0.5 -o halfway.safetensors

  dsclora upscale photo.jpg --weights mine.safetensors
"""


def merge(
    base: Annotated[
        str,
        typer.Argument(
            help="Weights that the adapter was trained for: a file or a name.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ],
    adapter: Annotated[Path, typer.Argument(help="Adapter file from `dsclora distill`.", show_default=False)],
    output: Annotated[
        Path,
        option(
            FILES,
            "File to write; an existing file is never replaced.",
            "-o",
            "--output",
            parser=parse_file,
            metavar="<path>",
            show_default=False,
        ),
    ],
    strength: Annotated[
        float, option(FILES, "Share of the adapter to merge: 0 gives the base, 1 the whole adapter.", "--strength")
    ] = 1.0,
    force: Annotated[
        bool, option(FILES, "Merge into a base that the adapter was not trained for, if the shapes fit.", "--force")
    ] = False,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Merge an adapter into its base; the merged file is no larger and no slower than the base."""
    from dsclora_cli.distillation.merge import merge as merge_files

    merged = merge_files(base, adapter, output, strength, force, offline)
    if json:
        console.show_json(merged)
    elif not quiet:
        console.print_line(f"{merged.file}: {merged.base} with {adapter} (sha256 {merged.sha256})")
