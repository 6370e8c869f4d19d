"""Upscale a picture tile by tile, with the same result as for the whole picture at once.

Start with `upscale_array` for pixels in memory, or `upscale_bands` for pictures that are read and written in bands.

A tile is a core and a halo. The core tiles cover the picture once; the halo is context of at least the network's
receptive-field radius, clipped at the borders of the picture, so that true borders see the same zero padding as in the
whole picture. The upscaled halo is dropped. In float64 the result equals the whole picture to rounding (1e-12); in
float32 the order of sums depends on the shape of a tile, which changes a result by at most one 8-bit level.
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
from dsclora_cli.inference.engine import Engine, StreamingEngine, UnitPixels

SMALLEST_TILE = 16
"""Edge of the smallest core that out-of-memory errors lead to, in LR pixels."""

LARGEST_AUTO_TILE = 512
"""Edge of the largest core that `--tile auto` takes, in LR pixels: larger tiles overflow the caches of a CPU."""

_Window = tuple[slice, slice]
"""Rows and columns of an HR array."""

_PendingWindow = Callable[[_Window], Pixels]
"""Wait for an upscaled tile, and return a window of the tile."""


@dataclass(frozen=True)
class TileOptions:
    """Options for cutting a picture into tiles."""

    tile: int
    """Edge of a core in LR pixels; 0 means one tile for the whole picture."""

    may_halve: bool = False
    """On out-of-memory, retry with tiles of half the edge instead of raising."""


def upscale_array(pixels: Pixels, engine: Engine, options: TileOptions) -> Pixels:
    """Upscale a picture in memory by tiles, with the same result as for the whole picture at once.

    Args:
        pixels: `(H, W, 1 or 3)`, uint8, uint16, or floats, nominally in [0, 1].
        engine: Runs the network on tile after tile.
        options: How to cut the picture.

    Returns:
        `(scale*H, scale*W, 1 or 3)` pixels of the same dtype.

    Raises:
        OutOfMemory: A tile does not fit the device, and smaller tiles are not allowed or do not fit either.
    """
    height, width, channels = pixels.shape
    scale = engine.descriptor.scale
    bands = upscale_bands(ArraySource(pixels), engine, value_range(pixels), options)
    return stack_bands(bands, (height * scale, width * scale, channels))


def upscale_bands(
    source: RowSource,
    engine: Engine,
    values: ValueRange,
    options: TileOptions,
    on_pixels: Callable[[int], None] = lambda pixels: None,
) -> Iterator[Pixels]:
    """Upscale a picture by tiles, reading bands of LR rows and yielding bands of HR rows from top to bottom.

    All tiles have the same shape, halo included, because engines are quickest at the shape they have just run. Only
    after an out-of-memory error tiles get smaller: the tile edge is halved and upscaling resumes from the failed tile.

    Args:
        source: A picture of 1 (gray) or 3 (RGB) channels.
        engine: Runs the network.
        values: Values of black and white in the picture.
        options: How to cut the picture.
        on_pixels: Callback for each finished tile, with the number of LR pixels in the core of the tile.

    Returns:
        Bands `(rows, scale*W, 1 or 3)` of the dtype in `values`.

    Raises:
        OutOfMemory: A tile does not fit the device, and smaller tiles are not allowed or do not fit either.
    """
    return _TiledUpscaling(source, engine, values, options).bands(on_pixels)


class _TiledUpscaling:
    """A picture on the way through an engine, with as many tiles in flight as the engine wants."""

    def __init__(self, source: RowSource, engine: Engine, values: ValueRange, options: TileOptions) -> None:
        self._source, self._engine, self._values = source, engine, values
        self._streaming = engine if isinstance(engine, StreamingEngine) else None
        self._may_halve = options.may_halve
        # Cores with a longer edge are split before they start; out-of-memory errors lower the limit.
        self._limit = options.tile or max(source.height, source.width)
        bands, halo = plan_bands(source.height, source.width, options.tile), engine.descriptor.halo
        # The first core is the largest. Tiles at borders, where the halo is clipped, grow to the same shape.
        self._least = bands[0][0].rows + 2 * halo, bands[0][0].columns + 2 * halo
        self._later = iter(bands)
        self._unfinished: deque[_Band] = deque()
        self._todo: deque[tuple[_Band, Tile]] = deque()
        self._in_flight: deque[_TileInFlight] = deque()

    def bands(self, on_pixels: Callable[[int], None]) -> Iterator[Pixels]:
        """Yield the HR bands; see `upscale_bands`."""
        while self._start_tiles():
            area = self._finish_tile()
            if not area:  # out of memory: the tile is back among those to start
                continue
            on_pixels(area)
            # Tiles finish in the order of cores, so the first unfinished band is the one that may be complete.
            if not self._unfinished[0].pixels_left:
                yield self._unfinished.popleft().hr

    def _start_tiles(self) -> bool:
        """Start tiles until enough are in flight; return False when the whole picture is finished."""
        # An engine that streams nothing has one tile in flight at a time.
        most = self._streaming.pixels_in_flight if self._streaming else 0
        while not self._in_flight or sum(tile.outer.area for tile in self._in_flight) < most:
            if not self._todo and not self._open_band():
                break
            band, core = self._todo[0]
            if core.edge > self._limit:
                self._todo.popleft()
                self._todo.extendleft((band, part) for part in reversed(core.split(self._limit)))
                continue
            with self._halving():
                outer = self._with_halo(core)
                # A view: the LR pixels of the tile are not copied.
                lr = band.rows[outer.top - band.rows_top : outer.bottom - band.rows_top, outer.left : outer.right]
                self._in_flight.append(_TileInFlight(band, core, outer, self._start(lr)))
                # Removed last: a tile that did not start stays the first to do.
                self._todo.popleft()
        return bool(self._in_flight)

    def _open_band(self) -> bool:
        """Read the rows of the next band and queue the cores of the band; return False after the last band."""
        cores = next(self._later, None)
        if cores is None:
            return False
        band = _Band(self._source, cores, self._with_halo(cores[0]), self._engine.descriptor.scale, self._values)
        self._unfinished.append(band)
        self._todo.extend((band, core) for core in cores)
        return True

    def _with_halo(self, core: Tile) -> Tile:
        """Return the core grown by the halo, inside the picture, and to the shape of the other tiles."""
        halo, (rows, columns) = self._engine.descriptor.halo, self._least
        multiple, height, width = self._engine.descriptor.multiple, self._source.height, self._source.width
        return Tile(
            *_on_grid(_grown(core.top - halo, core.bottom + halo, height, rows), height, multiple),
            *_on_grid(_grown(core.left - halo, core.right + halo, width, columns), width, multiple),
        )

    def _start(self, tile: Pixels) -> _PendingWindow:
        """Start the engine on a tile `(H, W, 1 or 3)`; an engine without streaming runs when the result is read."""
        engine, values = self._engine, self._values
        if self._streaming:
            pending = self._streaming.start(tile, values.low, values.high)
            return lambda window: pending()[window]

        def run(window: _Window) -> Pixels:
            lr = values.to_unit(tile, np.float64 if engine.dtype == "float64" else np.float32)
            # The network takes RGB: gray runs as three equal channels and comes back as their mean.
            hr = engine(lr) if lr.shape[2] == 3 else engine(np.repeat(lr, 3, axis=2)).mean(axis=2, keepdims=True)
            if hr.shape[:2] != (lr.shape[0] * engine.descriptor.scale, lr.shape[1] * engine.descriptor.scale):
                hint = "free some memory, or choose a smaller --tile"
                raise OutOfMemory(f"the engine returned no picture for a tile of {lr.shape[1]}x{lr.shape[0]}", hint)
            return values.from_unit(hr[window])

        return run

    def _finish_tile(self) -> int:
        """Wait for the oldest tile in flight, and return the LR pixels of the core; 0 on out-of-memory."""
        first = self._in_flight[0]
        with self._halving():
            first.band.place(first.core, first.outer, first.pending)
            self._in_flight.popleft()
            return first.core.area
        return 0

    @contextmanager
    def _halving(self) -> Iterator[None]:
        """On out-of-memory, queue the tiles in flight again and halve the tile edge; re-raise where that is no use."""
        try:
            yield
        except OutOfMemory:
            # A streaming engine may raise for any tile in flight, so all of them start again, in order.
            self._todo.extendleft((tile.band, tile.core) for tile in reversed(self._in_flight))
            self._in_flight.clear()
            edge = min(self._limit, self._todo[0][1].edge)
            if not self._may_halve or edge <= SMALLEST_TILE:
                raise
            # Half the edge, rounded down to an even number. Growing tiles to one shape would undo the halving.
            self._limit, self._least = max(SMALLEST_TILE, edge // 4 * 2), (0, 0)


class _Band:
    """The LR rows of a band of cores with halo, and the HR rows of the cores."""

    def __init__(self, source: RowSource, cores: list[Tile], outer: Tile, scale: int, values: ValueRange) -> None:
        """Read the LR rows of a band; `outer` is the first core with the halo."""
        self._scale = scale
        self._top = cores[0].top
        self.rows_top, self.rows = outer.top, source.rows(outer.top, outer.bottom)
        height, width = cores[0].bottom - self._top, source.width
        self.pixels_left = height * width
        self.hr: Pixels = np.empty((height * scale, width * scale, source.channels), values.dtype)

    def place(self, core: Tile, outer: Tile, pending: _PendingWindow) -> None:
        """Copy the core of an upscaled tile into the HR rows, and drop the halo."""
        scale = self._scale
        # The core in the HR pixels of the tile, and then in the HR rows of the band.
        inside = (
            slice((core.top - outer.top) * scale, (core.bottom - outer.top) * scale),
            slice((core.left - outer.left) * scale, (core.right - outer.left) * scale),
        )
        rows = slice((core.top - self._top) * scale, (core.bottom - self._top) * scale)
        self.hr[rows, core.left * scale : core.right * scale] = pending(inside)
        self.pixels_left -= core.area


@dataclass(frozen=True)
class _TileInFlight:
    """A tile started by the engine."""

    band: _Band
    core: Tile
    outer: Tile
    """The core with the halo."""

    pending: _PendingWindow


class RowSource(Protocol):
    """An LR picture, read in bands of rows."""

    height: int
    width: int
    channels: int

    def rows(self, top: int, bottom: int) -> Pixels:
        """Return rows `top` to `bottom` (exclusive), `(bottom - top, width, channels)`."""
        ...


class ArraySource:
    """A picture in memory, `(H, W, C)`."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.height, self.width, self.channels = pixels.shape

    def rows(self, top: int, bottom: int) -> Pixels:
        """Return a view of the rows."""
        return self._pixels[top:bottom]


class BandSource:
    """A picture `(H, W, C)` that arrives in bands; bands above the rows in use are dropped.

    Rows must be read from top to bottom: `top` never decreases from one call of `rows` to the next.
    """

    def __init__(self, shape: tuple[int, ...], bands: Iterable[Pixels]) -> None:
        self.height, self.width, self.channels = shape
        self._bands = iter(bands)
        self._held: deque[Pixels] = deque()
        self._top = self._bottom = 0

    def rows(self, top: int, bottom: int) -> Pixels:
        """Return rows `top` to `bottom` (exclusive), and drop the bands above `top`."""
        while self._bottom < bottom:
            self._held.append(next(self._bands))
            self._bottom += len(self._held[-1])
        while self._top + len(self._held[0]) <= top:
            self._top += len(self._held.popleft())
        held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        return held[top - self._top : bottom - self._top]


@dataclass(frozen=True)
class Tile:
    """A rectangle of LR pixels; `bottom` and `right` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        """Return the height."""
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        """Return the width."""
        return self.right - self.left

    @property
    def edge(self) -> int:
        """Return the longer side."""
        return max(self.rows, self.columns)

    @property
    def area(self) -> int:
        """Return the number of pixels."""
        return self.rows * self.columns

    def split(self, edge: int) -> list[Tile]:
        """Cut the tile into an even grid of tiles no larger than `edge`."""
        columns = _cuts(self.left, self.right, edge)
        return [Tile(t, b, left, r) for t, b in _cuts(self.top, self.bottom, edge) for left, r in columns]


def plan_bands(height: int, width: int, tile: int) -> list[list[Tile]]:
    """Return the cores of a picture, a list for every band of rows; `tile` 0 is a single core for the whole picture."""
    edge = tile or max(height, width)
    columns = _cuts(0, width, edge)
    return [[Tile(top, bottom, left, right) for left, right in columns] for top, bottom in _cuts(0, height, edge)]


def band_rows(height: int, tile: int) -> int:
    """Return the LR rows of the first band, which is the highest."""
    return _cuts(0, height, tile or height)[0][1]


def count_tiles(height: int, width: int, tile: int) -> int:
    """Return the number of cores that `plan_bands` makes."""
    bands = plan_bands(height, width, tile)
    return len(bands) * len(bands[0])


def _grown(start: int, stop: int, size: int, least: int) -> tuple[int, int]:
    """Clip an interval to 0 and `size`, and lengthen a shorter one to `least`, first towards `size`."""
    start, stop = max(0, start), min(size, stop)
    stop = max(stop, min(size, start + least))
    return min(start, max(0, stop - least)), stop


def _on_grid(interval: tuple[int, int], size: int, multiple: int) -> tuple[int, int]:
    """Lengthen an interval inside 0 and `size` until both ends are multiples; `size` itself is always a good end."""
    start, stop = interval
    return start // multiple * multiple, min(size, -(-stop // multiple) * multiple)


def _cuts(start: int, stop: int, edge: int) -> list[tuple[int, int]]:
    """Return intervals that cover `start` to `stop`, of equal even length up to `edge`; the last may be shorter."""
    count = -(-(stop - start) // edge)
    length = -(-(stop - start) // count)
    length = min(length + length % 2, max(edge, 1))
    return [(a, min(a + length, stop)) for a in range(start, stop, length)]


_ROWS = 32  # rows that stay in the caches from one step of `from_unit` to the next


@dataclass(frozen=True)
class ValueRange:
    """The values of black and white in a picture; only this class scales, clamps and rounds pixels for a network."""

    low: float
    """Value of black, which the network sees as 0."""

    high: float
    """Value of white, which the network sees as 1."""

    dtype: np.dtype[np.uint8 | np.uint16 | np.float32]
    """dtype of the pixels that `from_unit` returns."""

    def to_unit(self, pixels: Pixels, dtype: DTypeLike = np.float32) -> UnitPixels:
        """Return pixels of any depth as floats of the same shape; `low` and `high` become 0 and 1."""
        values: UnitPixels = pixels.astype(dtype)
        if self.low:
            values -= self.low
        values *= 1.0 / (self.high - self.low)
        return values

    def from_unit(self, values: UnitPixels) -> Pixels:
        """Return the inverse of `to_unit`: clamped to the range, integers rounded to the nearest; same shape."""
        pixels: Pixels = np.empty(values.shape, self.dtype)
        for top in range(0, len(values), _ROWS):
            scaled = np.clip(values[top : top + _ROWS], 0.0, 1.0)
            scaled *= self.high - self.low
            if self.low:
                scaled += self.low
            pixels[top : top + _ROWS] = np.rint(scaled, out=scaled) if self.dtype.kind == "u" else scaled
        return pixels


def value_range(pixels: Pixels) -> ValueRange:
    """Return the range of a picture of any shape.

    Floats inside [0, 1] have the range 0 to 1; other floats have their own extremes, so that no value is lost.
    """
    if pixels.dtype.kind == "u":
        return full_range(pixels.dtype)
    low, high = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    return ValueRange(low, high, pixels.dtype)


def full_range(dtype: np.dtype[Any]) -> ValueRange:
    """Return the range of pictures of an integer dtype, uint8 or uint16."""
    return ValueRange(0.0, 255.0 if dtype == np.uint8 else 65535.0, dtype)
