"""`dsclora merge`: from the command line to `tasks.merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsclora_cli.cli import options, ui

EXAMPLES = """[bold]Examples[/]

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
    offline: options.Offline = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge an adapter into its base: one file of weights, as fast as the base alone."""
    from dsclora_cli.tasks.merge import merge as run

    merged = run(base, adapter, output, strength, force, offline)
    if json:
        ui.show_json(merged)
    elif not quiet:
        ui.show(f"{merged.file}: {merged.base} with {adapter} (sha256 {merged.sha256})")
