"""Upscaling one frame: weights, engines, tiles, alpha and the final reduction, behind one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dsclora_cli.config import ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import OutOfMemory
from dsclora_cli.imaging.alpha import bleed
from dsclora_cli.imaging.metadata import resized
from dsclora_cli.imaging.picture import Frame, Header, Pixels
from dsclora_cli.imaging.ranges import ValueRange, value_range
from dsclora_cli.imaging.resample import reduce
from dsclora_cli.imaging.tiling import (
    ArraySink,
    ArraySource,
    TileRun,
    auto_tile,
    plan_bands,
    tile_memory,
    upscale_rows,
)
from dsclora_cli.runtime.engine import Engine
from dsclora_cli.tasks.caveats import caveats
from dsclora_cli.tasks.engines import device_of, free_memory, open_engine
from dsclora_cli.tasks.jobs import WeightsFinder, chain
from dsclora_cli.tasks.sizes import SizePlan, plan_size
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.resolve import FoundWeights, find_weights, for_picture, joined, native_scales

Progress = Callable[[float], None]
"""Hears the finished share of a frame, 0 to 1."""

_Pass = tuple[ModelOptions, int]
"""The weights of a pass are those that these options give for this native scale."""


@dataclass(frozen=True)
class EngineInfo:
    """What upscales a picture: for reports and records. `scale` is the largest native scale used."""

    model: str
    weights_sha256: str
    scale: int
    device: str
    dtype: str
    engine: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What upscaling a picture will do.

    `source` is the input's (width, height), `header` the result's; `model` is for the first pass. `tile` is the
    edge of a tile's core in the first pass, 0 the whole picture; `tiles` counts the network runs of a frame's colour
    over all passes. `memory_bytes` estimates the peak on the host.
    """

    source: tuple[int, int]
    size: SizePlan
    header: Header
    info: EngineInfo
    model: ModelOptions
    tile: int
    tiles: int
    memory_bytes: int


class PictureEngine:
    """Everything needed to upscale frames with the weights of one run, each opened when a picture first needs it.

    `find` gives the weights for a native scale. Raises UsageError for a device or engine that is not there.
    """

    def __init__(self, options: UpscaleOptions, find: WeightsFinder = find_weights) -> None:
        self._options = options
        self._find_weights = find
        self._device = device_of(options.engine)
        self._native = native_scales(options.model)
        self._photo = load_catalog().photo
        self._found: dict[_Pass, FoundWeights] = {}
        self._engines: dict[str, Engine] = {}

    def plan(self, header: Header) -> Plan:
        """How a picture with this header is upscaled. Raises as `plan_size` does, and WeightsError."""
        size = plan_size(header.width, header.height, self._options.size, self._native)
        model, _ = for_picture(self._options.model, header.jpeg_quality, size.passes[0], self._photo)
        engine, *_ = (self._engine(each) for each in chain(size.passes, model, self._options.model))
        tile = self._tile_edge(engine, max(header.height, header.width))
        metadata = resized(header.metadata, size.width, size.height)
        return Plan(
            source=(header.width, header.height),
            size=size,
            header=replace(header, width=size.width, height=size.height, metadata=metadata),
            info=self._info(chain(size.passes, model, self._options.model), engine),
            model=model,
            tile=tile,
            tiles=_count_tiles(header, size.passes, tile),
            memory_bytes=_estimate_memory(header, size.passes, engine, tile),
        )

    def frame(self, frame: Frame, plan: Plan, on_progress: Progress) -> tuple[Frame, tuple[str, ...]]:
        """Upscale a frame of `(H, W, C)` pixels; also what its user should know of how it went.

        A page of another size than the picture's grows by the same factor.
        """
        rescued = self._rescued()
        pixels = frame.pixels
        height, width, channels = pixels.shape
        size = plan.size
        if (width, height) != plan.source:
            size = plan_size(width, height, SizeOptions(scale=size.factor), self._native)
        if channels in {2, 4}:
            pixels = self._with_alpha(pixels, size, plan.model, on_progress)
        else:
            pixels = self._upscale(pixels, size, plan.model, on_progress)
        descriptor = self._engine((plan.model, size.passes[0])).descriptor
        return replace(frame, pixels=pixels), caveats(frame.pixels, self._rescued() - rescued, plan.tiles, descriptor)

    def _with_alpha(self, pixels: Pixels, size: SizePlan, model: ModelOptions, on_progress: Progress) -> Pixels:
        """Colour, bled under what is transparent, and alpha one after the other; a constant alpha is not computed."""
        colour, alpha = pixels[:, :, :-1], pixels[:, :, -1:]
        constant = bool((alpha == alpha[0, 0]).all())
        result = np.empty((size.height, size.width, pixels.shape[2]), pixels.dtype)
        half: Progress = on_progress if constant else (lambda share: on_progress(share / 2))
        result[:, :, :-1] = self._upscale(bleed(colour, alpha), size, model, half)
        if constant:
            result[:, :, -1] = alpha[0, 0]
        else:
            result[:, :, -1:] = self._upscale(alpha, size, model, lambda share: on_progress(0.5 + share / 2))
        return result

    def _upscale(self, pixels: Pixels, size: SizePlan, model: ModelOptions, on_progress: Progress) -> Pixels:
        """1 or 3 channels through the chain of passes and the reduction."""
        values = value_range(pixels)
        height, width = pixels.shape[:2]
        done, total = 0, sum(rows * columns for rows, columns, _ in _passes(height, width, size.passes))

        def count(pixels_done: int) -> None:
            nonlocal done
            done += pixels_done
            on_progress(done / total)

        for scale in size.passes:
            pixels = self._upscale_once(pixels, (model, scale), values, count)
            model = self._options.model
        return reduce(pixels, size.width, size.height)

    def _upscale_once(
        self, pixels: Pixels, each: _Pass, values: ValueRange, on_pixels: Callable[[int], None]
    ) -> Pixels:
        height, width, channels = pixels.shape
        engine, scale = self._engine(each), each[1]
        run = TileRun(self._tile_edge(engine, max(height, width)), may_halve=self._options.engine.tile is None)
        result = np.empty((height * scale, width * scale, channels), pixels.dtype)
        try:
            upscale_rows(ArraySource(pixels), ArraySink(result), engine, values, run, on_pixels)
        except OutOfMemory as error:
            if run.may_halve:
                raise
            raise OutOfMemory(error.message, f"--tile {_auto_edge(engine)} would fit, or leave --tile out") from error
        return result

    def _engine(self, each: _Pass) -> Engine:
        if each not in self._found:
            found = self._find_weights(*each)
            if found.sha256 not in self._engines:
                self._engines[found.sha256] = open_engine(found, self._device, self._options.engine)
            self._found[each] = found
        return self._engines[self._found[each].sha256]

    def _info(self, passes: tuple[_Pass, ...], engine: Engine) -> EngineInfo:
        found = [self._found[each] for each in passes]
        model, sha256 = joined(found)
        return EngineInfo(
            model=model,
            weights_sha256=sha256,
            scale=max(scale for _, scale in passes),
            device=engine.device,
            dtype=engine.dtype,
            engine=engine.name,
            notes=tuple(weights.note for weights in found if weights.note),
        )

    def _tile_edge(self, engine: Engine, longest: int) -> int:
        """The core edge for a picture whose longer side is `longest`; 0 is the whole picture."""
        if self._options.engine.tile is not None:
            return self._options.engine.tile
        edge = _auto_edge(engine)
        return 0 if edge >= longest else edge

    def _rescued(self) -> int:
        return sum(engine.rescued for engine in self._engines.values())


def _value_bytes(engine: Engine) -> int:
    return 2 if engine.dtype == "float16" else 4


def _auto_edge(engine: Engine) -> int:
    return auto_tile(engine.descriptor, free_memory(engine), _value_bytes(engine))


def _passes(height: int, width: int, passes: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Height and width of the LR side of each pass, and its scale."""
    sizes = []
    for scale in passes:
        sizes.append((height, width, scale))
        height, width = height * scale, width * scale
    return sizes


def _count_tiles(header: Header, passes: tuple[int, ...], tile: int) -> int:
    plans = (plan_bands(height, width, tile) for height, width, _ in _passes(header.height, header.width, passes))
    return sum(len(bands) * len(bands[0]) for bands in plans)


def _estimate_memory(header: Header, passes: tuple[int, ...], engine: Engine, tile: int) -> int:
    """Both canvases of the largest pass, and the network's own memory for one tile."""
    height, width, scale = _passes(header.height, header.width, passes)[-1]
    canvases = height * width * (1 + scale**2) * header.channels * header.dtype.itemsize
    halo = 2 * engine.descriptor.halo
    rows, columns = (min(side, (tile or side) + halo) for side in (header.height, header.width))
    return canvases + tile_memory(engine.descriptor, rows, columns, _value_bytes(engine))
