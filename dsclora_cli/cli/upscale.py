"""`dsclora upscale`: read options, call `upscale_files` or `plan_files`, show results."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.checked import limits
from dsclora_cli.cli import console, options
from dsclora_cli.cli.options import CLUSTER, FILES, METADATA, REPORTING, SIZE, SPEED, option
from dsclora_cli.config import (
    DEFAULT_SCALE,
    BatchOptions,
    ClusterOptions,
    CompareOptions,
    ReadOptions,
    SaveOptions,
    SizeOptions,
    UpscaleOptions,
)
from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.paths import is_taken
from dsclora_cli.storage.places import is_url

if TYPE_CHECKING:
    from collections.abc import Generator

    from dsclora_cli.cli.views.upscale_progress import UpscaleView
    from dsclora_cli.upscaling.types import FileResult

_DEFAULT = UpscaleOptions()
# typer shows the default of an enum option only as a member of the enum.
_ENGINE = options.EngineName(_DEFAULT.engine.engine)
_DTYPE = options.Dtype(_DEFAULT.engine.dtype)

UPSCALE_EXAMPLES = """[bold]Examples[/]

  dsclora upscale photo.jpg

  dsclora upscale photo.jpg -s 2.5 -o large.png

  dsclora upscale holiday/ -r -o large/ --long-edge 3840

  dsclora upscale '*.tif' -f webp --quality 90 --name '{stem}-{width}.{ext}'

  dsclora upscale scans/ --dry-run

  cat photo.png | dsclora upscale - > large.png
"""


class Executor(StrEnum):
    """Places where pictures are upscaled."""

    LOCAL = "local"
    RAY = "ray"


class KeptMetadata(StrEnum):
    """Metadata that a result keeps."""

    ALL = "all"
    NONE = "none"


_METADATA = KeptMetadata(_DEFAULT.save.metadata)
_EXECUTOR = Executor.LOCAL
_CLUSTER = ClusterOptions()


def upscale(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Pictures, folders, globs, URLs, @list.txt with a path on each line, or - for stdin.",
            rich_help_panel=FILES,
        ),
    ],
    output: Annotated[
        str | None,
        option(
            FILES,
            "File or folder for results, also as a URL, or - for stdout.",
            "-o",
            "--output",
            show_default="next to the input",
        ),
    ] = _DEFAULT.batch.output,
    format: Annotated[
        str | None,
        option(
            FILES,
            "Format of results: jpg, png, webp, tiff, ...",
            "-f",
            "--format",
            show_default="from the suffix of --output, else as the input",
        ),
    ] = _DEFAULT.save.format,
    name: Annotated[
        str, option(FILES, "Name of results, from {stem} {scale} {model} {ext} {width} {height}.", "--name")
    ] = _DEFAULT.batch.name,
    recursive: Annotated[
        bool, option(FILES, "Also upscale pictures in subfolders, and keep the folder tree.", "-r", "--recursive")
    ] = _DEFAULT.batch.recursive,
    overwrite: Annotated[bool, option(FILES, "Replace existing files.", "--overwrite")] = _DEFAULT.batch.overwrite,
    watch: Annotated[bool, option(FILES, "Wait for more pictures in the folders, until Ctrl-C.", "--watch")] = False,
    shard: Annotated[
        str | None,
        option(
            FILES,
            "Upscale only the pictures of shard I of N, from 1; auto takes I and N from the job array.",
            "--shard",
            metavar="I/N|auto|auto/N",
        ),
    ] = None,
    fail_fast: Annotated[
        bool, option(FILES, "Stop at the first picture that fails.", "--fail-fast")
    ] = _DEFAULT.batch.fail_fast,
    quality: Annotated[
        int,
        option(
            FILES, "Quality of JPEG, WebP, AVIF, HEIC and JPEG XL files.", "--quality", **limits(SaveOptions, "quality")
        ),
    ] = _DEFAULT.save.quality,
    compression: Annotated[
        int,
        option(
            FILES,
            "Compression of PNG and TIFF: 0 fastest, 9 smallest.",
            "--compression",
            **limits(SaveOptions, "compression"),
        ),
    ] = _DEFAULT.save.compression,
    strict: Annotated[
        bool, option(FILES, "Refuse pictures that would lose transparency, bit depth, frames or colours.", "--strict")
    ] = _DEFAULT.save.strict,
    salvage: Annotated[
        bool, option(FILES, "Take what is there of an incomplete picture, and say how much.", "--salvage")
    ] = _DEFAULT.read.salvage,
    scale: options.ScaleOption = _DEFAULT.size.scale,
    width: options.WidthOption = _DEFAULT.size.width,
    height: options.HeightOption = _DEFAULT.size.height,
    fit: Annotated[
        str | None,
        option(SIZE, "Largest size inside a box of WxH pixels.", "--fit", parser=options.parse_box, metavar="WxH"),
    ] = None,
    long_edge: Annotated[
        int | None, option(SIZE, "Longer side of results in pixels.", "--long-edge", **limits(SizeOptions, "long_edge"))
    ] = _DEFAULT.size.long_edge,
    short_edge: Annotated[
        int | None,
        option(SIZE, "Shorter side of results in pixels.", "--short-edge", **limits(SizeOptions, "short_edge")),
    ] = _DEFAULT.size.short_edge,
    megapixels: Annotated[
        float | None, option(SIZE, "Area of results in millions of pixels.", "--megapixels")
    ] = _DEFAULT.size.megapixels,
    model: options.ModelOption = _DEFAULT.model.model,
    weights: options.WeightsOption = _DEFAULT.model.weights,
    adapter: options.AdapterOption = _DEFAULT.model.adapter,
    sharp: options.SharpOption = _DEFAULT.model.sharp,
    sharp_weights: options.SharpWeightsOption = _DEFAULT.model.sharp_weights,
    offline: options.OfflineOption = _DEFAULT.model.offline,
    device: options.DevicesOption = _DEFAULT.engine.device,
    engine: options.EngineOption = _ENGINE,
    dtype: options.DtypeOption = _DTYPE,
    tile: options.TileOption = options.AUTO_TILE,
    threads: options.ThreadsOption = _DEFAULT.engine.threads,
    max_memory: Annotated[
        int | None,
        option(
            SPEED,
            "Most memory to use on the host, such as 2GB; tiles get smaller to fit.",
            "--max-memory",
            parser=options.parse_memory,
            metavar="SIZE",
            show_default="free memory",
        ),
    ] = _DEFAULT.max_memory,
    max_pixels: options.MaxPixelsOption = _DEFAULT.read.max_pixels,
    ensemble: Annotated[
        bool, option(SPEED, "Average over 8 flips and rotations: a little better, 8 times slower.", "--ensemble")
    ] = _DEFAULT.engine.ensemble,
    wrap: Annotated[
        bool, option(FILES, "Continue pictures at the opposite edge, for textures that repeat.", "--wrap")
    ] = _DEFAULT.wrap,
    executor: Annotated[
        Executor,
        option(CLUSTER, "Where pictures are upscaled: in this process, or on a Ray cluster.", "--executor"),
    ] = _EXECUTOR,
    ray_address: Annotated[
        str | None,
        option(
            CLUSTER,
            "Address of the Ray cluster, auto or HOST:PORT.",
            "--ray-address",
            show_default="RAY_ADDRESS, else a cluster on this machine",
        ),
    ] = _CLUSTER.address,
    ray_workers: Annotated[
        int | None,
        option(
            CLUSTER,
            "Number of Ray workers.",
            "--ray-workers",
            show_default="as many as there is room for",
            **limits(ClusterOptions, "workers"),
        ),
    ] = _CLUSTER.workers,
    ray_cpus: Annotated[
        int, option(CLUSTER, "CPUs of each Ray worker.", "--ray-cpus", **limits(ClusterOptions, "cpus"))
    ] = _CLUSTER.cpus,
    ray_gpus: Annotated[
        float,
        option(
            CLUSTER,
            "GPUs of each Ray worker; 0.5 lets two workers share a GPU.",
            "--ray-gpus",
            **limits(ClusterOptions, "gpus"),
        ),
    ] = _CLUSTER.gpus,
    ray_timeout: Annotated[
        float,
        option(
            CLUSTER,
            "Seconds without a finished tile or picture after which a Ray worker is replaced.",
            "--ray-timeout",
            metavar="SECONDS",
            **limits(ClusterOptions, "timeout"),
        ),
    ] = _CLUSTER.timeout,
    metadata: Annotated[
        KeptMetadata,
        option(
            METADATA,
            "Metadata to keep: EXIF, XMP, IPTC and text, or none; the colour profile always stays.",
            "--metadata",
        ),
    ] = _METADATA,
    crop_preview: Annotated[
        str | None,
        option(
            REPORTING,
            "Upscale only a part of each picture, in pixels of the input, to try the settings.",
            "--crop-preview",
            parser=options.parse_part,
            metavar="X,Y,W,H",
        ),
    ] = None,
    compare_page: Annotated[
        bool,
        option(
            REPORTING,
            "Write a page for browsers with before and after, next to each of the first 3 results.",
            "--compare-page",
        ),
    ] = False,
    dry_run: Annotated[
        bool, option(REPORTING, "Show what would be done; write and download nothing.", "--dry-run")
    ] = False,
    json: options.JsonOption = False,
    quiet: Annotated[
        bool, option(REPORTING, "Show errors only, and the warnings of results that are kept.", "-q", "--quiet")
    ] = False,
    verbose: options.VerboseOption = False,
) -> None:
    """Upscale pictures. Finished pictures are skipped: the same command resumes an interrupted run."""
    box = options.box_of(fit) if fit else None
    asked = UpscaleOptions(
        model=options.model_options(model, weights, offline, adapter, sharp, sharp_weights),
        size=SizeOptions(scale, width, height, box, long_edge, short_edge, megapixels),
        engine=options.engine_options(device, dtype, tile, threads, ensemble, engine.value),
        save=SaveOptions(format, quality, compression, metadata.value, strict),
        batch=BatchOptions(output, name, recursive, overwrite, fail_fast, _parse_shard(shard)),
        read=ReadOptions(max_pixels, salvage),
        max_memory=max_memory,
        wrap=wrap,
        measure=verbose,
    )
    cluster = _cluster_of(executor, ClusterOptions(ray_address, ray_workers, ray_cpus, ray_gpus, ray_timeout))
    _check_modes(
        {"--dry-run": dry_run, "--crop-preview": bool(crop_preview), "--watch": watch, "--compare-page": compare_page},
        cluster,
    )
    _check(asked, inputs, json and not dry_run, dry_run)
    if compare_page:
        _check_places_of_pages((*inputs, *([output] if output else [])))
    # The Hub's client shows progress bars of its own, and reads the setting when imported.
    if quiet:
        console.hide_download_bars()
    if dry_run:
        from dsclora_cli.cli.views.upscale_plans import show_plans
        from dsclora_cli.upscaling.dry_run import plan_files

        raise typer.Exit(show_plans(plan_files(inputs, asked), json))
    # Imported here, as NumPy and the image libraries would slow down `--help`.
    from dsclora_cli.cli.views.upscale_progress import UpscaleView

    # Closed before the view: after Ctrl-C, threads end before the summary is shown.
    with (
        UpscaleView(json, quiet, verbose, endless=watch) as view,
        closing(_start(inputs, asked, view, crop_preview, watch, cluster)) as results,
    ):
        view.show_all(results)
    if compare_page:
        for result in view.done:
            _write_page(result, asked, view)
    raise typer.Exit(view.exit_code)


def _start(
    inputs: list[str],
    asked: UpscaleOptions,
    view: UpscaleView,
    crop_preview: str | None,
    watch: bool,
    cluster: ClusterOptions | None,
) -> Generator[FileResult, None, None]:
    """Return the results of a preview, of a watch or of a run, to be read one by one."""
    if cluster:
        from dsclora_cli.cluster.run import upscale_on_cluster

        return upscale_on_cluster(inputs, asked, cluster, view)
    if crop_preview:
        from dsclora_cli.upscaling.preview import preview_files

        return preview_files(inputs, asked, options.part_of(crop_preview), view)
    if watch:
        from threading import Event

        from dsclora_cli.upscaling.watch import watch_files

        return watch_files(inputs, asked, view, Event())
    from dsclora_cli.upscaling.batch import upscale_files

    return upscale_files(inputs, asked, view)


def _write_page(result: FileResult, asked: UpscaleOptions, view: UpscaleView) -> None:
    """Write the page of a finished picture next to the result; a page that cannot be written is a note."""
    from dsclora_cli.evaluation.compare import compare
    from dsclora_cli.evaluation.compare_page import write_page
    from dsclora_cli.imaging.resize import BICUBIC

    written = Path(str(result.output))
    page = written.with_name(f"{written.stem}-compare.html")
    if is_taken(page) and not asked.batch.overwrite:
        view.on_note(f"{page} exists already and is kept; --overwrite replaces the page")
        return
    scale = result.scale or DEFAULT_SCALE
    compared = CompareOptions((BICUBIC, str(written)), scale, engine=asked.engine, read=asked.read)
    try:
        write_page(page, *compare(Path(result.input), compared, Callbacks()))
    except (DscloraError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        view.on_note(f"{page} is not written: {reason}")
    else:
        view.on_note(f"before and after: {page}")


def _cluster_of(executor: Executor, cluster: ClusterOptions) -> ClusterOptions | None:
    """Return the options of the cluster; None for a run on this machine. Raises UsageError for options without use."""
    if executor is Executor.RAY:
        return cluster
    if cluster != _CLUSTER:
        raise UsageError("the options that begin with --ray- need a cluster", "add --executor ray")
    return None


def _check_modes(asked: dict[str, bool], cluster: ClusterOptions | None) -> None:
    """Raise UsageError for options of which each changes what the whole command does."""
    names = [name for name, is_asked in asked.items() if is_asked]
    # A dry run lists and plans on this machine, wherever the work will be done.
    if cluster and names and names != ["--dry-run"]:
        raise UsageError(f"{names[0]} and --executor ray cannot be combined", "leave one of them out")
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} cannot be combined", "choose one of them")


def _check_places_of_pages(places: tuple[str, ...]) -> None:
    """Raise UsageError for inputs and an output to which no page can be written: a page names both by their paths."""
    if any(map(is_url, places)):
        raise UsageError("--compare-page takes pictures of this machine, and no URLs", "leave --compare-page out")
    if "-" in places:
        raise UsageError("--compare-page takes files, and neither stdin nor stdout (-)", "leave --compare-page out")


def _parse_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    from dsclora_cli.upscaling.shards import parse_shard

    return parse_shard(text)


def _check(asked: UpscaleOptions, inputs: list[str], json: bool, dry_run: bool) -> None:
    """Raise UsageError for options that are wrong whatever the pictures are, before anything slow is loaded."""
    from dsclora_cli.upscaling.sizes import check_size

    check_size(asked.size)
    output = asked.batch.output
    # Standard input goes to standard output unless -o names a file.
    if output == "-" or (output is None and "-" in inputs):
        console.check_stdout("picture", json, not dry_run, "add > picture.png")
