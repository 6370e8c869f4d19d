"""Small pictures, and an engine without a network, for tests of everything around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from dsclora_cli.config import ModelOptions, UpscaleOptions
from dsclora_cli.imaging.types import Frame, StreamedFrame
from dsclora_cli.upscaling.batch import upscale_files
from dsclora_cli.upscaling.jobs import Job
from dsclora_cli.upscaling.picture import PicturePlan
from dsclora_cli.upscaling.types import FileResult

EMBEDDED = UpscaleOptions(model=ModelOptions(model="dsclora-x4"))
"""Weights that every checkout has, and no look at the Hub."""


def save_photo(path: Path, size: tuple[int, int] = (12, 9), seed: int = 0, **options: object) -> Path:
    """A smooth RGB picture of `size` (width, height) at `path`, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), np.uint8)
    Image.fromarray(corners).resize(size, Image.Resampling.BILINEAR).save(path, **options)
    return path


def save_animation(path: Path, frames: int = 4, size: tuple[int, int] = (10, 8)) -> Path:
    """An animated GIF whose frames all differ."""
    pictures = [Image.new("RGB", size, (40 * index, 200 - 40 * index, 90)) for index in range(frames)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=70, loop=0)
    return path


def run(inputs: list[Path], options: UpscaleOptions = EMBEDDED, upscaler: object = None) -> list[FileResult]:
    """All results of a batch."""
    return list(upscale_files(inputs, options, upscaler=upscaler))


def fill(top: Path) -> Path:
    """Three pictures, an animation, a broken picture and junk in the folder `top`."""
    save_photo(top / "a.jpg")
    save_photo(top / "b.png", seed=1)
    save_photo(top / "c.webp", seed=2)
    save_animation(top / "d.gif")
    (top / "e.png").write_bytes((top / "b.png").read_bytes()[:60])
    (top / "Thumbs.db").write_bytes(b"junk")
    return top


def states(results: list[FileResult]) -> dict[str, str]:
    """File name to status."""
    return {Path(result.input).name: result.status for result in results}


def leftovers(top: Path) -> list[str]:
    """Hidden files, which no run may leave."""
    return [path.name for path in top.rglob("*") if path.name.startswith(".")]


class RepeatUpscaler:
    """A stand-in for PictureUpscaler that repeats pixels; `on_frame` receives every frame and may raise."""

    def __init__(self, on_frame: Callable[[Frame], None] = lambda frame: None, scale: int = 4) -> None:
        self._on_frame = on_frame
        self._scale = scale

    def plan(self, job: Job, streamed: bool) -> PicturePlan:
        engine = SimpleNamespace(name="torch", device="cpu", dtype="float32")
        return PicturePlan(job, engine, tile=0, largest_tile=0, tiles=1, memory_bytes=0)

    def upscale(
        self,
        frame: Frame,
        plan: PicturePlan,
        on_progress: Callable[[float], None],
        on_warning: Callable[[str], None],
    ) -> StreamedFrame:
        self._on_frame(frame)
        on_progress(1.0)
        pixels = frame.pixels.repeat(self._scale, axis=0).repeat(self._scale, axis=1)
        return StreamedFrame(pixels.shape, np.array_split(pixels, 3), frame.duration_ms)
