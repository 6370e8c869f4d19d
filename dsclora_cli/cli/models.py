"""`dsclora models`: list the catalog and download weights."""

from __future__ import annotations

from typing import Annotated

import typer

from dsclora_cli.cli import console, options

app = typer.Typer(help="List models, and download weights.", no_args_is_help=True)

_LIST_EXAMPLES = """[bold]Examples[/]

  dsclora models list

  dsclora models list --json
"""
_FETCH_EXAMPLES = """[bold]Examples[/]

  dsclora models fetch dscf-x4

  dsclora models fetch edsr-baseline-x4 --trust-unpinned
"""


@app.command("list", epilog=_LIST_EXAMPLES)
def list_command(json: options.JsonOption = False) -> None:
    """List the models of the catalogue, and where their weights are. Does not access the internet."""
    from dsclora_cli.weights.listing import list_models

    console.show_models(list_models(), json)


@app.command("fetch", epilog=_FETCH_EXAMPLES)
def fetch_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models, as `dsclora models list` names them.")],
    trust_unpinned: Annotated[
        bool,
        typer.Option(
            "--trust-unpinned", help="Accept a file whose sha256 the catalogue does not state, and record its sha256."
        ),
    ] = False,
) -> None:
    """Download weights, so that later commands can run offline."""
    from dsclora_cli.weights.listing import fetch_model

    for name in names:
        with console.downloading(name) as on_bytes:
            fetched = fetch_model(name, trust_unpinned, on_bytes)
        console.print_line(f"{name}: {fetched.path}, sha256 {fetched.sha256}")
