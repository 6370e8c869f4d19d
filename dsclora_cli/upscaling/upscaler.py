"""Python API: an object for upscaling files, Pillow images and arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from dsclora_cli.checked import check_argument
from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.arrays import InMemory, to_pixels
from dsclora_cli.imaging.types import Frame
from dsclora_cli.storage.places import Place, RemotePlace, parse_place
from dsclora_cli.upscaling.batch import upscale_files
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.picture import PictureUpscaler
from dsclora_cli.upscaling.sizes import check_size

_DEFAULTS = UpscaleOptions()


class Upscaler:
    """Upscaler for files, Pillow images and arrays; loads the model once.

        upscaler = Upscaler(scale=4)
        upscaler("photo.jpg")            # writes photo_x4.jpg next to the input and returns the path
        upscaler(Image.open("a.png"))    # returns a Pillow image
        upscaler(array)                  # (H, W) or (H, W, 1 to 4), uint8, uint16 or float in [0, 1]

    What the command line shows as a note or a warning is a `UserWarning` here.

    Args:
        model: catalog name, or `auto`.
        device: auto, cpu, cuda, cuda:N or mps.
        scale: factor above 1.
        weights: file to use instead of a catalog name.
        adapter: adapter file to merge into the weights.
        options: all other options of `dsclora upscale`; the arguments above have precedence.

    Raises:
        UsageError: a missing device, or contradicting options.
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
        self.options = replace(
            options,
            model=replace(options.model, **given),
            engine=options.engine if device == _DEFAULTS.engine.device else replace(options.engine, device=device),
            size=options.size if scale is None else replace(_DEFAULTS.size, scale=scale),
        )
        check_size(self.options.size)
        self._upscaler = PictureUpscaler(self.options)
        self._planner = JobPlanner.for_arrays(self.options)

    @overload
    def __call__(self, picture: Place | str, output: Place | str | None = None) -> Place: ...

    @overload
    def __call__(self, picture: InMemory) -> InMemory: ...

    def __call__(self, picture: Place | str | InMemory, output: Place | str | None = None) -> Place | InMemory:
        """Upscale one picture.

        Args:
            picture: path or URL of a file, Pillow image, or array `(H, W)` or `(H, W, 1 to 4)` in uint8, uint16 or
                float.
            output: file or folder, also as a URL, for the result of a file; next to the input by default.

        Returns:
            The path of the written file for a file, or a `RemotePlace` where the file lies at a URL; else an image or
            an array of the same kind.

        Raises:
            ImageError: the picture cannot be read or written, or the output exists already with other settings and
                `options.batch.overwrite` is not set.
            WeightsError: weights cannot be read or downloaded.
        """
        if isinstance(picture, (str, Path, RemotePlace)):
            place, warned = self._upscale_file(_text_of(picture), output)
            _warn(f"{picture}: {warning}" for warning in warned)
            return place
        pixels, back = to_pixels(picture)
        job = self._planner.plan_array(pixels)
        sentences = list(job.notes)
        plan = self._upscaler.plan(job, streamed=False)
        upscaled = self._upscaler.upscale(Frame(pixels), plan, on_warning=sentences.append).pixels
        _warn(sentences)
        return back(upscaled)

    def _upscale_file(self, path: str, output: Place | str | None) -> tuple[Place, tuple[str, ...]]:
        """Return the place of the result, and the warnings about the picture."""
        batch = replace(self.options.batch, output=None if output is None else _text_of(output))
        (result,) = upscale_files([path], replace(self.options, batch=batch), upscaler=self._upscaler)
        if result.status == "kept":
            raise ImageError(
                f"{result.output} already exists with other settings", "choose another output, or set batch.overwrite"
            )
        if result.error is not None:
            raise ImageError(result.error.message, result.error.hint)
        if result.output is None:
            raise ImageError(f"{result.input}: {'; '.join(result.warnings)}")
        return parse_place(result.output), result.warnings


def _warn(sentences: Iterable[str]) -> None:
    """Give sentences to Python's warnings, in the name of the line that called the upscaler."""
    for sentence in sentences:
        warnings.warn(sentence, stacklevel=3)


def _text_of(place: Place | str) -> str:
    return place.url if isinstance(place, RemotePlace) else str(place)
