"""`dsclora compare`: the same picture by several models, in a contact sheet and a page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.cli import console, options
from dsclora_cli.cli.completion import complete_model
from dsclora_cli.cli.options import FILES, MODEL, SIZE, option
from dsclora_cli.cli.views.compare_table import show_comparison
from dsclora_cli.config import MAX_SCALE, CompareOptions, ReadOptions
from dsclora_cli.errors import ImageUnwritable, UsageError, next_step
from dsclora_cli.paths import check_path, is_folder, is_taken

if TYPE_CHECKING:
    from dsclora_cli.evaluation.compare import CompareResult

_DEFAULT = CompareOptions()
_ENGINE = options.EngineName(_DEFAULT.engine.engine)
_DTYPE = options.Dtype(_DEFAULT.engine.dtype)

COMPARE_EXAMPLES = """[bold]Examples[/]

  dsclora compare photo.jpg

  dsclora compare photo.jpg -m dsclora-x4 -m dsclora-x4-photo -m bicubic --crop 400,300,320,240

  dsclora compare photo.jpg -m dsclora-x4-photo --sharp 0.5 --sharp 1

  dsclora compare small.png -m mine.safetensors -m other-program.png --hr original.png
"""


def compare(
    picture: Annotated[Path, typer.Argument(help="Picture to upscale.", rich_help_panel=FILES)],
    output: Annotated[
        str | None,
        option(
            FILES,
            "Path of the results without suffix: .png and .html are added; or a folder, with a / if it is new.",
            "-o",
            "--output",
            show_default="the picture with -compare added",
        ),
    ] = None,
    candidates: Annotated[
        list[str] | None,
        option(
            MODEL,
            "Model, file of weights, finished picture, or nearest, bicubic or lanczos. May be repeated.",
            "-m",
            "--model",
            show_default="bicubic and auto",
            autocompletion=complete_model,
        ),
    ] = None,
    crop: Annotated[
        str | None,
        option(
            FILES,
            "Part of the picture to compare, in pixels of the input.",
            "--crop",
            parser=options.parse_part,
            metavar="X,Y,W,H",
            show_default="the whole picture, or the middle of a large one",
        ),
    ] = None,
    hr: Annotated[Path | None, option(FILES, "True picture in the size of the results, for scores.", "--hr")] = None,
    overwrite: Annotated[bool, option(FILES, "Replace existing files.", "--overwrite")] = False,
    scale: Annotated[
        float, option(SIZE, f"Enlarge both sides by this factor, above 1 and up to {MAX_SCALE:g}.", "-s", "--scale")
    ] = _DEFAULT.scale,
    sharp: options.SharpnessesOption = None,
    sharp_weights: options.SharpWeightsOption = None,
    offline: options.OfflineOption = _DEFAULT.offline,
    device: options.DeviceOption = _DEFAULT.engine.device,
    engine: options.EngineOption = _ENGINE,
    dtype: options.DtypeOption = _DTYPE,
    tile: options.TileOption = options.AUTO_TILE,
    threads: options.ThreadsOption = _DEFAULT.engine.threads,
    max_pixels: options.MaxPixelsOption = _DEFAULT.read.max_pixels,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Upscale a picture with several models, and write a contact sheet (PNG) and a page for browsers (HTML)."""
    if not 1 < scale <= MAX_SCALE:
        raise UsageError(f"--scale {scale:g} is not above 1 and at most {MAX_SCALE:g}", "give a factor such as 2.5")
    options.check_sharpnesses(sharp, sharp_weights)
    asked = CompareOptions(
        candidates=tuple(candidates or ()),
        scale=scale,
        crop=options.part_of(crop) if crop else None,
        hr=hr,
        sharp=tuple(sharp or ()),
        sharp_weights=sharp_weights,
        offline=offline,
        engine=options.engine_options(device, dtype, tile, threads, ensemble=False, engine=engine.value),
        read=ReadOptions(max_pixels),
    )
    if quiet:
        console.hide_download_bars()
    result = _write(_base(picture, output), picture, asked, overwrite, quiet)
    if json:
        console.show_json(result)
    else:
        show_comparison(result)


def _base(picture: Path, output: str | None) -> Path:
    """Return the path of the results without suffix: as the user named it, else next to the picture or in a folder."""
    if output is not None and not output.endswith(("/", os.sep)) and not is_folder(Path(output)):
        return Path(output)
    # No `with_name`, which refuses the paths of a folder that have no name: "." and "/".
    return (picture.parent if output is None else Path(output)) / f"{picture.stem}-compare"


def _write(base: Path, picture: Path, asked: CompareOptions, overwrite: bool, quiet: bool) -> CompareResult:
    """Compare, and write the sheet and the page. Raises ImageUnwritable, and the errors of `compare`."""
    sheet, page = base.with_name(f"{base.name}.png"), base.with_name(f"{base.name}.html")
    taken = [str(path) for path in (sheet, page) if is_taken(path)]
    if taken and not overwrite:
        verb = "exists" if len(taken) == 1 else "exist"
        hint = "choose another name with -o, or add --overwrite"
        raise UsageError(f"{' and '.join(taken)} {verb} already", hint)
    with _named_errors(base):
        check_path(sheet)
        check_path(page)
    # Imported here, as NumPy and the image libraries would slow down `--help`.
    from dsclora_cli.evaluation.compare import compare
    from dsclora_cli.evaluation.compare_page import draw_sheet, write_page
    from dsclora_cli.evaluation.saved_images import save_sheet

    result, pictures = compare(picture, asked, _Notes(quiet))
    with _named_errors(base):
        base.parent.mkdir(parents=True, exist_ok=True)
        save_sheet(sheet, draw_sheet(pictures))
        write_page(page, result, pictures)
    return replace(result, sheet=str(sheet), page=str(page))


@contextmanager
def _named_errors(base: Path) -> Iterator[None]:
    """Turn an OSError inside into an ImageUnwritable with the name of the results."""
    try:
        yield
    except OSError as error:
        message = f"{base} cannot be written ({error.strerror})"
        raise ImageUnwritable(message, next_step(error, "choose another place with -o")) from error


class _Notes(Callbacks):
    """Notes on stderr."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def on_note(self, note: str) -> None:
        """Show a note."""
        if not self._quiet:
            console.print_labeled("note", note, "cyan")
