"""`dsclora models`: which networks there are, and what of them is on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from dsclora_cli.cli import console, options

app = typer.Typer(help="Which networks there are, and what of them is here.", no_args_is_help=True)

_EXAMPLES = """[bold]Examples[/]

  dsclora models list

  dsclora models list --json

  dsclora models fetch dscf-x4

  dsclora models fetch edsr-baseline-x4 --trust-unpinned
"""


@app.callback()
def _models() -> None:
    """Which networks there are, and what of them is here."""


@app.command("list", epilog=_EXAMPLES)
def list_command(json: options.Json = False) -> None:
    """List the catalogue: names for `--model`, and where their weights are. Asks nothing of the network."""
    from dsclora_cli.weights.listing import list_models

    console.show_models(list_models(), json)


Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Names from `dsclora models list`.")]
Trust = Annotated[
    bool, typer.Option("--trust-unpinned", help="Take files whose sha256 nobody has stated, and remember it.")
]


@app.command("fetch", epilog=_EXAMPLES)
def fetch_command(names: Names, trust_unpinned: Trust = False) -> None:
    """Fetch weights now, so that later nothing need be asked of the network."""
    from dsclora_cli.weights.listing import fetch_model

    for name in names:
        with console.downloading(name) as on_bytes:
            fetched = fetch_model(name, trust_unpinned, on_bytes)
        console.show(f"{name}: {fetched.path}, sha256 {fetched.sha256}")
