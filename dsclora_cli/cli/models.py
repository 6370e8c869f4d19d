"""`dsclora models`: list, describe, download, verify and prune the weights on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from dsclora_cli.cli import completion, console, options
from dsclora_cli.errors import ExitCode

models_app = typer.Typer(help="List models, and download, verify and prune weights.", no_args_is_help=True)

_LIST_EXAMPLES = """[bold]Examples[/]

  dsclora models list

  dsclora models list --json
"""
_INFO_EXAMPLES = """[bold]Examples[/]

  dsclora models info dsclora-x4

  dsclora models info mine/adapter.safetensors --json
"""
_FETCH_EXAMPLES = """[bold]Examples[/]

  dsclora models fetch dscf-x4

  dsclora models fetch --all

  dsclora models fetch edsr-baseline-x4 --trust-unpinned
"""
_VERIFY_EXAMPLES = """[bold]Examples[/]

  dsclora models verify

  dsclora models verify dscf-x4 --json
"""
_PRUNE_EXAMPLES = """[bold]Examples[/]

  dsclora models prune --dry-run

  dsclora models prune --all --yes
"""
_PATH_EXAMPLES = """[bold]Examples[/]

  dsclora models path

  cp "$(dsclora models path dscf-x4)" /media/stick
"""

_Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME...",
        help="Models, as `dsclora models list` names them, or references such as hf://USER/REPO/FILE.",
        autocompletion=completion.complete_model,
    ),
]


@models_app.command("list", epilog=_LIST_EXAMPLES)
def list_command(json: options.JsonOption = False) -> None:
    """List the models of the catalogue, their scores, and where their weights are. Does not access the internet."""
    from dsclora_cli.weights.listing import list_models

    if json:
        for row in list_models():
            console.show_json(row)
        return
    from dsclora_cli.cli.views.model_tables import show_models
    from dsclora_cli.weights.hub_models import list_trusted

    show_models(list_models(), [trusted.reference for trusted in list_trusted()])


@models_app.command("info", epilog=_INFO_EXAMPLES, no_args_is_help=True)
def info_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="Model, as `dsclora models list` names it, or a file of weights or of an adapter.",
            autocompletion=completion.complete_model,
        ),
    ],
    json: options.JsonOption = False,
) -> None:
    """Show architecture, size, training, licence and scores of a model. Does not access the internet."""
    from dsclora_cli.cli.views.model_tables import show_description
    from dsclora_cli.weights.description import describe_model

    described = describe_model(model)
    if json:
        console.show_json(described)
    else:
        show_description(described)


@models_app.command("fetch", epilog=_FETCH_EXAMPLES, no_args_is_help=True)
def fetch_command(
    names: _Names = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Fetch every model of the catalogue, so that this machine never needs the internet again."
        ),
    ] = False,
    trust_unpinned: Annotated[
        bool,
        typer.Option(
            "--trust-unpinned", help="Accept a file whose sha256 the catalogue does not state, and record its sha256."
        ),
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Download weights, so that later commands can run offline. A model that fails does not stop the others."""
    from dsclora_cli.cli.views import model_tables
    from dsclora_cli.weights.listing import select_names, try_fetch

    fetched = []
    for name in select_names(names or (), every):
        with console.downloading(name) as on_bytes:
            fetched.append(try_fetch(name, trust_unpinned, every, on_bytes))
        if json:
            console.show_json(fetched[-1])
        else:
            model_tables.show_fetched(fetched[-1])
    if not json:
        model_tables.show_left_out([model for model in fetched if model.status == "left-out"])
    if any(model.error for model in fetched):
        raise typer.Exit(ExitCode.WEIGHTS)


@models_app.command("verify", epilog=_VERIFY_EXAMPLES)
def verify_command(names: _Names = None, json: options.JsonOption = False) -> None:
    """Hash every weight file on this machine again, and compare with the catalogue. Does not access the internet."""
    from dsclora_cli.cli.views.model_tables import show_verified
    from dsclora_cli.weights.verification import BAD_STATES, verify_models

    files = []
    for file in verify_models(names or ()):
        files.append(file)
        if json:
            console.show_json(file)
    if not json:
        show_verified(files)
    if any(file.state in BAD_STATES for file in files):
        raise typer.Exit(ExitCode.WEIGHTS)


@models_app.command("prune", epilog=_PRUNE_EXAMPLES)
def prune_command(
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Also remove intact downloads and converted networks, which can be fetched or made again."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Remove the files without asking.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Remove half-finished, damaged and unused downloads, after a question. Weights inside the package always stay."""
    from dsclora_cli.cli.views.model_tables import show_prunable, show_removed
    from dsclora_cli.weights.pruning import find_prunable, remove_files

    files = find_prunable(every)
    if dry_run or not files:
        show_prunable(files, json)
        return
    if not yes:
        console.check_can_ask(json)
        show_prunable(files)
        if not console.ask("Remove these files?"):
            return
    failed = show_removed(remove_files(files), json)
    if failed:
        raise typer.Exit(ExitCode.SOME_FAILED)


@models_app.command("path", epilog=_PATH_EXAMPLES)
def model_path_command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Model whose file to show; without a name, the folders that hold weights are shown.",
            autocompletion=completion.complete_model,
        ),
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Show the path of the verified file of a model, or all folders with weights. Does not access the internet."""
    from dsclora_cli.cli.views.model_tables import show_folders
    from dsclora_cli.weights.listing import find_model_path, list_folders

    if name is None:
        folders = list_folders()
        if json:
            console.show_json(folders)
        else:
            show_folders(folders)
        return
    found = find_model_path(name)
    if json:
        console.show_json(found)
    else:
        console.print_data(str(found.path))
