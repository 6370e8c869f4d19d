"""Options that several commands share, and how their values are read. Light: every `--help` imports this."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dsclora_cli.config import EngineOptions

FILES = "Input and output"
SIZE = "Size"
MODEL = "Model"
SPEED = "Speed and memory"
METADATA = "Metadata"
REPORTING = "Reporting"

AUTO_TILE = -1
"""What typer carries for `--tile auto`: it would take a parser's None for an option not given."""


class EngineName(StrEnum):
    """What does the arithmetic of a network."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"


class Dtype(StrEnum):
    """Number formats that a network runs in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"


def option(panel: str, text: str, *flags: str, **settings: Any) -> Any:  # noqa: ANN401 - as typer types it
    """A `typer.Option` in a panel of the help, explained by `text`; `settings` are typer's."""
    return typer.Option(*flags, help=text, rich_help_panel=panel, **settings)


def parse_tile(text: str | int) -> int:
    """A tile's edge in pixels, 0 for the whole picture; `AUTO_TILE` for "auto"."""
    if text in {"auto", AUTO_TILE}:
        return AUTO_TILE
    if not str(text).isdecimal():
        raise typer.BadParameter(f"{text!r} is not auto, 0 or a number of pixels.")
    return int(text)


_ONE_DEVICE = r"auto|cpu|mps|cuda(:\d+)?"


def parse_memory(text: str) -> int:
    """Bytes: a number and MB or GB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])B?", text.strip(), re.IGNORECASE)
    if not match:
        raise typer.BadParameter(f"{text!r} is not a size such as 800MB or 2GB.")
    return int(float(match[1]) * {"M": 10**6, "G": 10**9}[match[2].upper()])


def parse_device(text: str) -> str:
    """A device's name, whether or not it is there."""
    if not re.fullmatch(_ONE_DEVICE, text):
        raise typer.BadParameter(f"{text!r} is not auto, cpu, cuda, cuda:N or mps.")
    return text


def parse_devices(text: str) -> str:
    """Names of devices with commas between, or `all`."""
    if not re.fullmatch(f"all|({_ONE_DEVICE})(,({_ONE_DEVICE}))*", text):
        raise typer.BadParameter(
            f"{text!r} is not auto, cpu, cuda, cuda:N, mps, several such as cuda:0,cuda:1, or all."
        )
    return text


def engine_options(
    device: str, dtype: Dtype, tile: int, threads: int | None, ensemble: bool, engine: str
) -> EngineOptions:
    """The options of a panel "Speed and memory" as the tasks take them."""
    return EngineOptions(device, dtype.value, None if tile == AUTO_TILE else tile, threads, ensemble, engine)


ModelName = Annotated[str, option(MODEL, "Name from the catalogue; auto fits the scale.", "-m", "--model")]
WeightsFile = Annotated[Path | None, option(MODEL, "File of weights instead of a name.", "--weights")]
AdapterFile = Annotated[Path | None, option(MODEL, "Adapter to merge in; it knows its model.", "--adapter")]
Offline = Annotated[bool, option(MODEL, "Ask nothing of the network; use what is here.", "--offline")]
Device = Annotated[
    str, option(SPEED, "Where to run.", "--device", parser=parse_device, metavar="auto|cpu|cuda|cuda:N|mps")
]
Devices = Annotated[
    str,
    option(
        SPEED,
        "Where to run; several GPUs share the pictures.",
        "--device",
        parser=parse_devices,
        metavar="auto|cpu|cuda|cuda:N|cuda:0,cuda:1|all|mps",
    ),
]
Engine = Annotated[EngineName, option(SPEED, "What does the arithmetic; auto is the fastest that is here.", "--engine")]
DtypeName = Annotated[Dtype, option(SPEED, "Number format of the network.", "--dtype")]
Tile = Annotated[
    int,
    option(
        SPEED,
        "Edge of a tile in pixels, 0 for the whole picture; the result is the same.",
        "--tile",
        parser=parse_tile,
        metavar="auto|N",
        show_default="auto",
    ),
]
Threads = Annotated[
    int | None, option(SPEED, "CPU threads of the network.", "--threads", min=1, show_default="PyTorch's choice")
]
Json = Annotated[bool, option(REPORTING, "One JSON object a line, on stdout.", "--json")]
Quiet = Annotated[bool, option(REPORTING, "Only errors.", "-q", "--quiet")]
Verbose = Annotated[bool, option(REPORTING, "Also what was skipped, and how each picture was made.", "-v", "--verbose")]
