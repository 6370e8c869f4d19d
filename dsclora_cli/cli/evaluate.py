"""`dsclora eval`: parse options, call `evaluation.evaluate.evaluate`, show progress and the report."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from dsclora_cli.checked import limits
from dsclora_cli.cli import console, options
from dsclora_cli.cli.completion import complete_dataset, complete_model
from dsclora_cli.cli.options import MODEL, REPORTING, SPEED, option
from dsclora_cli.config import EvalOptions, ModelOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.storage.places import parse_place

_DEFAULT = EvalOptions()
_ENGINE = options.EngineName(_DEFAULT.engine.engine)
_DTYPE = options.Dtype(_DEFAULT.engine.dtype)
_DATA = "Images"
_SCORES = "Scores"

EVAL_EXAMPLES = """[bold]Examples[/]

  dsclora eval --dataset Set5 -s 4

  dsclora eval --dataset Set5 --dataset Urban100 -m dscf-x4 -m dsclora-x4 --cost

  dsclora eval --dataset Set14 --data-dir benchmarks/ --weights mine.pth --markdown scores.md

  dsclora eval --hr originals/ --lr small/ -s 2 --weights x2.pth --json

  dsclora eval --dataset BSD100 --save out/ --worst 5
"""


class ProtocolName(StrEnum):
    """Values of `--protocol`."""

    PAPER = "paper"
    NTIRE = "ntire"


_PROTOCOL = ProtocolName(_DEFAULT.protocol)


def evaluate(
    dataset: Annotated[
        list[str] | None,
        option(
            _DATA,
            "Benchmark set: Set5, Set14, BSD100, Urban100, Manga109 or DIV2K-valid. May be repeated.",
            "--dataset",
            metavar="NAME",
            autocompletion=complete_dataset,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        option(
            _DATA,
            "Folder with the sets of --dataset, as NAME/HR and NAME/LR_bicubic/X4, instead of the Hugging Face Hub.",
            "--data-dir",
            metavar="DIR",
        ),
    ] = _DEFAULT.data_dir,
    hr: Annotated[
        Path | None, option(_DATA, "Folder of high-resolution originals, instead of --dataset.", "--hr", metavar="DIR")
    ] = _DEFAULT.hr,
    lr: Annotated[
        Path | None,
        option(
            _DATA,
            "Folder of the low-resolution versions of the pictures of --hr.",
            "--lr",
            metavar="DIR",
            show_default="made by MATLAB's bicubic",
        ),
    ] = _DEFAULT.lr,
    scale: Annotated[
        int,
        option(
            _DATA,
            "Factor between the sides of LR and HR images; 1 for models that restore.",
            "-s",
            "--scale",
            **limits(EvalOptions, "scale"),
        ),
    ] = _DEFAULT.scale,
    jpeg: Annotated[
        int | None,
        option(
            _DATA,
            "Save each LR image as a JPEG of quality Q with 4:2:0 chroma, and upscale the JPEG.",
            "--jpeg",
            metavar="Q",
            **limits(EvalOptions, "jpeg"),
        ),
    ] = _DEFAULT.jpeg,
    model: Annotated[
        list[str] | None,
        option(
            MODEL,
            "Name of a model in the catalogue, see `dsclora models list`. May be repeated.",
            "-m",
            "--model",
            metavar="NAME",
            show_default="auto",
            autocompletion=complete_model,
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        option(MODEL, "Weights file of a model, or its URL. May be repeated.", "--weights", metavar="FILE"),
    ] = None,
    adapter: Annotated[
        list[Path] | None,
        option(
            MODEL,
            "Adapter file: adds a row for the adapter merged into the model of the adapter. May be repeated.",
            "--adapter",
            metavar="FILE",
        ),
    ] = None,
    sharp: options.SharpnessesOption = None,
    sharp_weights: options.SharpWeightsOption = None,
    offline: options.OfflineOption = _DEFAULT.offline,
    protocol: Annotated[
        ProtocolName,
        option(
            _SCORES,
            "How to score. paper: PSNR and SSIM on Y and on RGB, border = scale. ntire: PSNR on RGB, border 4.",
            "--protocol",
        ),
    ] = _PROTOCOL,
    metric: Annotated[
        list[str] | None,
        option(
            _SCORES,
            "Extra metric: niqe, or one of pyiqa (lpips, dists, ...). May be repeated.",
            "--metric",
            metavar="NAME",
        ),
    ] = None,
    ensemble: Annotated[
        bool,
        option(_SCORES, "Add a row for the self-ensemble of each model: mean over 8 flips and turns.", "--ensemble"),
    ] = _DEFAULT.engine.ensemble,
    cost: Annotated[
        bool,
        option(_SCORES, "Measure each model: parameters, multiply-adds, activations, time and memory.", "--cost"),
    ] = _DEFAULT.cost,
    worst: Annotated[
        int,
        option(
            _SCORES,
            "Name the N images of each set on which a model gains least over bicubic.",
            "--worst",
            metavar="N",
            **limits(EvalOptions, "worst"),
        ),
    ] = _DEFAULT.worst,
    device: options.DeviceOption = _DEFAULT.engine.device,
    engine: options.EngineOption = _ENGINE,
    dtype: options.DtypeOption = _DTYPE,
    tile: options.TileOption = options.AUTO_TILE,
    threads: options.ThreadsOption = _DEFAULT.engine.threads,
    max_pixels: options.MaxPixelsOption = _DEFAULT.max_pixels,
    fresh: Annotated[
        bool, option(SPEED, "Score every image again, also where scores of an earlier run are kept.", "--fresh")
    ] = _DEFAULT.fresh,
    save: Annotated[
        Path | None,
        option(REPORTING, "Folder for upscaled images, and for sheets of the worst images.", "--save", metavar="DIR"),
    ] = _DEFAULT.save,
    json: Annotated[bool, option(REPORTING, "Write the whole report as one JSON object to stdout.", "--json")] = False,
    csv: Annotated[
        str | None,
        option(REPORTING, "CSV file for the scores of each image; - is stdout.", "--csv", metavar="FILE|-"),
    ] = None,
    markdown: Annotated[
        str | None, option(REPORTING, "Markdown file for the tables; - is stdout.", "--markdown", metavar="FILE|-")
    ] = None,
    quiet: Annotated[bool, option(REPORTING, "Show scores and errors only.", "-q", "--quiet")] = False,
) -> None:
    """Score models on benchmark sets with the protocols of papers and challenges.

    Scores of finished images are kept: after an interruption, the same command resumes.
    """
    # Two reports on stdout could not be parsed.
    on_stdout = {"--json": json, "--csv -": csv == "-", "--markdown -": markdown == "-"}
    taken = [name for name, used in on_stdout.items() if used]
    if len(taken) > 1:
        raise UsageError(f"{' and '.join(taken)} would all go to stdout", "name files, or choose one")
    asked = EvalOptions(
        datasets=tuple(dataset or ()),
        data_dir=data_dir,
        hr=hr,
        lr=lr,
        scale=scale,
        jpeg=jpeg,
        models=_sharpened(_models(model, weights, adapter), sharp, sharp_weights),
        protocol=protocol.value,
        metrics=tuple(metric or ()),
        engine=options.engine_options(device, dtype, tile, threads, ensemble, engine.value),
        cost=cost,
        worst=worst,
        save=save,
        offline=offline,
        max_pixels=max_pixels,
        fresh=fresh,
    )
    if quiet:
        # Before the imports below: the Hub client reads the environment variable once, when imported.
        console.hide_download_bars()
    from dsclora_cli.cli.views import eval_tables
    from dsclora_cli.cli.views.eval_progress import EvalProgress

    # Imported here, not above: torch takes seconds, and `--help` must not wait for torch.
    from dsclora_cli.evaluation.evaluate import evaluate as run

    eval_tables.check_targets(csv, markdown)
    with EvalProgress(quiet) as progress:
        report = run(asked, progress)
    if csv:
        console.write_text(csv, eval_tables.csv_text(report))
    if markdown:
        console.write_text(markdown, eval_tables.markdown_text(report))
    if json:
        console.show_json(report)
    elif not taken:  # a report on stdout takes the place of the tables
        eval_tables.show_tables(report)


def _models(
    names: list[str] | None, weights: list[str] | None, adapters: list[Path] | None
) -> tuple[ModelOptions, ...]:
    """Return the models in the order of the rows: names, then weights files, then adapters."""
    by_name = [options.model_options(name, None, offline=False, adapter=None) for name in names or ()]
    by_file = [options.model_options("auto", parse_place(file), offline=False, adapter=None) for file in weights or ()]
    return (*by_name, *by_file, *(ModelOptions(adapter=file) for file in adapters or ()))


def _sharpened(
    models: tuple[ModelOptions, ...], sharp: list[float] | None, sharp_weights: Path | None
) -> tuple[ModelOptions, ...]:
    """Return the models, each followed by the same model at every sharpness; without any, `auto` is the only model."""
    options.check_sharpnesses(sharp, sharp_weights)
    if not sharp:
        return models
    rows = []
    for model in models or (ModelOptions(),):
        rows += [model, *(replace(model, sharp=each, sharp_weights=sharp_weights) for each in sharp)]
    return tuple(rows)
