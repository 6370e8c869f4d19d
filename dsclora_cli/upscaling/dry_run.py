"""Find out what `upscale_files` would do, without writing or downloading anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from dsclora_cli.config import ModelOptions, SaveOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import ErrorInfo, ImageUnwritable, WeightsError
from dsclora_cli.imaging.types import Frame
from dsclora_cli.imaging.writer import can_stream
from dsclora_cli.paths import may_write_below
from dsclora_cli.upscaling.engines import list_devices
from dsclora_cli.upscaling.inputs import find_inputs, open_input
from dsclora_cli.upscaling.jobs import Job, JobPlanner
from dsclora_cli.upscaling.sizes import AlreadyLargeEnough
from dsclora_cli.upscaling.types import RUN_ERRORS, Argument, InputFile, describe_error
from dsclora_cli.weights.resolve import FoundWeights, find_weights

if TYPE_CHECKING:
    from dsclora_cli.upscaling.picture import PictureUpscaler

_PROBE = 96
"""Edge of the picture that is timed, in pixels: under a second on a slow core."""

_LEAST_LOSSLESS, _LEAST_LOSSY = 0.8, 0.125
"""Least share of the raw pixels that a result takes on the disk, at the default quality."""


@dataclass(frozen=True)
class PlannedFile:
    """Plan for an input. Values from the network are None where the weights would be downloaded first."""

    input: str
    """Name of the input, as given by the user."""
    action: Literal["upscale", "skip", "keep", "fail", "leave-out"]
    """skip: the result exists already or the picture is large enough; keep: another file has the name of the result;
    leave-out: no input of the run, `notes` has the reason."""
    output: str | None = None
    """File that would be written, "-" for standard output, None for no file."""
    input_size: tuple[int, int] | None = None
    """(width, height) in pixels."""
    output_size: tuple[int, int] | None = None
    """(width, height) in pixels."""
    frames: int = 1
    """Number of frames or pages of the result; 1 for a still picture."""
    passes: tuple[int, ...] = ()
    """Native scales, run one after the other."""
    model: str | None = None
    """Catalog name, or stem of the weights file; names joined with "+" where passes use several models."""
    choice: str | None = None
    """Property of the picture that made `auto` choose the model."""
    tile: int | None = None
    """Edge of a tile in input pixels, 0 for the whole picture."""
    tiles: int | None = None
    """Network runs for one frame."""
    memory_bytes: int | None = None
    """Peak memory of the host, on the high side."""
    seconds: float | None = None
    """Time in the network, from the time of one small tile."""
    disk_bytes: int | None = None
    """Size of the result, on the high side."""
    notes: tuple[str, ...] = ()
    """Warnings about the result; the reason, where the action is skip, keep or leave-out."""
    error: ErrorInfo | None = None
    """Reason why the picture would fail; None for any other action."""


def plan_files(inputs: Argument | Iterable[Argument], options: UpscaleOptions) -> Iterator[PlannedFile]:
    """Yield the plans of all inputs, in order.

    Raises:
        UsageError: as `upscale_files`.
        WeightsError: a weights file holds no network.
    """
    return _DryRun(inputs, options).plans()


class _DryRun:
    """A dry run; `offline` is on, so nothing is downloaded."""

    def __init__(self, inputs: Argument | Iterable[Argument], options: UpscaleOptions) -> None:
        # One of the devices that share the pictures stands for all.
        engine = replace(options.engine, device=list_devices(options.engine)[0])
        self._options = replace(options, model=replace(options.model, offline=True), engine=engine)
        self._found = find_inputs(inputs, options.batch)
        self._planner = JobPlanner(self._found, self._options, _weights_on_disk)

    def plans(self) -> Iterator[PlannedFile]:
        for left_out in self._found.left_out:
            yield PlannedFile(left_out.name, "leave-out", notes=(left_out.reason,))
        for file in self._found.inputs:
            try:
                yield self._plan(file)
            except AlreadyLargeEnough as error:
                yield PlannedFile(file.name, "skip", notes=(error.message,))
            except RUN_ERRORS:
                raise
            except Exception as error:  # noqa: BLE001 - whatever a picture raises ends the plan of that picture only
                yield PlannedFile(file.name, "fail", error=describe_error(error))

    def _plan(self, file: InputFile) -> PlannedFile:
        if file.problem:
            raise file.problem
        with ExitStack() as opened:
            copied, reader = open_input(file, self._options.read, not self._options.wrap, opened)
            job = self._planner.plan(copied, reader.header)
            size = _size_of(copied)
        known = job.report("done")
        planned = PlannedFile(
            input=known.input,
            action="upscale",
            output=known.output,
            input_size=known.input_size,
            output_size=known.output_size,
            frames=known.frames,
            passes=job.size.passes,
            model=known.model,
            choice=known.choice,
            notes=known.warnings,
        )
        existing = self._planner.existing_result(job)
        if existing is not None:
            return replace(planned, action="skip" if existing.status == "skipped" else "keep", notes=existing.warnings)
        if isinstance(job.target, Path) and not may_write_below(job.target.parent):
            raise ImageUnwritable(f"{job.target}: cannot be written", "choose a folder that can be written with -o")
        planned = replace(planned, disk_bytes=_disk_bytes(job, size, self._options.save.quality))
        if not all(weights.sha256 for weights in job.weights):
            return replace(planned, notes=(*planned.notes, "the weights would be downloaded first"))
        return self._with_costs(planned, job)

    def _with_costs(self, planned: PlannedFile, job: Job) -> PlannedFile:
        plan = self._upscaler.plan(job, can_stream(job.result))
        # Alpha passes the network as well.
        planes = 2 if job.source.channels in {2, 4} else 1
        pixels = _network_pixels(job) * planes * job.result.frames
        return replace(
            planned,
            tile=plan.tile,
            tiles=plan.tiles,
            memory_bytes=plan.memory_bytes,
            seconds=round(pixels * self._seconds_per_pixel, 1),
            notes=(*planned.notes, *job.notes),
        )

    @cached_property
    def _upscaler(self) -> PictureUpscaler:
        from dsclora_cli.upscaling.picture import PictureUpscaler

        return PictureUpscaler(self._options)

    @cached_property
    def _seconds_per_pixel(self) -> float:
        """Return the seconds per LR pixel of a pass, measured with one tile."""
        from dsclora_cli.upscaling.picture import PictureUpscaler

        # The default size and no limit: --width or --max-memory could refuse the small probe.
        engine = replace(self._options.engine, tile=0)
        options = replace(self._options, size=SizeOptions(), engine=engine, max_memory=None)
        upscaler = PictureUpscaler(options)
        frame = Frame(np.random.default_rng(0).integers(0, 256, (_PROBE, _PROBE, 3), np.uint8))
        plan = upscaler.plan(JobPlanner.for_arrays(options).plan_array(frame.pixels), streamed=False)
        _ = upscaler.upscale(frame, plan).pixels  # the first run of a network is slower
        started = perf_counter()
        _ = upscaler.upscale(frame, plan).pixels
        return (perf_counter() - started) / _network_pixels(plan.job)


def _network_pixels(job: Job) -> int:
    """Return the number of pixels going into the network, over all passes of a frame."""
    return sum(rows * columns for rows, columns, _ in job.size.lr_sides(job.source.height, job.source.width))


def _weights_on_disk(options: ModelOptions, scale: int) -> FoundWeights:
    """Return the weights, or a stand-in with an empty sha256 where the weights would be downloaded."""
    try:
        return find_weights(options, scale)
    except WeightsError:
        if options.weights is not None:
            raise
        return FoundWeights(Path(), "", options.model, None)


def _size_of(file: InputFile) -> int:
    content = file.source if file.content is None else file.content
    return len(content) if isinstance(content, bytes) else Path(str(content)).stat().st_size


def _disk_bytes(job: Job, size: int, quality: int) -> int:
    """Return about the most bytes of a result: the input grown with the area where the format stays, else raw pixels.

    A palette, few bits in a pixel or a low quality make an input small, and not the result, so there is a least share
    of the raw pixels.
    """
    header = job.source
    area = job.size.width * job.size.height
    raw = area * header.channels * header.dtype.itemsize * job.result.frames
    if job.result.format != header.format:
        return raw
    share = _LEAST_LOSSLESS if header.lossy_quality is None or quality > SaveOptions.quality else _LEAST_LOSSY
    # At most the raw pixels: an encoder that cannot compress stores the pixels as they are.
    return min(raw, max(round(raw * share), size * area // (header.width * header.height)))
