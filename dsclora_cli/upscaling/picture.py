"""Upscale the frames of a picture: engines, tiles, alpha, passes, final resize, warnings.

Size and weights come from `jobs.py`; threads and files are in `pipeline.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from dsclora_cli.config import UpscaleOptions
from dsclora_cli.errors import OutOfMemory
from dsclora_cli.host import host_memory
from dsclora_cli.imaging.color import bleed, hold_areas
from dsclora_cli.imaging.resize import filter_reach, reduce_bands
from dsclora_cli.imaging.types import AnyFrame, Frame, Pixels, StreamedFrame
from dsclora_cli.imaging.writer import encoder_bytes
from dsclora_cli.inference.engine import Engine
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
from dsclora_cli.upscaling.jobs import Job
from dsclora_cli.upscaling.memory import MemoryEstimate, pixel_budget
from dsclora_cli.upscaling.sizes import SizePlan
from dsclora_cli.weights.resolve import FoundWeights


@dataclass(frozen=True)
class PicturePlan:
    """Job with the values from the engine."""

    job: Job
    engine: Engine
    """Engine of the first pass."""
    tile: int
    """Edge of a tile without halo in the first pass, in LR pixels; 0 for the whole picture."""
    largest_tile: int
    """Largest edge of a tile in any pass; 0 for no limit."""
    tiles: int
    """Network runs for the color of one frame, over all passes."""
    memory_bytes: int
    """Estimate of the peak memory of the host, on the high side."""


class PictureUpscaler:
    """Engines of a device. An engine is opened when a picture first needs the weights.

    Raises UsageError for a missing device or a missing engine.
    """

    def __init__(self, options: UpscaleOptions) -> None:
        self._options = options
        self._device = choose_device(options.engine)
        self._engines: dict[str, Engine] = {}

    def plan(self, job: Job, streamed: bool) -> PicturePlan:
        """Choose tiles and estimate memory.

        Args:
            job: the picture.
            streamed: whether the result is written band by band, and never is in memory whole.

        Raises:
            WeightsError: a weights file holds no network.
            OutOfMemory: even the smallest tiles need more memory than `max_memory`, or a file that is written whole
                needs more memory than is free.
        """
        source, size = job.source, job.size
        height, width = source.height, source.width
        # All engines are opened now, so that broken weights are found before a half-done picture. The first engine
        # stands for all: the engines differ in nothing but the weights.
        engine, *_ = [self._engine(weights) for weights in job.weights]
        if self._options.wrap:  # the picture is upscaled with a margin on each side
            margin = self.margin(job)
            height, width = height + 2 * margin, width + 2 * margin
            size = size.for_page(width, height)
        passes = size.lr_sides(height, width)
        rows, columns, scale = passes[-1]
        estimate = MemoryEstimate(
            passes=passes,
            pixel_bytes=source.channels * source.dtype.itemsize,
            engine=engine,
            streamed=streamed,
            reduced=(size.height, size.width) != (rows * scale, columns * scale),
            waiting=pixel_budget(self._options.max_memory),
            encoder_bytes=encoder_bytes(job.result),
            is_file=job.target is not None,
        )
        if job.target is not None:
            estimate.require_free(host_memory())
        limit, chosen = self._options.max_memory, self._options.engine.tile
        largest = auto_edge(engine) if chosen is None else chosen
        if limit is not None and estimate.peak(largest) > limit:
            largest = estimate.fitting_tile(limit, LARGEST_AUTO_TILE)
            # A tile size from the user is never changed.
            if chosen is not None:
                raise OutOfMemory(
                    f"--tile {chosen} needs more memory than --max-memory allows", f"--tile {largest} fits"
                )
        tile = _tile_edge(largest, height, width)
        tiles = sum(count_tiles(rows, columns, _tile_edge(largest, rows, columns)) for rows, columns, _ in passes)
        return PicturePlan(job, engine, tile, largest, tiles, estimate.peak(tile))

    def margin(self, job: Job) -> int:
        """Return the pixels around a part of an input that decide about the upscaled part.

        The margin grows to a whole number of pixels of the result, where the factor is a fraction of small numbers.
        """
        reach, factor = Fraction(0), 1
        for scale, weights in zip(job.size.passes, job.weights, strict=True):
            # The halo of a later pass is in pixels that the earlier passes have made smaller.
            reach += Fraction(self._engine(weights).descriptor.halo, factor)
            factor *= scale
        ratio = factor / Fraction(str(job.size.factor))
        if ratio != 1:
            reach += Fraction(filter_reach(ratio)) / factor
        return _whole_steps(math.ceil(reach), job.size.factor)

    def _engine(self, weights: FoundWeights) -> Engine:
        if weights.sha256 not in self._engines:
            self._engines[weights.sha256] = load_engine(weights, self._device, self._options.engine)
        return self._engines[weights.sha256]

    def upscale(
        self,
        frame: AnyFrame,
        plan: PicturePlan,
        on_progress: Callable[[float], None] = lambda share: None,
        on_warning: Callable[[str], None] = lambda sentence: None,
        whole: Pixels | None = None,
    ) -> StreamedFrame:
        """Return a frame whose bands are upscaled while being read.

        Args:
            frame: `(H, W, 1 to 4)` pixels with the dtype of the source header. A page of another size than the
                picture grows by the same factor.
            plan: plan of the picture.
            on_progress: called after every tile with the finished share of the frame, from 0 to 1.
            on_warning: called with a sentence for the user, after the last band.
            whole: the picture that the frame is a part of, which decides about the range of floats.

        Returns:
            `(height, width, 1 to 4)` pixels of the same dtype. Reading the bands raises OutOfMemory, and all errors
            of reading the frame.
        """
        height, width, channels = frame.shape
        source, size = plan.job.source, plan.job.size
        if (height, width) != (source.height, source.width):
            size = size.for_page(width, height)

        def bands_of(frame: AnyFrame, target: SizePlan) -> Iterator[Pixels]:
            return self._upscale_frame(frame, plan, target, on_progress, on_warning, whole)

        wrap = self._options.wrap
        bands = _repeating(frame, size, self.margin(plan.job), bands_of) if wrap else bands_of(frame, size)
        return StreamedFrame((size.height, size.width, channels), bands, frame.duration_ms)

    def _upscale_frame(
        self,
        frame: AnyFrame,
        plan: PicturePlan,
        size: SizePlan,
        on_progress: Callable[[float], None],
        on_warning: Callable[[str], None],
        whole: Pixels | None,
    ) -> Iterator[Pixels]:
        """Yield bands `(h, width, 1 to 4)`; color and alpha pass the network side by side."""
        height, width, channels = frame.shape
        dtype = plan.job.source.dtype
        # Floats need all pixels at once, to know the ranges; integers have the range of the type.
        if dtype.kind == "u":
            values = alpha_values = full_range(dtype)
        else:
            values, alpha_values = _float_ranges(frame.pixels if whole is None else whole)
        alpha = frame.pixels[:, :, -1:] if channels in {2, 4} else None
        opacity = None if alpha is None else alpha[0, 0]
        constant = alpha is not None and bool((alpha == opacity).all())
        fallbacks = self._count_fallbacks()  # of the whole run so far
        # A constant alpha is copied; any other alpha passes the network like the color.
        planes = 1 if alpha is None or constant else 2
        total = planes * sum(rows * columns for rows, columns, _ in size.lr_sides(height, width))
        done = 0

        def count(pixels: int) -> None:
            nonlocal done
            done += pixels
            on_progress(done / total)

        if alpha is None:
            yield from self._run_passes(BandSource(frame.shape, frame.bands()), values, plan, size, count)
        else:
            # Color is spread under transparent pixels: hidden colors would show as a fringe along the edges.
            hidden = ArraySource(bleed(frame.pixels[:, :, :-1], alpha))
            colors = self._run_passes(hidden, values, plan, size, count)
            if constant:  # an opaque picture, mostly: half the time is saved
                for color in colors:
                    yield np.dstack([color, np.full(color.shape[:2], opacity, color.dtype)])
            else:
                alphas = self._run_passes(ArraySource(alpha), alpha_values, plan, size, count)
                alphas = hold_areas(alphas, alpha, size.place(width, height), size.height)
                for color, band in zip(colors, alphas, strict=True):
                    yield np.concatenate([color, band], axis=2)
        for sentence in _warnings(plan, (values, alpha_values), self._count_fallbacks() - fallbacks):
            on_warning(sentence)

    def _run_passes(
        self,
        source: RowSource,
        values: ValueRange,
        plan: PicturePlan,
        size: SizePlan,
        on_pixels: Callable[[int], None],
    ) -> Iterator[Pixels]:
        """Yield bands `(h, width, 1 or 3)` after all passes and the final resize; a pass reads the pass before."""
        may_halve = self._options.engine.tile is None
        for scale, weights in zip(size.passes, plan.job.weights, strict=True):
            tiles = TileOptions(_tile_edge(plan.largest_tile, source.height, source.width), may_halve)
            bands = upscale_bands(source, self._engine(weights), values, tiles, on_pixels)
            source = BandSource((source.height * scale, source.width * scale, source.channels), bands)
        if size.box is not None or (size.width, size.height) != (source.width, source.height):
            bands = reduce_bands(bands, source.height, size.width, size.height, size.box)
        try:
            # Nothing runs before: reading the last bands makes every pass read the pass before.
            yield from bands
        except OutOfMemory as error:
            if may_halve:
                raise
            # A tile size from the user is kept, and the error names a size that fits.
            raise with_fitting_tile(error, plan.engine) from error

    def _count_fallbacks(self) -> int:
        return sum(engine.fp16_fallbacks for engine in self._engines.values())


def _whole_steps(margin: int, factor: float) -> int:
    """Return the margin, enlarged to a multiple of the fewest pixels that grow to whole pixels.

    Without that, the two sides of a seam would be half a pixel apart.
    """
    step = Fraction(str(factor)).limit_denominator(1000).denominator
    return -(-margin // step) * step


def _repeating(
    frame: AnyFrame, size: SizePlan, margin: int, upscale: Callable[[AnyFrame, SizePlan], Iterator[Pixels]]
) -> Iterator[Pixels]:
    """Yield bands of a picture that continues at the opposite edge: `(h, width, 1 to 4)`.

    The picture is upscaled with a margin from the opposite edges, and the upscaled margin is dropped.
    """
    height, width = frame.shape[:2]
    edge = round(margin * size.factor)
    around = Frame(np.pad(frame.pixels, ((margin, margin), (margin, margin), (0, 0)), mode="wrap"))
    larger = size.for_page(width + 2 * margin, height + 2 * margin)
    row = -edge  # of the result
    for band in upscale(around, larger):
        inside = band[max(0, -row) : max(0, size.height - row), edge : edge + size.width]
        row += band.shape[0]
        if inside.size:
            yield inside


def _tile_edge(largest: int, height: int, width: int) -> int:
    """Return the edge of the tiles of a picture: 0, the whole picture, where one tile is enough."""
    return 0 if largest >= max(height, width) else largest


def _float_ranges(pixels: Pixels) -> tuple[ValueRange, ValueRange]:
    """Return the range of the visible colors of `(H, W, 1 to 4)` floats, and the range of alpha, [0, 1] without."""
    if pixels.shape[2] in (1, 3):
        return value_range(pixels), ValueRange(0.0, 1.0, pixels.dtype)
    color, alpha = pixels[:, :, :-1], pixels[:, :, -1:]
    visible = color[alpha[:, :, 0] > 0]
    return value_range(visible if len(visible) else color), value_range(alpha)


def _warnings(plan: PicturePlan, values: tuple[ValueRange, ValueRange], fallbacks: int) -> Iterator[str]:
    """Yield warnings to show after upscaling a frame with the given ranges of color and of alpha.

    `fallbacks` counts the tiles with a float16 result that was not finite.
    """
    if fallbacks:
        yield f"{fallbacks} tiles had no usable float16 result and were run again in float32"
    descriptor = plan.engine.descriptor
    if plan.tiles > 1 and not descriptor.exact_tiles:
        yield (
            f"{descriptor.arch} looks at the whole picture, so the result of {plan.tiles} tiles differs a little from"
            " the result for the whole picture (--tile 0 upscales the picture whole, if memory allows)"
        )
    for what, each in zip(("values", "alpha values"), values, strict=True):
        if each.dtype == np.float32 and (each.low, each.high) != (0.0, 1.0):
            yield f"{what} from {each.low:g} to {each.high:g} were rescaled to [0, 1] and back"
