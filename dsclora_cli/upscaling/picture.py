"""Upscaling one frame: weights, engines, tiles, alpha and the final reduction, behind one object.

What the user of a picture should know of how it was upscaled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from dsclora_cli.config import ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import OutOfMemory
from dsclora_cli.imaging.color import bleed
from dsclora_cli.imaging.metadata import with_size
from dsclora_cli.imaging.resize import reduce_bands
from dsclora_cli.imaging.types import AnyFrame, Frame, Header, Pixels, StreamedFrame
from dsclora_cli.inference.engine import Descriptor, Engine
from dsclora_cli.inference.tiling import (
    LARGEST_AUTO_TILE,
    ArraySource,
    BandSource,
    RowSource,
    TileOptions,
    ValueRange,
    count_tiles,
    full_range,
    upscale_bands,
    value_range,
)
from dsclora_cli.upscaling.engines import auto_edge, choose_device, load_engine, with_fitting_tile
from dsclora_cli.upscaling.jobs import WeightsFinder, chain
from dsclora_cli.upscaling.memory import MemoryEstimate, budget
from dsclora_cli.upscaling.sizes import SizePlan, lr_sides, plan_size
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.resolve import FoundWeights, chain_identity, find_weights, native_scales, select_model

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
    edge of a tile's core in the first pass, 0 the whole picture, and `largest_tile` what none may exceed; `tiles`
    counts the network runs of a frame's colour over all passes. `memory_bytes` is the host's peak, on the high side.
    """

    source: tuple[int, int]
    size: SizePlan
    header: Header
    info: EngineInfo
    model: ModelOptions
    tile: int
    largest_tile: int
    tiles: int
    memory_bytes: int


class PictureUpscaler:
    """Everything needed to upscale frames with the weights of one run, each opened when a picture first needs it.

    `find` gives the weights for a native scale. Raises UsageError for a device or engine that is not there.
    """

    def __init__(self, options: UpscaleOptions, find: WeightsFinder = find_weights) -> None:
        self._options = options
        self._find_weights = find
        self._device = choose_device(options.engine)
        self._native = native_scales(options.model)
        self._photo = load_catalog().photo
        self._found: dict[_Pass, FoundWeights] = {}
        self._engines: dict[str, Engine] = {}

    def plan(self, header: Header, banded: bool = False) -> Plan:
        """How a picture with this header is upscaled; `banded` where its result is written as its bands come.

        Raises as `plan_size` does, WeightsError, and OutOfMemory for a picture that its limit of memory is too low for.
        """
        size = plan_size(header.width, header.height, self._options.size, self._native)
        model, _ = select_model(self._options.model, header.jpeg_quality, size.passes[0], self._photo)
        engine, *_ = (self._engine(each) for each in chain(size.passes, model, self._options.model))
        passes = lr_sides(header.height, header.width, size.passes)
        pixel_bytes, waiting = header.channels * header.dtype.itemsize, budget(self._options.max_memory)
        native = tuple(side * passes[-1][2] for side in passes[-1][:2])
        footprint = MemoryEstimate(passes, pixel_bytes, engine, banded, (size.height, size.width) != native, waiting)
        largest = self._largest_tile(engine, footprint)
        tile = _edge(largest, max(header.height, header.width))
        metadata = with_size(header.metadata, size.width, size.height)
        return Plan(
            source=(header.width, header.height),
            size=size,
            header=replace(header, width=size.width, height=size.height, metadata=metadata),
            info=self._info(chain(size.passes, model, self._options.model), engine),
            model=model,
            tile=tile,
            largest_tile=largest,
            tiles=sum(count_tiles(rows, columns, _edge(largest, max(rows, columns))) for rows, columns, _ in passes),
            memory_bytes=footprint.peak(tile),
        )

    def frame(self, frame: AnyFrame, plan: Plan, on_progress: Progress) -> tuple[Frame, tuple[str, ...]]:
        """A frame of `(H, W, C)` pixels upscaled as a whole, and what its user should know of how it went."""
        sentences: list[str] = []
        banded = self.banded(frame, plan, on_progress, sentences.append)
        return Frame(banded.pixels, banded.duration_ms), tuple(sentences)

    def banded(
        self, frame: AnyFrame, plan: Plan, on_progress: Progress, on_caveat: Callable[[str], None]
    ) -> StreamedFrame:
        """A frame that is upscaled while its bands are read; after the last `on_caveat` hears what should be known.

        A page of another size than the picture's grows by the same factor.
        """
        height, width, channels = frame.shape
        size = plan.size
        if (width, height) != plan.source:
            size = plan_size(width, height, SizeOptions(scale=size.factor), self._native)

        def bands() -> Iterator[Pixels]:
            fallbacks = self._fp16_fallbacks()
            depth = plan.header.dtype
            values = full_range(depth) if depth.kind == "u" else value_range(frame.pixels)
            yield from self._bands(frame, values, replace(plan, size=size), on_progress)
            descriptor = self._engine((plan.model, size.passes[0])).descriptor
            for sentence in caveats(values, self._fp16_fallbacks() - fallbacks, plan.tiles, descriptor):
                on_caveat(sentence)

        return StreamedFrame((size.height, size.width, channels), bands(), frame.duration_ms)

    def _bands(self, frame: AnyFrame, values: ValueRange, plan: Plan, on_progress: Progress) -> Iterator[Pixels]:
        """Colour and alpha side by side, colour bled under what is transparent; a constant alpha is not computed."""
        height, width, channels = frame.shape
        has_alpha = channels in {2, 4}
        alpha = frame.pixels[:, :, -1:] if has_alpha else None
        constant = alpha is not None and bool((alpha == alpha[0, 0]).all())
        work = sum(rows * columns for rows, columns, _ in lr_sides(height, width, plan.size.passes))
        done, total = 0, work * (1 + (has_alpha and not constant))

        def count(pixels_done: int) -> None:
            nonlocal done
            done += pixels_done
            on_progress(done / total)

        if alpha is None:
            yield from self._upscale(BandSource(frame.shape, frame.bands()), values, plan, count)
            return
        colours = self._upscale(ArraySource(bleed(frame.pixels[:, :, :-1], alpha)), values, plan, count)
        if constant:
            for colour in colours:
                yield np.dstack([colour, np.full(colour.shape[:2], alpha[0, 0], colour.dtype)])
            return
        for colour, opacity in zip(colours, self._upscale(ArraySource(alpha), values, plan, count), strict=True):
            yield np.concatenate([colour, opacity], axis=2)

    def _upscale(
        self, source: RowSource, values: ValueRange, plan: Plan, on_pixels: Callable[[int], None]
    ) -> Iterator[Pixels]:
        """1 or 3 channels through the chain of passes, each taking the bands of the one before, and the reduction."""
        size, model = plan.size, plan.model
        for scale in size.passes:
            bands = self._upscale_once(source, (model, scale), values, plan.largest_tile, on_pixels)
            source = BandSource((source.height * scale, source.width * scale, source.channels), bands)
            model = self._options.model
        exact = (size.width, size.height) == (source.width, source.height)
        return bands if exact else reduce_bands(bands, source.height, size.width, size.height)

    def _upscale_once(
        self, source: RowSource, each: _Pass, values: ValueRange, largest: int, on_pixels: Callable[[int], None]
    ) -> Iterator[Pixels]:
        engine = self._engine(each)
        run = TileOptions(_edge(largest, max(source.height, source.width)), may_halve=self._options.engine.tile is None)
        try:
            yield from upscale_bands(source, engine, values, run, on_pixels)
        except OutOfMemory as error:
            if run.may_halve:
                raise
            raise with_fitting_tile(error, engine) from error

    def _engine(self, each: _Pass) -> Engine:
        if each not in self._found:
            found = self._find_weights(*each)
            if found.sha256 not in self._engines:
                self._engines[found.sha256] = load_engine(found, self._device, self._options.engine)
            self._found[each] = found
        return self._engines[self._found[each].sha256]

    def _info(self, passes: tuple[_Pass, ...], engine: Engine) -> EngineInfo:
        found = [self._found[each] for each in passes]
        model, sha256 = chain_identity(found)
        return EngineInfo(
            model=model,
            weights_sha256=sha256,
            scale=max(scale for _, scale in passes),
            device=engine.device,
            dtype=engine.dtype,
            engine=engine.name,
            notes=tuple(weights.note for weights in found if weights.note),
        )

    def _largest_tile(self, engine: Engine, footprint: MemoryEstimate) -> int:
        """The core edge that is asked for, 0 for the whole picture, or the largest that memory allows."""
        limit, asked = self._options.max_memory, self._options.engine.tile
        largest = auto_edge(engine) if asked is None else asked
        if limit is None or footprint.peak(largest) <= limit:
            return largest
        fitting = footprint.fitting_tile(limit, LARGEST_AUTO_TILE)
        if asked is not None:
            raise OutOfMemory(f"--tile {asked} needs more than --max-memory", f"--tile {fitting} fits")
        return fitting

    def _fp16_fallbacks(self) -> int:
        return sum(engine.fp16_fallbacks for engine in self._engines.values())


def _edge(largest: int, longest: int) -> int:
    """The edge of the tiles of a picture whose longer side is `longest`: 0, the whole, where one tile is enough."""
    return 0 if largest >= longest else largest


def caveats(values: ValueRange, fallbacks: int, tiles: int, descriptor: Descriptor) -> tuple[str, ...]:
    """Sentences on a picture of these values, given how many tiles there were and were run again, by which network."""
    sentences = []
    if fallbacks:
        sentences.append(f"{fallbacks} tiles had no usable float16 answer and were run again in float32")
    if tiles > 1 and not descriptor.exact_tiles:
        sentences.append(
            f"{descriptor.arch} looks at the whole picture, so {tiles} tiles are not exactly what it would make of it"
            " (--tile 0 takes it whole, if memory allows)"
        )
    if values.dtype == np.float32 and (values.low, values.high) != (0.0, 1.0):
        sentences.append(f"values from {values.low:g} to {values.high:g} were rescaled to [0, 1] and back")
    return tuple(sentences)
