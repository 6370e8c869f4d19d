"""`dsclora models`: which networks there are, and what of them is on this machine."""

from __future__ import annotations

import typer

from dsclora_cli.cli import options, ui

app = typer.Typer(help="Which networks there are, and what of them is here.", no_args_is_help=True)

_EXAMPLES = """[bold]Examples[/]

  dsclora models list

  dsclora models list --json
"""


@app.callback()
def _models() -> None:
    """Which networks there are, and what of them is here."""


@app.command("list", epilog=_EXAMPLES)
def list_command(json: options.Json = False) -> None:
    """List the catalogue: names for `--model`, and where their weights are. Asks nothing of the network."""
    from dsclora_cli.tasks.models import list_models

    ui.show_models(list_models(), json)
