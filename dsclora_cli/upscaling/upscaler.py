"""Python API: an object for upscaling files, Pillow images and arrays."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, overload

from dsclora_cli.checked import check_argument
from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import DscloraError, ImageError, UsageError, error_of
from dsclora_cli.imaging.arrays import InMemory, to_pixels
from dsclora_cli.imaging.types import Frame
from dsclora_cli.storage.places import Place, parse_place, place_text
from dsclora_cli.upscaling.batch import BatchRun
from dsclora_cli.upscaling.inputs import find_inputs
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.upscaling.sizes import check_size
from dsclora_cli.upscaling.types import PATHS, Argument, InputFile, UpscaleCallbacks

_DEFAULTS = UpscaleOptions()


class Upscaler:
    """Upscaler for files, Pillow images and arrays; loads the model once.

        upscaler = Upscaler(scale=4)
        upscaler("photo.jpg")            # writes photo_x4.jpg next to the input and returns the path
        upscaler(Image.open("a.png"))    # returns a Pillow image
        upscaler(array)                  # (H, W) or (H, W, 1 to 4), uint8, uint16 or float in [0, 1]

    What the command line shows as a note or a warning is a `UserWarning` here.

    Args:
        model: catalog name, file of weights, or `auto`.
        device: auto, cpu, cuda, cuda:N or mps.
        scale: factor above 1.
        weights: file to use instead of a catalog name.
        adapter: adapter file to merge into the weights.
        options: all other options of `dsclora upscale`; the arguments above have precedence. `options.batch.output` is
            where results of files go. A shard is refused, because there is one picture at a time.

    Raises:
        UsageError: a missing device, or options that are wrong or contradict each other.
        WeightsError: a weights file holds no network.
    """

    def __init__(
        self,
        model: str = _DEFAULTS.model.model,
        device: str = _DEFAULTS.engine.device,
        *,
        scale: float | None = None,
        weights: Place | str | None = None,
        adapter: Path | str | None = None,
        options: UpscaleOptions = _DEFAULTS,
    ) -> None:
        # An argument with the default value counts as not given: the options then have precedence.
        options = check_argument("options", options, UpscaleOptions)
        chosen = {"model": (model, _DEFAULTS.model.model), "weights": (weights, None), "adapter": (adapter, None)}
        given: dict[str, Any] = {name: value for name, (value, default) in chosen.items() if value != default}
        if options.batch.shard is not None:
            problem = f"options.batch.shard is {options.batch.shard}, and an Upscaler takes one picture at a time"
            raise UsageError(problem, "leave the shard out, or call upscale_files with the options")
        self.options = replace(
            options,
            model=replace(options.model, **given),
            engine=options.engine if device == _DEFAULTS.engine.device else replace(options.engine, device=device),
            size=options.size if scale is None else replace(_DEFAULTS.size, scale=scale),
        )
        with _in_words_of_python():
            check_size(self.options.size)
            self._upscaler = PictureUpscaler(self.options)
            self._planner = JobPlanner.for_arrays(self.options)

    @overload
    def __call__(self, picture: Argument, output: Argument | None = None) -> Place: ...

    @overload
    def __call__(self, picture: InMemory) -> InMemory: ...

    def __call__(self, picture: Argument | InMemory, output: Argument | None = None) -> Place | InMemory:
        """Upscale one picture.

        Args:
            picture: path or URL of a file, Pillow image, or array `(H, W)` or `(H, W, 1 to 4)` in uint8, uint16 or
                float.
            output: file or folder, also as a URL, for the result of a file; by default `options.batch.output`, and
                without one next to the input.

        Returns:
            The path of the written file for a file, or a `RemotePlace` where the file lies at a URL; else an image or
            an array of the same kind.

        Raises:
            UsageError: `picture` is none of these, is a folder or names several pictures, or has an `output` though the
                picture is in memory.
            ImageError: the picture cannot be read or written, or the output exists already, is not the result of this
                picture with these settings, and is not to be replaced by `options.batch.overwrite`.
            WeightsError: weights cannot be read or downloaded.
            OutOfMemory: the picture does not fit the memory.
            Unforeseen: a bug in dsclora ended the work on a file.
        """
        with _in_words_of_python():
            if isinstance(picture, PATHS):
                place, sentences = self._upscale_file(picture, output)
                _warn(sentences)
                return place
            if output is not None:
                hint = "save the picture that is returned, or give the path of a file"
                raise UsageError("a picture in memory has no output", hint)
            pixels, back = to_pixels(picture)
            job = self._planner.plan_array(pixels)
            sentences = list(job.notes)
            plan = self._upscaler.plan(job, streamed=False)
            upscaled = self._upscaler.upscale(Frame(pixels), plan, on_warning=sentences.append).pixels
            _warn(sentences)
            return back(upscaled)

    def _upscale_file(self, picture: Argument, output: Argument | None) -> tuple[Place, list[str]]:
        """Return the place of the result, and the warnings about the picture."""
        batch = self.options.batch if output is None else replace(self.options.batch, output=output)  # type: ignore[arg-type]
        found = find_inputs(picture, batch)
        if found.many or not found.inputs:  # before anything is written
            problem = f"{parse_place(place_text(picture))} is a folder, or names several pictures or none"
            raise UsageError(problem, "give an Upscaler the path of one picture; upscale_files takes folders")
        keeper = _BugKeeper()
        run = BatchRun(found, replace(self.options, batch=batch), keeper, self._upscaler)
        (result,) = (each for each in run.results() if each.status != "left-out")
        if result.status == "kept":
            # The warnings before the reason are about a picture that was not upscaled.
            raise ImageError(result.warnings[-1])
        if result.error is not None:
            raise error_of(result.error) from keeper.bug
        if result.output is None:
            raise ImageError(f"{result.input}: {'; '.join(result.warnings)}")
        return parse_place(result.output), [f"{result.input}: {warning}" for warning in result.warnings]


class _BugKeeper(UpscaleCallbacks):
    """Keeps the exception that nobody foresaw."""

    bug: Exception | None = None

    def on_bug(self, file: InputFile, error: Exception) -> None:  # noqa: ARG002 - as in the base class
        """Keep the exception."""
        self.bug = error


_ARGUMENTS = ("model", "weights", "adapter", "device", "scale")


def _python_names() -> Iterator[tuple[str, str]]:
    """Yield the options of the command line, each with the name of the option in Python."""
    for group in fields(_DEFAULTS):
        value = getattr(_DEFAULTS, group.name)
        names = [each.name for each in fields(value)] if is_dataclass(value) else [""]
        for name in names:
            path = ".".join(filter(None, ("options", group.name, name)))
            own = name or group.name
            yield f"--{own.replace('_', '-')}", own if own in _ARGUMENTS else path


_PYTHON_NAMES = {**dict(_python_names()), "-o": "output"}


@contextmanager
def _in_words_of_python() -> Iterator[None]:
    """Name options in errors as Python does: `--max-memory` is `options.max_memory`."""
    try:
        yield
    except DscloraError as error:
        error.message, error.hint = _translated(error.message), _translated(error.hint)
        raise


def _translated(text: str) -> str:
    return re.sub(r"(?:\bupscale )?(?<![\w-])(-o\b|--[a-z-]+)", lambda it: _PYTHON_NAMES.get(it[1], it[0]), text)


def _warn(sentences: Iterable[str]) -> None:
    """Give sentences to Python's warnings, in the name of the line that called the upscaler."""
    for sentence in sentences:
        warnings.warn(_translated(sentence), stacklevel=3)
