"""How a picture is cut into tiles, and how large they may be.

Upscaling by tiles, equal to upscaling the whole picture, from a source of rows to bands of them.

Every tile carries a halo of at least the network's receptive-field radius, clipped at the picture's borders so that
true borders see the same zero padding as untiled; only its core is kept. In float64 the result is that of the whole
picture to rounding (1e-12); in float32 the order of sums differs with the tile's shape, by at most one 8-bit level.

Between a file's pixel values and the network's [0, 1]: the only place that scales, clamps and rounds them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.imaging.types import Pixels, stack_bands
from dsclora_cli.inference.engine import Descriptor, Engine, StreamingEngine, UnitPixels

SMALLEST_TILE = 16
LARGEST_AUTO_TILE = 512


@dataclass(frozen=True)
class Tile:
    """A rectangle of LR pixels, `bottom` and `right` exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        """The height."""
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        """The width."""
        return self.right - self.left

    @property
    def edge(self) -> int:
        """The longer side."""
        return max(self.rows, self.columns)

    @property
    def area(self) -> int:
        """Pixels."""
        return self.rows * self.columns

    def with_halo(self, halo: int, height: int, width: int, least: tuple[int, int] = (0, 0)) -> Tile:
        """Grown by `halo` on each side, then to `least` rows and columns, but not beyond the picture."""
        return Tile(
            *_grown(self.top - halo, self.bottom + halo, height, least[0]),
            *_grown(self.left - halo, self.right + halo, width, least[1]),
        )

    def split(self, edge: int) -> list[Tile]:
        """Cut into an even grid of tiles no larger than `edge`."""
        columns = _cuts(self.left, self.right, edge)
        return [Tile(t, b, left, r) for t, b in _cuts(self.top, self.bottom, edge) for left, r in columns]


def _grown(start: int, stop: int, size: int, least: int) -> tuple[int, int]:
    """An interval cut at 0 and `size`, and where it is shorter than `least` made so long, first towards `size`."""
    start, stop = max(0, start), min(size, stop)
    stop = max(stop, min(size, start + least))
    return min(start, max(0, stop - least)), stop


def _cuts(start: int, stop: int, edge: int) -> list[tuple[int, int]]:
    """Intervals that cover `start` to `stop`, of one even length up to `edge`; the last may be shorter."""
    count = -(-(stop - start) // edge)
    length = -(-(stop - start) // count)
    length = min(length + length % 2, max(edge, 1))
    return [(a, min(a + length, stop)) for a in range(start, stop, length)]


def plan_bands(height: int, width: int, tile: int) -> list[list[Tile]]:
    """The cores of a picture, one list for each band of rows; `tile` 0 is one tile for the whole picture."""
    edge = tile or max(height, width)
    columns = _cuts(0, width, edge)
    return [[Tile(top, bottom, left, right) for left, right in columns] for top, bottom in _cuts(0, height, edge)]


def band_rows(height: int, tile: int) -> int:
    """LR rows of the first band, which is the highest."""
    return _cuts(0, height, tile or height)[0][1]


def count_tiles(height: int, width: int, tile: int) -> int:
    """How many cores `plan_bands` makes."""
    bands = plan_bands(height, width, tile)
    return len(bands) * len(bands[0])


def tile_memory(descriptor: Descriptor, height: int, width: int, bytes_per_value: int = 4) -> int:
    """Bytes that the network needs for a tile of this size, halo included."""
    return descriptor.floats_per_pixel * bytes_per_value * height * width


def auto_tile(descriptor: Descriptor, free_bytes: int, bytes_per_value: int = 4) -> int:
    """The tile edge for a device with this much free memory, of which half is taken at most.

    Above `LARGEST_AUTO_TILE` nothing is gained: the halo costs little there and caches overflow.
    """
    pixels = free_bytes / 2 / (descriptor.floats_per_pixel * bytes_per_value)
    edge = int(pixels**0.5) - 2 * descriptor.halo
    return max(SMALLEST_TILE, min(LARGEST_AUTO_TILE, edge // 2 * 2))


_Window = tuple[slice, slice]
_PendingWindow = Callable[[_Window], Pixels]
"""Waits for an upscaled tile, and gives a window of it."""


class RowSource(Protocol):
    """An LR picture that gives bands of rows."""

    height: int
    width: int
    channels: int

    def rows(self, top: int, bottom: int) -> Pixels:
        """`(bottom - top, width, channels)` pixels."""
        ...


class ArraySource:
    """A picture in memory, `(H, W, C)`."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.height, self.width, self.channels = pixels.shape

    def rows(self, top: int, bottom: int) -> Pixels:
        """A view of the rows."""
        return self._pixels[top:bottom]


class BandSource:
    """A picture `(H, W, C)` that comes in bands, of which those are kept that are needed still.

    Rows are asked for from top to bottom: never any that lie above the `top` of the time before.
    """

    def __init__(self, shape: tuple[int, ...], bands: Iterable[Pixels]) -> None:
        self.height, self.width, self.channels = shape
        self._bands = iter(bands)
        self._held: deque[Pixels] = deque()
        self._top = self._bottom = 0

    def rows(self, top: int, bottom: int) -> Pixels:
        """See `RowSource`."""
        while self._bottom < bottom:
            self._held.append(next(self._bands))
            self._bottom += len(self._held[-1])
        while self._top + len(self._held[0]) <= top:
            self._top += len(self._held.popleft())
        held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        return held[top - self._top : bottom - self._top]


@dataclass(frozen=True)
class TileOptions:
    """How to tile: the core edge (0 = whole picture), and whether a tile that does not fit may be halved."""

    tile: int
    may_halve: bool = False


def upscale_array(pixels: Pixels, engine: Engine, run: TileOptions) -> Pixels:
    """Upscale a picture in memory by tiles, with the same result as for the whole picture at once.

    Args:
        pixels: `(H, W, 1 or 3)`, uint8, uint16, or floats, nominally in [0, 1].
        engine: runs the network on one tile after the other.
        run: how to cut the picture.

    Returns:
        `(scale*H, scale*W, 1 or 3)` pixels of the same dtype.

    Raises:
        OutOfMemory: a tile does not fit the device, and smaller tiles are not allowed or do not fit either.
    """
    height, width, channels = pixels.shape
    scale = engine.descriptor.scale
    bands = upscale_bands(ArraySource(pixels), engine, value_range(pixels), run)
    return stack_bands(bands, (height * scale, width * scale, channels))


def upscale_bands(
    source: RowSource,
    engine: Engine,
    values: ValueRange,
    run: TileOptions,
    on_pixels: Callable[[int], None] = lambda pixels: None,
) -> Iterator[Pixels]:
    """Upscale a picture of 1 (grey) or 3 (RGB) channels: bands of HR rows, from top to bottom.

    `values` is the range of its pixels; `on_pixels` hears of each finished tile, in LR pixels. When the device runs
    out of memory and the run `may_halve`, the tile at hand is cut, and all later ones, and work goes on from there.
    Until then all tiles have one shape, halo included: engines are quickest at what they have just done.
    """
    return _Upscaling(source, engine, values, run).bands(on_pixels)


class _Band:
    """The LR rows that one band of cores needs, and the HR rows that come of it; `left` LR pixels are still to come."""

    def __init__(self, source: RowSource, cores: list[Tile], outer: Tile, scale: int, values: ValueRange) -> None:
        """`outer` is the first of the cores with its halo."""
        self._scale = scale
        self._top = cores[0].top
        self._rows_top, self._rows = outer.top, source.rows(outer.top, outer.bottom)
        height, width = cores[0].bottom - self._top, source.width
        self.left = height * width
        self.hr: Pixels = np.empty((height * scale, width * scale, source.channels), values.dtype)

    def lr(self, outer: Tile) -> Pixels:
        """A tile with its halo."""
        return self._rows[outer.top - self._rows_top : outer.bottom - self._rows_top, outer.left : outer.right]

    def place(self, core: Tile, outer: Tile, answer: _PendingWindow) -> None:
        """Keep the core of an upscaled tile, dropping its halo."""
        inside = _window(core, outer.top, outer.left, self._scale)
        self.hr[_window(core, self._top, 0, self._scale)] = answer(inside)
        self.left -= core.area


def _window(core: Tile, top: int, left: int, scale: int) -> _Window:
    """Where a core lies in an HR array whose first pixel is LR pixel (`top`, `left`)."""
    return (
        slice((core.top - top) * scale, (core.bottom - top) * scale),
        slice((core.left - left) * scale, (core.right - left) * scale),
    )


@dataclass(frozen=True)
class _Started:
    """A tile that the engine works on."""

    band: _Band
    core: Tile
    outer: Tile
    answer: _PendingWindow


class _Upscaling:
    """A picture on its way through an engine, with as many tiles under way as that wants."""

    def __init__(self, source: RowSource, engine: Engine, values: ValueRange, run: TileOptions) -> None:
        self._source, self._engine, self._values = source, engine, values
        self._streaming = engine if isinstance(engine, StreamingEngine) else None
        self._may_halve, self._limit = run.may_halve, run.tile or max(source.height, source.width)
        bands, halo = plan_bands(source.height, source.width, run.tile), engine.descriptor.halo
        self._least = bands[0][0].rows + 2 * halo, bands[0][0].columns + 2 * halo
        self._later = iter(bands)
        self._unfinished: deque[_Band] = deque()
        self._todo: deque[tuple[_Band, Tile]] = deque()
        self._in_flight: deque[_Started] = deque()

    def bands(self, on_pixels: Callable[[int], None]) -> Iterator[Pixels]:
        """See `upscale_bands`."""
        while self._start():
            if area := self._finish():
                on_pixels(area)
                if not self._unfinished[0].left:
                    yield self._unfinished.popleft().hr

    def _start(self) -> bool:
        """Start tiles until there are enough under way; False where all is done."""
        most = self._streaming.pixels_in_flight if self._streaming else 0
        while not self._in_flight or sum(each.outer.area for each in self._in_flight) < most:
            if not self._todo and not self._open_band():
                break
            band, core = self._todo[0]
            if core.edge > self._limit:
                self._todo.popleft()
                self._todo.extendleft((band, part) for part in reversed(core.split(self._limit)))
                continue
            with self._halving():
                outer = self._outer(core)
                self._in_flight.append(_Started(band, core, outer, self._begin(band.lr(outer))))
                self._todo.popleft()
        return bool(self._in_flight)

    def _open_band(self) -> bool:
        """Have the cores of the next band to do; False where there is none."""
        cores = next(self._later, None)
        if cores is None:
            return False
        band = _Band(self._source, cores, self._outer(cores[0]), self._engine.descriptor.scale, self._values)
        self._unfinished.append(band)
        self._todo.extend((band, core) for core in cores)
        return True

    def _outer(self, core: Tile) -> Tile:
        return core.with_halo(self._engine.descriptor.halo, self._source.height, self._source.width, self._least)

    def _begin(self, tile: Pixels) -> _PendingWindow:
        """Have an engine work on a tile; those that work on one alone do so when they are asked for the answer."""
        engine, values = self._engine, self._values
        if self._streaming:
            answer = self._streaming.start(tile, values.low, values.high)
            return lambda window: answer()[window]
        dtype = np.float64 if engine.dtype == "float64" else np.float32
        return lambda window: values.from_unit(_run_tile(engine, values.to_unit(tile, dtype))[window])

    def _finish(self) -> int:
        """Wait for the tile that was started first, and keep it; its LR pixels, 0 where there was no memory for it."""
        first = self._in_flight[0]
        with self._halving():
            first.band.place(first.core, first.outer, first.answer)
            self._in_flight.popleft()
            return first.core.area
        return 0

    @contextmanager
    def _halving(self) -> Iterator[None]:
        """Where a tile does not fit, have it and what is under way to do again, in tiles of half the edge."""
        try:
            yield
        except OutOfMemory:
            self._todo.extendleft((each.band, each.core) for each in reversed(self._in_flight))
            self._in_flight.clear()
            edge = min(self._limit, self._todo[0][1].edge)
            if not self._may_halve or edge <= SMALLEST_TILE:
                raise
            self._limit, self._least = max(SMALLEST_TILE, edge // 4 * 2), (0, 0)


def _run_tile(engine: Engine, lr: UnitPixels) -> UnitPixels:
    """Grey goes through the network as three equal channels and comes back as their mean."""
    if lr.shape[2] == 3:
        return engine(lr)
    grey: UnitPixels = engine(np.repeat(lr, 3, axis=2)).mean(axis=2, keepdims=True)
    return grey


_ROWS = 32  # that stay in the caches from one step to the next


@dataclass(frozen=True)
class ValueRange:
    """The values that mean black and white in a picture: 0 and the largest integer, or two floats."""

    low: float
    high: float
    dtype: np.dtype[np.uint8 | np.uint16 | np.float32]

    def to_unit(self, pixels: Pixels, dtype: DTypeLike = np.float32) -> UnitPixels:
        """Pixels of any depth -> floats, `low` and `high` becoming 0 and 1; same shape."""
        values: UnitPixels = pixels.astype(dtype)
        if self.low:
            values -= self.low
        values *= 1.0 / (self.high - self.low)
        return values

    def from_unit(self, values: UnitPixels) -> Pixels:
        """The inverse of `to_unit`: clamped to the range, integers rounded to the nearest; same shape."""
        pixels: Pixels = np.empty(values.shape, self.dtype)
        for top in range(0, len(values), _ROWS):
            scaled = np.clip(values[top : top + _ROWS], 0.0, 1.0)
            scaled *= self.high - self.low
            if self.low:
                scaled += self.low
            pixels[top : top + _ROWS] = np.rint(scaled, out=scaled) if self.dtype.kind == "u" else scaled
        return pixels


def value_range(pixels: Pixels) -> ValueRange:
    """The range of a picture. Floats in [0, 1] have that range; others have their own extremes, so nothing is lost."""
    if pixels.dtype.kind == "u":
        return full_range(pixels.dtype)
    low, high = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    return ValueRange(low, high, pixels.dtype)


def full_range(dtype: np.dtype[Any]) -> ValueRange:
    """The range of every picture of integers."""
    return ValueRange(0.0, 255.0 if dtype == np.uint8 else 65535.0, dtype)
