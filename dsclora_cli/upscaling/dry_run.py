"""What `upscale_files` would do, found out without writing or fetching anything."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from dsclora_cli.config import ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import ErrorInfo, WeightsError
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Frame, Header
from dsclora_cli.upscaling.engines import list_devices
from dsclora_cli.upscaling.inputs import find_inputs
from dsclora_cli.upscaling.jobs import Job, JobPlanner
from dsclora_cli.upscaling.pipeline import FILE_ERRORS, described
from dsclora_cli.upscaling.sizes import AlreadyLargeEnough, SizePlan
from dsclora_cli.upscaling.types import InputFile
from dsclora_cli.weights.resolve import FoundWeights, find_weights

if TYPE_CHECKING:
    from dsclora_cli.upscaling.picture import PictureUpscaler

_PROBE = 96
"""Edge of the picture that is timed, in pixels: under a second on a slow core."""


@dataclass(frozen=True)
class PlannedFile:
    """What would become of one input.

    `action` is upscale, skip, keep or fail; sizes are (width, height) in pixels. `model` and `choice` are as in
    `FileResult`. `tiles` counts the network runs of a frame. `memory_bytes` is the peak for the pixels and one tile,
    `seconds` the network's time as a small tile was timed, and `disk_bytes` the result's size, on the high side. What
    cannot be known without the weights is None.
    """

    input: str
    action: Literal["upscale", "skip", "keep", "fail"]
    output: str | None = None
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    frames: int = 1
    passes: tuple[int, ...] = ()
    model: str | None = None
    choice: str | None = None
    tile: int | None = None
    tiles: int | None = None
    memory_bytes: int | None = None
    seconds: float | None = None
    disk_bytes: int | None = None
    notes: tuple[str, ...] = ()
    error: ErrorInfo | None = None


def plan_files(inputs: Iterable[str | os.PathLike[str]], options: UpscaleOptions) -> Iterator[PlannedFile]:
    """Plan every input, in order. Raises UsageError as `upscale_files` does, and WeightsError for a broken file."""
    return _DryRun(inputs, options).plans()


class _DryRun:
    def __init__(self, inputs: Iterable[str | os.PathLike[str]], options: UpscaleOptions) -> None:
        self._options = replace(options, model=replace(options.model, offline=True))
        self._found = find_inputs(inputs, options.batch)
        self._planner = JobPlanner(self._found, self._options, _weights_on_disk)

    def plans(self) -> Iterator[PlannedFile]:
        for source in self._found.inputs:
            try:
                yield self._plan(source)
            except AlreadyLargeEnough as error:
                yield PlannedFile(source.name, "skip", notes=(error.message,))
            except FILE_ERRORS as error:
                yield PlannedFile(source.name, "fail", error=described(error))

    def _plan(self, source: InputFile) -> PlannedFile:
        if source.problem:
            raise source.problem
        with open_picture(source.source) as picture:
            job = self._planner.job(source, picture.header)
        known = job.result("done")
        planned = PlannedFile(
            input=known.input,
            action="upscale",
            output=known.output,
            input_size=known.input_size,
            output_size=known.output_size,
            frames=job.frames,
            passes=job.size.passes,
            model=known.model,
            choice=known.choice,
            notes=known.warnings,
        )
        settled = self._planner.settled(job)
        if settled is not None:
            return replace(planned, action="skip" if settled.status == "skipped" else "keep", notes=settled.warnings)
        return self._with_costs(planned, job)

    def _with_costs(self, planned: PlannedFile, job: Job) -> PlannedFile:
        planned = replace(planned, disk_bytes=_disk_bytes(job))
        try:
            plan = self._engine.plan(job.header, job.banded)
        except WeightsError:
            return replace(planned, notes=(*planned.notes, "the weights would be fetched first"))
        planes = 2 if job.header.channels in {2, 4} else 1
        pixels = _network_pixels(job.header, job.size) * planes * job.frames
        return replace(
            planned,
            tile=plan.tile,
            tiles=plan.tiles,
            memory_bytes=plan.memory_bytes,
            seconds=round(pixels * self._seconds_per_pixel, 1),
            notes=(*planned.notes, *plan.info.notes),
        )

    @cached_property
    def _engine(self) -> PictureUpscaler:
        from dsclora_cli.upscaling.picture import PictureUpscaler

        return PictureUpscaler(self._on_one_device)

    @cached_property
    def _on_one_device(self) -> UpscaleOptions:
        """The options for one of the devices that share the pictures."""
        engine = self._options.engine
        return replace(self._options, engine=replace(engine, device=list_devices(engine)[0]))

    @cached_property
    def _seconds_per_pixel(self) -> float:
        from dsclora_cli.upscaling.picture import PictureUpscaler

        options = self._on_one_device
        whole = replace(options.engine, tile=0)
        engine = PictureUpscaler(replace(options, size=SizeOptions(), engine=whole))
        header = Header("PNG", _PROBE, _PROBE, 3, np.dtype(np.uint8))
        plan = engine.plan(header)
        frame = Frame(np.random.default_rng(0).integers(0, 256, (_PROBE, _PROBE, 3), np.uint8))
        engine.frame(frame, plan, lambda share: None)  # the first run of a network is slower
        started = perf_counter()
        engine.frame(frame, plan, lambda share: None)
        return (perf_counter() - started) / _network_pixels(header, plan.size)


def _network_pixels(header: Header, size: SizePlan) -> int:
    """Pixels that go into the network, over all passes."""
    grown = (math.prod(size.passes[:index]) ** 2 for index in range(len(size.passes)))
    return header.width * header.height * sum(grown)


def _weights_on_disk(options: ModelOptions, scale: int) -> FoundWeights:
    try:
        return find_weights(options, scale)
    except WeightsError:
        if options.weights is not None:
            raise
        return FoundWeights(Path(), "", options.model, None)


def _disk_bytes(job: Job) -> int:
    """The input's bytes grown with its area where the format stays, else the pixels as they are."""
    header, source = job.header, job.source.source
    area = job.size.width * job.size.height
    raw = area * header.channels * header.dtype.itemsize * job.frames
    if job.format != header.format:
        return raw
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    return min(raw, size * area // (header.width * header.height))
