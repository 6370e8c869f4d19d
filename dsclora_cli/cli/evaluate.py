"""`dsclora eval`: from the command line to `evaluation.evaluate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from dsclora_cli.cli import console, options
from dsclora_cli.cli.options import MODEL, REPORTING, SPEED, option
from dsclora_cli.config import EvalOptions, ModelOptions
from dsclora_cli.errors import UsageError

_DEFAULT = EvalOptions()
_ENGINE = options.EngineName(_DEFAULT.engine.engine)
_DTYPE = options.Dtype(_DEFAULT.engine.dtype)
_DATA = "Images"
_SCORES = "Scores"

EXAMPLES = """[bold]Examples[/]

  dsclora eval --dataset Set5 -s 4

  dsclora eval --dataset Set5 --dataset Urban100 -m dscf-x4 -m dsclora-x4 --cost

  dsclora eval --dataset Set14 --data-dir benchmarks/ --weights mine.pth --markdown scores.md

  dsclora eval --hr originals/ --lr small/ -s 2 --weights x2.pth --json

  dsclora eval --dataset BSD100 --save out/ --worst 5
"""


class ProtocolName(StrEnum):
    """How images are scored."""

    PAPER = "paper"
    NTIRE = "ntire"


_PROTOCOL = ProtocolName(_DEFAULT.protocol)


def evaluate(
    dataset: Annotated[
        list[str] | None,
        option(
            _DATA, "Set5, Set14, BSD100, Urban100, Manga109, DIV2K-valid; may be repeated.", "--dataset", metavar="NAME"
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, option(_DATA, "Has NAME/HR, NAME/LR_bicubic/X4; instead of the Hub.", "--data-dir", metavar="DIR")
    ] = _DEFAULT.data_dir,
    hr: Annotated[
        Path | None, option(_DATA, "Folder of originals, instead of a set.", "--hr", metavar="DIR")
    ] = _DEFAULT.hr,
    lr: Annotated[
        Path | None,
        option(
            _DATA, "Folder of their small versions.", "--lr", metavar="DIR", show_default="made by MATLAB's bicubic"
        ),
    ] = _DEFAULT.lr,
    scale: Annotated[int, option(_DATA, "Factor of the sides.", "-s", "--scale", min=2, max=16)] = _DEFAULT.scale,
    jpeg: Annotated[
        int | None,
        option(_DATA, "Save LR as JPEG of this quality first, 4:2:0.", "--jpeg", metavar="Q", min=1, max=100),
    ] = _DEFAULT.jpeg,
    model: Annotated[
        list[str] | None,
        option(
            MODEL, "Name from the catalogue; may be repeated.", "-m", "--model", metavar="NAME", show_default="auto"
        ),
    ] = None,
    weights: Annotated[
        list[Path] | None, option(MODEL, "File of weights; may be repeated.", "--weights", metavar="FILE")
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        option(MODEL, "Adapter: a row for its model with it merged in; may be repeated.", "--adapter", metavar="FILE"),
    ] = None,
    offline: options.OfflineOption = _DEFAULT.offline,
    protocol: Annotated[
        ProtocolName,
        option(_SCORES, "paper: Y and RGB, border = scale; ntire: PSNR on RGB, border 4.", "--protocol"),
    ] = _PROTOCOL,
    metric: Annotated[
        list[str] | None,
        option(_SCORES, "Also lpips, dists, ... of pyiqa; may be repeated.", "--metric", metavar="NAME"),
    ] = None,
    ensemble: Annotated[
        bool, option(_SCORES, "A row for each model's mean over 8 flips and turns.", "--ensemble")
    ] = _DEFAULT.engine.ensemble,
    cost: Annotated[
        bool, option(_SCORES, "Parameters, multiply-adds, activations, time and memory.", "--cost")
    ] = _DEFAULT.cost,
    worst: Annotated[
        int, option(_SCORES, "Name the N images on which a model gains least.", "--worst", metavar="N", min=0)
    ] = _DEFAULT.worst,
    device: options.DeviceOption = _DEFAULT.engine.device,
    engine: options.EngineOption = _ENGINE,
    dtype: options.DtypeOption = _DTYPE,
    tile: options.TileOption = options.AUTO_TILE,
    threads: options.ThreadsOption = _DEFAULT.engine.threads,
    fresh: Annotated[bool, option(SPEED, "Take up no scores of earlier runs.", "--fresh")] = _DEFAULT.fresh,
    save: Annotated[
        Path | None, option(REPORTING, "For the upscaled images and sheets of the worst.", "--save", metavar="DIR")
    ] = _DEFAULT.save,
    json: Annotated[bool, option(REPORTING, "Everything as one JSON object on stdout.", "--json")] = False,
    csv: Annotated[
        str | None, option(REPORTING, "Scores of each image, - for stdout.", "--csv", metavar="FILE|-")
    ] = None,
    markdown: Annotated[
        str | None, option(REPORTING, "The tables, - for stdout.", "--markdown", metavar="FILE|-")
    ] = None,
    quiet: Annotated[bool, option(REPORTING, "Only the scores and errors.", "-q", "--quiet")] = False,
) -> None:
    """Score models on benchmark sets with the protocols of papers and challenges.

    Finished images are kept, so the same command again goes on where it stopped.
    """
    on_stdout = {"--json": json, "--csv -": csv == "-", "--markdown -": markdown == "-"}
    taken = [name for name, used in on_stdout.items() if used]
    if len(taken) > 1:
        raise UsageError(f"{' and '.join(taken)} would all go to stdout", "name files, or choose one")
    models = [ModelOptions(name) for name in model or ()] + [ModelOptions(weights=file) for file in weights or ()]
    models += [ModelOptions(adapter=file) for file in adapter or ()]
    asked = EvalOptions(
        datasets=tuple(dataset or ()),
        data_dir=data_dir,
        hr=hr,
        lr=lr,
        scale=scale,
        jpeg=jpeg,
        models=tuple(models),
        protocol=protocol.value,
        metrics=tuple(metric or ()),
        engine=options.engine_options(device, dtype, tile, threads, ensemble, engine.value),
        cost=cost,
        worst=worst,
        save=save,
        offline=offline,
        fresh=fresh,
    )
    if quiet:
        console.hush_downloads()
    from dsclora_cli.cli import eval_tables
    from dsclora_cli.cli.eval_progress import EvalView
    from dsclora_cli.evaluation.evaluate import evaluate as run

    with EvalView(quiet) as view:
        report = run(asked, view)
    if csv:
        console.put(csv, eval_tables.csv_text(report))
    if markdown:
        console.put(markdown, eval_tables.markdown_text(report))
    if json:
        console.show_json(report)
    elif not taken:
        eval_tables.show(report)
