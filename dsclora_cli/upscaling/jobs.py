"""Plan a picture: size, weights of every pass, header and name of the result; find existing results. No torch.

`picture.py` adds the tile size and the memory, because both need the engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dsclora_cli.config import BatchOptions, ModelOptions, SaveOptions, UpscaleOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.metadata import with_size
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Header, Pixels
from dsclora_cli.imaging.writer import fit_format
from dsclora_cli.paths import sha256_of
from dsclora_cli.storage.objects import find_version
from dsclora_cli.storage.places import Place, RemotePlace
from dsclora_cli.upscaling.manifest import ResultKey, ResultOwners, is_recorded, result_state, source_key
from dsclora_cli.upscaling.output_names import STDOUT, OutputNamer
from dsclora_cli.upscaling.sizes import SizePlan, fixed_factor, plan_size
from dsclora_cli.upscaling.types import FileResult, FileStatus, FoundInputs, InputFile, path_key
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.resolve import FoundWeights, find_weights, native_scales, select_model, settle_model

WeightsFinder = Callable[[ModelOptions, int], FoundWeights]
"""Return the weights for a native scale, as `weights.resolve.find_weights` does."""


@dataclass(frozen=True)
class Job:
    """Plan of a picture, complete but for tiles and memory."""

    file: InputFile
    source: Header
    """Header of the input."""
    result: Header
    """Header of the result: the new size, metadata with the new size, and only what the format can hold."""
    size: SizePlan
    weights: tuple[FoundWeights, ...]
    """Weights of every pass in `size.passes`."""
    model: str
    """Names of the weights, without duplicates, joined with "+"."""
    choice: str | None
    """Property of the picture that made `auto` choose the weights of the first pass."""
    target: Place | None
    """File to write; None for standard output."""
    key: ResultKey
    warnings: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return why `auto` could not get its first choice, without duplicates; empty where it could."""
        return tuple(dict.fromkeys(weights.note for weights in self.weights if weights.note))

    @property
    def source_facts(self) -> dict[str, object] | None:
        """Return what the record says of the input, as JSON values: more of an object at a URL; None for a stream."""
        key = source_key(self.file)
        if self.file.version is None:
            return {"key": key} if key else None
        header = self.source
        return {
            "key": key,
            "version": self.file.version,
            "header": {
                "format": header.format,
                "width": header.width,
                "height": header.height,
                "channels": header.channels,
                "dtype": header.dtype.name,
                "lossy_quality": header.lossy_quality,
            },
            "frames": self.result.frames,
            "warnings": self.warnings,
        }

    def report(self, status: FileStatus, *warnings: str) -> FileResult:
        """Return a FileResult with all values known before a network runs."""
        return FileResult(
            input=self.file.name,
            status=status,
            output=STDOUT if self.target is None else str(self.target),
            input_size=(self.source.width, self.source.height),
            output_size=(self.size.width, self.size.height),
            frames=self.result.frames,
            scale=self.size.factor,
            model=self.model,
            choice=self.choice,
            weights_sha256=self.key.weights_sha256,
            warnings=(*self.warnings, *warnings),
        )


class JobPlanner:
    """Planner for the pictures of a run. Pictures must be planned in input order, never by two threads at a time.

    Args:
        found: the inputs; no result may overwrite an input.
        options: all options of the run.
        find: finds weights; called once per native scale.

    Raises:
        UsageError: contradicting options, or options in conflict with the inputs.
        WeightsError: a weights file holds no network.
    """

    def __init__(self, found: FoundInputs, options: UpscaleOptions, find: WeightsFinder = find_weights) -> None:
        self._options = options = replace(options, model=settle_model(options.model))
        self._find = find
        self._native = native_scales(options.model)
        self._photo = load_catalog().photo
        self._owners = ResultOwners(found, options.batch.overwrite)
        self._namer = OutputNamer(found, options, self._owners.owner)
        self._found: dict[tuple[ModelOptions, int], FoundWeights] = {}
        self._by_name = found.by_name

    @classmethod
    def for_arrays(cls, options: UpscaleOptions) -> JobPlanner:
        """Return a planner for pictures in memory; options for names and formats of files are ignored."""
        return cls(FoundInputs((), many=False), replace(options, batch=BatchOptions(), save=SaveOptions()))

    def plan_array(self, pixels: Pixels) -> Job:
        """Plan a picture in memory, `(H, W, 1 to 4)`, of any dtype. Raises as `plan` does."""
        height, width, channels = pixels.shape
        return self.plan_in_memory(Header("PNG", width, height, channels, pixels.dtype))

    def plan_in_memory(self, header: Header) -> Job:
        """Plan a picture in memory from the header alone: no file is hashed or named. Raises as `plan` does."""
        return self.plan(InputFile(b"", "array"), header)

    def find_done(self, file: InputFile) -> FileResult | None:
        """Return the result of an object at a URL that was upscaled before, without reading the object.

        The record of the result holds the version and the header of the input. None where anything is in doubt: the
        object is then read, as any other input. Raises UsageError and WeightsError as `plan` does.
        """
        self._owners.forget()
        if not isinstance(file.source, RemotePlace) or self._options.batch.overwrite:
            return None
        target = self._namer.guess(file, fixed_factor(self._options.size))
        record = self._owners.read(target) if target is not None else {}
        known = _known_source(record)
        # The record does not tell which warnings are losses.
        if known is None or (known.warnings and self._options.save.strict):
            return None
        if find_version(file.source) != known.version:
            return None
        try:
            job = self.plan(replace(file, version=known.version), known.header, known.sha256)
        except ImageError:
            return None
        existing = self.existing_result(job, record) if job.target == target else None
        if existing is not None and existing.status == "skipped":
            return replace(existing, frames=known.frames, warnings=known.warnings)
        assert job.target is not None, "a result with a record is a file"
        self._namer.forget(job.target)
        return None

    def plan(self, file: InputFile, header: Header, sha256: str | None = None) -> Job:
        """Plan one picture from the header of the input; `sha256` is known of an input that is not read.

        Raises:
            AlreadyLargeEnough: the picture is already at the requested size, or larger.
            ImageError: the format cannot hold the result, or the factor is too large.
            UsageError: the result would replace the input, or no weights exist for a scale.
            WeightsError: weights cannot be read or downloaded.
        """
        save = self._options.save
        size = plan_size(header.width, header.height, self._options.size, self._native)
        format = self._namer.format or header.format
        metadata = with_size(header.metadata, size.width, size.height, (header.width, header.height))
        grown = replace(header, width=size.width, height=size.height, metadata=metadata)
        # Before the weights: a picture that the format cannot hold needs no download.
        result, losses = fit_format(grown, format, save.strict)
        # Only the first pass sees the artifacts of the input, so only the first pass may use the photo weights.
        saved = header.format, header.lossy_quality
        first, choice = select_model(self._options.model, saved, size.passes[0], self._photo)
        passes = [(self._options.model if index else first, scale) for index, scale in enumerate(size.passes)]
        for each in passes:
            if each not in self._found:
                # Once in a run: without internet, asking the Hub takes seconds.
                self._found[each] = self._find(*each)
        found = [self._found[each] for each in dict.fromkeys(passes)]
        model = "+".join(weights.name for weights in found)
        sha256 = sha256 or _sha256_of_input(file)
        target = self._namer.target(file, size, model, format, sha256)
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
        if self._options.wrap:  # absent otherwise, so that records of earlier runs stay valid
            settings["wrap"] = True
        return Job(
            file=replace(file, content=None),
            source=header,
            result=result,
            size=size,
            weights=tuple(self._found[each] for each in passes),
            model=model,
            choice=choice,
            target=target.path,
            key=ResultKey(sha256, "+".join(weights.sha256 for weights in found), settings),
            warnings=(*header.notes, *losses, *((target.note,) if target.note else ())),
        )

    def existing_result(self, job: Job, record: Mapping[str, Any] | None = None) -> FileResult | None:
        """Return the result where the target of the job exists already; None where the picture must be upscaled.

        `record` is the record of the result, where the caller has read the record already.
        """
        if job.target is None:
            return None
        if self._options.batch.overwrite:
            return self._keep_other_picture(job)
        state = result_state(job.target, job.key, record)
        if state == "complete":
            return job.report("skipped")
        if state == "different":
            reason = "not the result of this picture with these settings; --overwrite replaces the file"
            return job.report("kept", f"{job.target} is kept: {reason}")
        return None

    def _keep_other_picture(self, job: Job) -> FileResult | None:
        """Return a report where the target was seen as an input, and only its name says that it is a result.

        Results of other machines have no record here, and `--overwrite` replaces them; their size tells them apart
        from a picture of the user's that happens to have the name of a result.
        """
        target = job.target
        if not isinstance(target, Path) or path_key(target) not in self._by_name or is_recorded(target):
            return None
        size = _size_of(target)
        if size == (job.result.width, job.result.height):
            return None
        fault = f"not a result of {job.file.name}, by its size" if size else "a file that cannot be read"
        reason = f"{fault}; remove the file, or choose another --name or -o"
        return job.report("kept", f"{target} is kept: {reason}")


def _size_of(path: Path) -> tuple[int, int] | None:
    """Return width and height of a picture; None for a file that cannot be read."""
    try:
        with open_picture(path) as reader:
            return reader.header.width, reader.header.height
    except ImageError:
        return None


def _sha256_of_input(file: InputFile) -> str:
    content = file.source if file.content is None else file.content
    assert not isinstance(content, RemotePlace), "pictures at URLs are copied before the plan is made"
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)


@dataclass(frozen=True)
class _KnownSource:
    """Input at a URL, as the record of the result describes the input."""

    version: str
    header: Header
    """Without metadata."""
    sha256: str
    frames: int
    """Frames of the result."""
    warnings: tuple[str, ...]


def _known_source(record: Mapping[str, Any]) -> _KnownSource | None:
    """Return the input of a record; None where the record does not describe the input."""
    try:
        source, header = record["source"], dict(record["source"]["header"])
        if not all(isinstance(header[name], int) for name in ("width", "height", "channels")):
            return None
        header["dtype"] = np.dtype(header["dtype"])
        sha256, warnings = str(record["recipe"]["input_sha256"]), tuple(map(str, source["warnings"]))
        return _KnownSource(str(source["version"]), Header(**header), sha256, int(source["frames"]), warnings)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
