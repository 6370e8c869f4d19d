"""From an input to a job: what is made of it, under which name, and whether that is there already. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from dsclora_cli.config import ModelOptions, UpscaleOptions
from dsclora_cli.imaging.types import Header
from dsclora_cli.imaging.writer import can_stream, fit_format
from dsclora_cli.paths import sha256_of
from dsclora_cli.upscaling.manifest import ResultKey, result_state
from dsclora_cli.upscaling.output_names import STDOUT, OutputNamer
from dsclora_cli.upscaling.sizes import SizePlan, plan_size
from dsclora_cli.upscaling.types import FileResult, FileStatus, FoundInputs, InputFile
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.resolve import FoundWeights, chain_identity, find_weights, native_scales, select_model

WeightsFinder = Callable[[ModelOptions, int], FoundWeights]
"""Gives the weights for a native scale, as `weights.resolve.find_weights` does."""


@dataclass(frozen=True)
class Job:
    """One picture to upscale.

    `header` is the input's; `format` and `frames` are the result's. `target` is None for standard output. `choice`
    is what about the picture made `auto` take these weights.
    """

    source: InputFile
    header: Header
    size: SizePlan
    format: str
    frames: int
    target: Path | None
    model: str
    recipe: ResultKey
    warnings: tuple[str, ...]
    choice: str | None = None

    @property
    def banded(self) -> bool:
        """Whether the result is written as its bands come."""
        return can_stream(replace(self.header, format=self.format))

    def result(self, state: FileStatus, *warnings: str) -> FileResult:
        """What is known before any network runs."""
        return FileResult(
            input=self.source.name,
            status=state,
            output=STDOUT if self.target is None else str(self.target),
            input_size=(self.header.width, self.header.height),
            output_size=(self.size.width, self.size.height),
            frames=self.frames,
            scale=self.size.factor,
            model=self.model,
            choice=self.choice,
            weights_sha256=self.recipe.weights_sha256,
            warnings=(*self.warnings, *warnings),
        )


class JobPlanner:
    """Turns the inputs of one run into jobs, in order; weights may be asked for by several threads at once.

    Raises UsageError and WeightsError as `find` does.
    """

    def __init__(self, found: FoundInputs, options: UpscaleOptions, find: WeightsFinder = find_weights) -> None:
        self._options = options
        self._find_weights = find
        self._native = native_scales(options.model)
        self._photo = load_catalog().photo
        self._namer = OutputNamer(found, options)
        self._weights: dict[tuple[ModelOptions, int], FoundWeights] = {}
        self._lock = Lock()

    def job(self, source: InputFile, header: Header) -> Job:
        """Plan one picture. Raises AlreadyLargeEnough, ImageError, UsageError and WeightsError."""
        save = self._options.save
        size = plan_size(header.width, header.height, self._options.size, self._native)
        format = self._namer.format(header.format)
        fitted, losses = fit_format(replace(header, width=size.width, height=size.height), format, save.strict)
        first, choice = select_model(self._options.model, header.jpeg_quality, size.passes[0], self._photo)
        model, sha256 = chain_identity(self.weights(*each) for each in chain(size.passes, first, self._options.model))
        target = self._namer.target(source, size, model, format)
        settings = {
            "size": (size.width, size.height),
            "passes": size.passes,
            "ensemble": self._options.engine.ensemble,
            "dtype": self._options.engine.dtype,
            "format": format,
            "quality": save.quality,
            "compression": save.compression,
            "metadata": save.metadata,
        }
        recipe = ResultKey(_sha256(source.source), sha256, settings)
        notes = (*header.notes, *losses, *((target.note,) if target.note else ()))
        return Job(source, header, size, format, fitted.frames, target.path, model, recipe, notes, choice)

    def settled(self, job: Job) -> FileResult | None:
        """The result where there is nothing to do for this job, as its file is there."""
        if job.target is None or self._options.batch.overwrite:
            return None
        state = result_state(job.target, job.recipe)
        if state == "complete":
            return job.result("skipped")
        if state == "different":
            return job.result("kept", f"{job.target} is kept: it was not made like this; --overwrite replaces it")
        return None

    def weights(self, options: ModelOptions, scale: int) -> FoundWeights:
        """The weights for a native scale, looked for only once in a run: without a network that takes seconds."""
        with self._lock:
            if (options, scale) not in self._weights:
                self._weights[options, scale] = self._find_weights(options, scale)
            return self._weights[options, scale]


def chain(passes: tuple[int, ...], first: ModelOptions, later: ModelOptions) -> tuple[tuple[ModelOptions, int], ...]:
    """The options and native scale of each pass, each named once: only the first sees the picture as it came."""
    return tuple(dict.fromkeys((first if index == 0 else later, scale) for index, scale in enumerate(passes)))


def _sha256(source: Path | bytes) -> str:
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else sha256_of(source)
