"""Previews: a part of each picture with all settings of a run, to look at before the run."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.types import Frame
from dsclora_cli.upscaling.faithfulness import measure_pixels
from dsclora_cli.upscaling.inputs import find_inputs, open_input
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.manifest import save_result
from dsclora_cli.upscaling.output_names import for_previews
from dsclora_cli.upscaling.part import Part, check_part, cut_part, upscale_part
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.upscaling.types import (
    RUN_ERRORS,
    Argument,
    FileResult,
    InputFile,
    StageSeconds,
    UpscaleCallbacks,
    check_stop,
    describe_error,
)


def preview_files(
    inputs: Argument | Iterable[Argument], options: UpscaleOptions, part: Part, callbacks: UpscaleCallbacks
) -> Generator[FileResult, None, None]:
    """Upscale the same part of every picture, and write each as a picture with `-preview` in the name.

    A name that the user gives with -o gets the ending too: the run after the preview would find its name taken.

    Of an animation or of pages the first frame is taken. Metadata about the whole picture is left out; the color
    profile stays.

    Args:
        inputs: Paths, globs and lists, as for `upscale_files`.
        options: All options of the run; the size is that of the whole picture.
        part: Part in pixels of the input.
        callbacks: Called in the iterating thread.

    Yields:
        A result for every file.

    Raises:
        UsageError: Contradicting options.
        WeightsError: Weights cannot be read or downloaded.
    """
    # Results of earlier previews are no inputs, and neither are results of earlier runs.
    found = find_inputs(inputs, options.batch)
    named = for_previews(options, found.many)
    check_stop(callbacks)
    callbacks.on_inputs(found)
    yield from (FileResult(each.name, "left-out", warnings=(each.reason,)) for each in found.left_out)
    planner = JobPlanner(found, named)
    # A part does not repeat, even if the picture does.
    upscaler = PictureUpscaler(replace(named, wrap=False))
    for file in found.inputs:
        check_stop(callbacks)
        try:
            yield _preview(file, planner, upscaler, named, part, callbacks)
        except RUN_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a picture raises, the other pictures are done
            callbacks.on_bug(file, error)
            yield FileResult(file.name, "failed", error=describe_error(error))


def _preview(
    file: InputFile,
    planner: JobPlanner,
    upscaler: PictureUpscaler,
    options: UpscaleOptions,
    part: Part,
    callbacks: UpscaleCallbacks,
) -> FileResult:
    if file.problem is not None:
        raise file.problem
    started = perf_counter()
    with ExitStack() as opened:
        copied, reader = open_input(file, options.read, False, opened)
        header = reader.header
        try:
            check_part(part, header, "--crop-preview")
        except UsageError as error:  # other pictures may be large enough
            raise ImageError(f"{file.name}: {error.message}", error.hint) from error
        pixels = next(iter(reader.frames())).pixels
        job = planner.plan(copied, header)
    decoded = perf_counter()
    # No thread of its own: Ctrl-C takes effect between two tiles, and never between the file and its result.
    upscaled, plan, notes = upscale_part(upscaler, job, pixels, part, options.wrap, lambda _: check_stop(callbacks))
    upscaled_at = perf_counter()
    faithfulness = measure_pixels(cut_part(pixels, part, 1), upscaled) if options.measure else None
    height, width = upscaled.shape[:2]
    result = replace(job.result, width=width, height=height, frames=1, animated=False)
    key = replace(job.key, settings={**job.key.settings, "part": part})
    job = replace(job, key=key, result=result)
    existing = planner.existing_result(job)
    if existing is None:
        # EXIF, resolution and places describe the whole picture.
        saving = replace(options.save, metadata="none")
        warnings = save_result(job.target, result, [Frame(upscaled)], saving, key, job.source_facts)
        existing = job.report("done", *notes, *warnings)
    return replace(
        existing,
        input_size=part[2:],
        output_size=(width, height),
        frames=1,
        device=plan.engine.device,
        dtype=plan.engine.dtype,
        engine=plan.engine.name,
        tile=plan.tile,
        faithfulness=faithfulness,
        seconds=StageSeconds(decoded - started, upscaled_at - decoded, perf_counter() - upscaled_at),
    )
