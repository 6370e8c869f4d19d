"""The Python API: one object that upscales whatever it is given and answers in kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import overload

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.arrays import InMemory, to_pixels
from dsclora_cli.imaging.types import Frame, Header
from dsclora_cli.upscaling.batch import FileResult, upscale_files
from dsclora_cli.upscaling.picture import PictureUpscaler

_DEFAULTS = UpscaleOptions()


class Upscaler:
    """Upscales files, Pillow images and arrays with one model, loaded once.

        upscaler = Upscaler(scale=4)
        upscaler("photo.jpg")            # writes photo_x4.jpg beside it and returns its path
        upscaler(Image.open("a.png"))    # a Pillow image
        upscaler(array)                  # (H, W) or (H, W, 1 to 4), uint8, uint16 or float in [0, 1]

    `model` is a catalogue name or `auto`, `weights` a file instead, `adapter` a file to merge in; `device` is auto,
    cpu, cuda, cuda:N or mps; `scale` a factor above 1. Everything else that `dsclora upscale` can be told goes in
    `options`, which these override. Raises UsageError for a device that is not there and WeightsError for weights that
    cannot be had.
    """

    def __init__(
        self,
        model: str = _DEFAULTS.model.model,
        device: str = _DEFAULTS.engine.device,
        *,
        scale: float | None = None,
        weights: Path | str | None = None,
        adapter: Path | str | None = None,
        options: UpscaleOptions = _DEFAULTS,
    ) -> None:
        chosen = replace(
            options.model,
            model=options.model.model if model == _DEFAULTS.model.model else model,
            weights=options.model.weights if weights is None else Path(weights),
            adapter=options.model.adapter if adapter is None else Path(adapter),
        )
        runs_on = options.engine.device if device == _DEFAULTS.engine.device else device
        self.options = replace(
            options,
            model=chosen,
            engine=replace(options.engine, device=runs_on),
            size=options.size if scale is None else replace(_DEFAULTS.size, scale=scale),
        )
        self._engine = PictureUpscaler(self.options)

    @overload
    def __call__(self, picture: Path | str, output: Path | str | None = None) -> Path: ...

    @overload
    def __call__(self, picture: InMemory) -> InMemory: ...

    def __call__(self, picture: Path | str | InMemory, output: Path | str | None = None) -> Path | InMemory:
        """Upscale one picture: a path to the path of the file written, an image or array to another.

        Raises ImageError for a picture that cannot be read or written, or whose output already exists and was made
        differently (set `options.batch.overwrite`).
        """
        if isinstance(picture, (str, Path)):
            return self._file(Path(picture), output)
        pixels, back = to_pixels(picture)
        height, width, channels = pixels.shape
        plan = self._engine.plan(Header("", width, height, channels, pixels.dtype))
        frame, _ = self._engine.frame(Frame(pixels), plan, lambda share: None)
        return back(frame.pixels)

    def _file(self, path: Path, output: Path | str | None) -> Path:
        batch = replace(self.options.batch, output=None if output is None else str(output))
        results = upscale_files([str(path)], replace(self.options, batch=batch), engine=self._engine)
        result: FileResult = next(iter(results))
        if result.status == "kept":
            raise ImageError(f"{result.output} exists and was not made so", "name another, or set batch.overwrite")
        if result.error is not None:
            raise ImageError(result.error.message, result.error.hint)
        if result.output is None:
            raise ImageError(f"{path}: {'; '.join(result.warnings)}")
        return Path(result.output)
