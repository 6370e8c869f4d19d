"""`dsclora export`: read options, call `export_model`, show the files."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsclora_cli.cli import completion, console
from dsclora_cli.cli.options import (
    FILES,
    MODEL,
    JsonOption,
    OfflineOption,
    QuietOption,
    SharpOption,
    SharpWeightsOption,
    option,
    parse_file,
)

if TYPE_CHECKING:
    from dsclora_cli.exporting.export import ExportedModel

EXPORT_EXAMPLES = """[bold]Examples[/]

  dsclora export dsclora-x4 -o dsclora-x4.onnx

  dsclora export dsclora-x4 -o dsclora-x4-ncnn.param

  dsclora export dsclora-x4-photo --sharp 0.75 -o sharp.onnx

  dsclora export mine/best.safetensors --format spandrel -o for-chainner.safetensors

docs/interop.md shows how other programs load the files.
"""


class ExportName(StrEnum):
    """Formats that a network can be written in."""

    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    OPENVINO = "openvino"
    SPANDREL = "spandrel"
    NCNN = "ncnn"


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Model to export: a name in the catalogue, or a file of weights.",
            show_default=False,
            autocompletion=completion.complete_model,
        ),
    ],
    output: Annotated[
        Path,
        option(
            FILES,
            "File to write; OpenVINO and ncnn write more files with the same stem.",
            "-o",
            "--output",
            parser=parse_file,
            metavar="<path>",
            show_default=False,
        ),
    ],
    format: Annotated[
        ExportName | None,
        option(FILES, "Format of the file.", "--format", show_default="from the suffix of --output"),
    ] = None,
    overwrite: Annotated[bool, option(FILES, "Replace existing files.", "--overwrite")] = False,
    adapter: Annotated[
        Path | None, option(MODEL, "Adapter file to merge into the model before the export.", "--adapter")
    ] = None,
    sharp: SharpOption = None,
    sharp_weights: SharpWeightsOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a model as a file for other programs: ONNX, OpenVINO, ncnn, or weights for spandrel and dsclora.

    The exported model takes pictures of any size. Scale, halo, licence and origin are in the metadata of the file.
    """
    from dsclora_cli.weights.resolve import named_options

    if quiet:
        console.hide_download_bars()
    # Imports torch, so the import waits until the options are parsed.
    from dsclora_cli.exporting.export import export_model

    chosen = replace(named_options(model, offline, adapter), sharp=sharp, sharp_weights=sharp_weights)
    exported = export_model(chosen, output, format and format.value, overwrite)
    if json:
        console.show_json(exported)
    elif not quiet:
        if exported.note:
            console.print_labeled("note", exported.note, "cyan")
        _show(exported)


def _show(exported: ExportedModel) -> None:
    """Write the files, and facts on the network, to stdout."""
    facts = exported.metadata
    console.print_line(f"{' '.join(exported.files)}: {exported.model} as {exported.format}")
    console.print_line(
        f"x{facts['scale']}, halo {facts['halo']} pixels, {console.format_bytes(exported.size)},"
        f" licence {facts['licence']}, weights sha256 {exported.weights_sha256}"
    )
