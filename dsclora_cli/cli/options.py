"""Options that several commands share: types for Typer, help texts and parsers.

Every `--help` imports this module, so nothing slow is imported here.
"""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from dsclora_cli.checked import limits
from dsclora_cli.cli.completion import complete_device, complete_devices, complete_model
from dsclora_cli.config import DEFAULT_SCALE, MAX_SCALE, EngineOptions, ModelOptions, ReadOptions, SizeOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.storage.places import Place, parse_place

FILES = "Input and output"
SIZE = "Size"
MODEL = "Model"
SPEED = "Speed and memory"
METADATA = "Metadata"
CLUSTER = "Cluster"
REPORTING = "Reporting"

AUTO_TILE = -1
"""Value of `--tile auto` inside Typer, which takes None from a parser for an option that was not given."""

_ONE_DEVICE = r"auto|cpu|mps|cuda(:\d+)?"


class EngineName(StrEnum):
    """Libraries that can run a model."""

    AUTO = "auto"
    NATIVE = "native"
    TORCH = "torch"
    OPENVINO = "openvino"


class Dtype(StrEnum):
    """Floating-point types that a model can run in."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"


def option(panel: str, text: str, *flags: str, **settings: Any) -> Any:  # noqa: ANN401 - as typer types it
    """Return a `typer.Option` with the help `text` in a panel of the help; `settings` are Typer's."""
    return typer.Option(*flags, help=text, rich_help_panel=panel, **settings)


def parse_file(text: str | Path) -> Path:
    """Return the path of a file to write. Raises UsageError for a slash at the end, which `Path` would drop."""
    if str(text).removesuffix(".").endswith(("/", os.sep)):
        message = f"{text} is the path of a folder, and a file is written"
        raise UsageError(message, "remove the slash at the end")
    return Path(text)


def parse_tile(text: str | int) -> int:
    """Return the edge of a tile in pixels, 0 for the whole picture, or `AUTO_TILE` for "auto"."""
    # Typer parses defaults as well, so AUTO_TILE itself arrives here.
    if text in {"auto", AUTO_TILE}:
        return AUTO_TILE
    if not str(text).isdecimal():
        raise typer.BadParameter(f"{text!r} is not auto, 0 or a number of pixels.")
    return int(text)


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as "800MB" or "2GB"; units are decimal."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG])B?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * {"M": 10**6, "G": 10**9}[match[2].upper()]) if match else 0
    if not size:
        raise typer.BadParameter(f"{text!r} is not a size such as 800MB or 2GB.")
    return size


def parse_pixels(text: str | int) -> int:
    """Return the number of pixels in a text such as "500MP", "2GP" or "200000000"; units are decimal."""
    # typer also passes the default through the parser.
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MG]P?)?", str(text).strip(), re.IGNORECASE)
    pixels = int(float(match[1]) * {"M": 10**6, "G": 10**9}.get((match[2] or " ")[0].upper(), 1)) if match else 0
    if not pixels:
        raise typer.BadParameter(f"{text!r} is not a number of pixels such as 500MP.")
    return pixels


def parse_box(text: str) -> str:
    """Return the text of a box, `WxH` in pixels, after checking the spelling."""
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise typer.BadParameter(f"{text!r} is not WxH, such as 1920x1080.")
    return text


def parse_part(text: str) -> str:
    """Return the text of a part, `X,Y,W,H` in pixels, after checking the spelling."""
    if not re.fullmatch(r"\d+,\d+,[1-9]\d*,[1-9]\d*", text):
        raise typer.BadParameter(f"{text!r} is not X,Y,W,H, such as 400,300,320,240.")
    return text


def box_of(text: str) -> tuple[int, int]:
    """Return width and height of a text that `parse_box` has passed."""
    width, height = text.split("x")
    return int(width), int(height)


def part_of(text: str) -> tuple[int, int, int, int]:
    """Return x, y, width and height of a text that `parse_part` has passed."""
    x, y, width, height = text.split(",")
    return int(x), int(y), int(width), int(height)


def parse_device(text: str) -> str:
    """Return the name of a device after checking the spelling; the device may be absent."""
    if not re.fullmatch(_ONE_DEVICE, text):
        raise typer.BadParameter(f"{text!r} is not auto, cpu, cuda, cuda:N or mps.")
    return text


def parse_devices(text: str) -> str:
    """Return names of devices with commas between, or `all`, after checking the spelling."""
    if not re.fullmatch(f"all|({_ONE_DEVICE})(,({_ONE_DEVICE}))*", text):
        raise typer.BadParameter(
            f"{text!r} is not auto, cpu, cuda, cuda:N, mps, several such as cuda:0,cuda:1, or all."
        )
    return text


def engine_options(
    device: str, dtype: Dtype, tile: int, threads: int | None, ensemble: bool, engine: str
) -> EngineOptions:
    """Return the options of the panel "Speed and memory" in the form that the rest of the program takes."""
    return EngineOptions(device, dtype.value, None if tile == AUTO_TILE else tile, threads, ensemble, engine)


def model_options(
    model: str,
    weights: Place | None,
    offline: bool,
    adapter: Path | None,
    sharp: float | None = None,
    sharp_weights: Path | None = None,
) -> ModelOptions:
    """Return the options of the panel "Model", as `settle_model` does."""
    from dsclora_cli.weights.resolve import settle_model

    return settle_model(ModelOptions(model, weights, offline, adapter, sharp, sharp_weights))


def check_sharpnesses(sharp: list[float] | None, sharp_weights: Path | None) -> None:
    """Raise UsageError for sharpnesses that give a result twice, and for a sharp model that no sharpness uses."""
    given = sharp or []
    if sharp_weights and not given:
        raise UsageError("--sharp-weights is given without --sharp", "give a sharpness from 0 to 1 with --sharp")
    if 0 in given:
        raise UsageError("--sharp 0 is the model itself", "give a sharpness above 0")
    if len(set(given)) < len(given):
        raise UsageError("a sharpness is given twice", "give each --sharp once")


ModelOption = Annotated[
    str,
    option(
        MODEL,
        "Name of a model in the catalogue, weight file, or hf://USER/REPO/FILE on the Hub; auto selects for the scale.",
        "-m",
        "--model",
        autocompletion=complete_model,
    ),
]
WeightsOption = Annotated[
    Any,  # typer knows no other classes than its own, even with a parser
    option(
        MODEL,
        "File of weights, or its URL, instead of a model's name.",
        "--weights",
        parser=parse_place,
        metavar="FILE",
    ),
]
AdapterOption = Annotated[
    Path | None,
    option(
        MODEL, "Adapter file to merge into the model; without --model, into the model it was made for.", "--adapter"
    ),
]
SharpOption = Annotated[
    float | None,
    option(
        MODEL,
        "Sharpness, 0 to 1: how far the model moves towards its sharp model. Sharp detail is a guess.",
        "--sharp",
        show_default="0",
        **limits(ModelOptions, "sharp"),
    ),
]
SharpnessesOption = Annotated[
    list[float] | None,
    option(
        MODEL,
        "Sharpness above 0 and up to 1: adds a result for each model, moved towards its sharp model. May be repeated.",
        "--sharp",
        metavar="X",
        **limits(ModelOptions, "sharp"),
    ),
]
SharpWeightsOption = Annotated[
    Path | None,
    option(MODEL, "File of the sharp model, instead of the one in the catalogue.", "--sharp-weights"),
]
OfflineOption = Annotated[bool, option(MODEL, "Do not access the internet, but for URLs that you name.", "--offline")]
DeviceOption = Annotated[
    str,
    option(
        SPEED,
        "Device that runs the model.",
        "--device",
        parser=parse_device,
        metavar="auto|cpu|cuda|cuda:N|mps",
        autocompletion=complete_device,
    ),
]
DevicesOption = Annotated[
    str,
    option(
        SPEED,
        "Device that runs the model; several GPUs share the pictures.",
        "--device",
        parser=parse_devices,
        metavar="auto|cpu|cuda|cuda:N|cuda:0,cuda:1|all|mps",
        autocompletion=complete_devices,
    ),
]
EngineOption = Annotated[
    EngineName, option(SPEED, "Library that runs the model; auto takes the fastest one installed.", "--engine")
]
DtypeOption = Annotated[Dtype, option(SPEED, "Floating-point type of the model.", "--dtype")]
TileOption = Annotated[
    int,
    option(
        SPEED,
        "Edge of a tile in input pixels, 0 for the whole picture; the result is the same.",
        "--tile",
        parser=parse_tile,
        metavar="auto|N",
        show_default="auto",
    ),
]
ScaleOption = Annotated[
    float | None,
    option(
        SIZE,
        f"Enlarge both sides by this factor, above 1 and up to {MAX_SCALE:g}.",
        "-s",
        "--scale",
        show_default=f"{DEFAULT_SCALE:g}",
    ),
]
WidthOption = Annotated[
    int | None, option(SIZE, "Width of results in pixels.", "--width", **limits(SizeOptions, "width"))
]
HeightOption = Annotated[
    int | None, option(SIZE, "Height of results in pixels.", "--height", **limits(SizeOptions, "height"))
]
MaxPixelsOption = Annotated[
    int,
    option(
        SPEED,
        "Most pixels of a picture in memory at once, such as 500MP; larger pictures are refused.",
        "--max-pixels",
        parser=parse_pixels,
        metavar="PIXELS",
        show_default=f"{ReadOptions.max_pixels // 10**6}MP",
    ),
]
ThreadsOption = Annotated[
    int | None,
    option(
        SPEED,
        "CPU threads that run the model.",
        "--threads",
        show_default="the engine's choice",
        **limits(EngineOptions, "threads"),
    ),
]
JsonOption = Annotated[bool, option(REPORTING, "Write one JSON object on each line of stdout.", "--json")]
QuietOption = Annotated[bool, option(REPORTING, "Show errors only.", "-q", "--quiet")]
VerboseOption = Annotated[
    bool,
    option(
        REPORTING,
        "Also show skipped pictures, and model, device, time and faithfulness of each picture.",
        "-v",
        "--verbose",
    ),
]
