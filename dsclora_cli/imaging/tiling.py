"""Upscaling by tiles, equal to upscaling the whole picture, from a source of rows to bands of them.

Every tile carries a halo of at least the network's receptive-field radius, clipped at the picture's borders so that
true borders see the same zero padding as untiled; only its core is kept. In float64 the result is that of the whole
picture to rounding (1e-12); in float32 the order of sums differs with the tile's shape, by at most one 8-bit level.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.imaging.picture import Pixels
from dsclora_cli.imaging.ranges import ValueRange
from dsclora_cli.runtime.descriptor import Descriptor
from dsclora_cli.runtime.engine import Engine, Values

SMALLEST_TILE = 16
LARGEST_AUTO_TILE = 512


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


@dataclass(frozen=True)
class TileRun:
    """How to tile: the core edge (0 = whole picture), and whether a tile that does not fit may be halved."""

    tile: int
    may_halve: bool = False


class _Band:
    """The LR rows that one band of cores needs, and the HR rows that come of it."""

    def __init__(self, source: RowSource, cores: list[Tile], outer: Tile, scale: int, values: ValueRange) -> None:
        """`outer` is the first of the cores with its halo."""
        self._scale, self._values = scale, values
        self._top = cores[0].top
        self._rows_top, self._rows = outer.top, source.rows(outer.top, outer.bottom)
        height, width = cores[0].bottom - self._top, source.width
        self.hr: Pixels = np.empty((height * scale, width * scale, source.channels), values.dtype)

    def lr(self, outer: Tile, dtype: DTypeLike) -> Values:
        """A tile with its halo, in [0, 1]."""
        rows = self._rows[outer.top - self._rows_top : outer.bottom - self._rows_top, outer.left : outer.right]
        return self._values.to_unit(rows, dtype)

    def place(self, core: Tile, outer: Tile, sr: Values) -> None:
        """Keep the core of an upscaled tile, dropping its halo."""
        inside = _window(core, outer.top, outer.left, self._scale)
        self.hr[_window(core, self._top, 0, self._scale)] = self._values.from_unit(sr[inside])


def _window(core: Tile, top: int, left: int, scale: int) -> tuple[slice, slice]:
    """Where a core lies in an HR array whose first pixel is LR pixel (`top`, `left`)."""
    return (
        slice((core.top - top) * scale, (core.bottom - top) * scale),
        slice((core.left - left) * scale, (core.right - left) * scale),
    )


def upscale_bands(
    source: RowSource,
    engine: Engine,
    values: ValueRange,
    run: TileRun,
    on_pixels: Callable[[int], None] = lambda pixels: None,
) -> Iterator[Pixels]:
    """Upscale a picture of 1 (grey) or 3 (RGB) channels: bands of HR rows, from top to bottom.

    `values` is the range of its pixels; `on_pixels` hears of each finished tile, in LR pixels. When the device runs
    out of memory and the run `may_halve`, the tile at hand is cut, and all later ones, and work goes on from there.
    Until then all tiles have one shape, halo included: engines are quickest at what they have just done.
    """
    dtype = np.float64 if engine.dtype == "float64" else np.float32
    limit = run.tile or max(source.height, source.width)
    bands, halo = plan_bands(source.height, source.width, run.tile), engine.descriptor.halo
    least = bands[0][0].rows + 2 * halo, bands[0][0].columns + 2 * halo
    for cores in bands:
        outer = cores[0].with_halo(halo, source.height, source.width, least)
        band = _Band(source, cores, outer, engine.descriptor.scale, values)
        todo = deque(cores)
        while todo:
            core = todo.popleft()
            if core.edge > limit:
                todo.extendleft(reversed(core.split(limit)))
                continue
            outer = core.with_halo(halo, source.height, source.width, least)
            try:
                band.place(core, outer, _run_tile(engine, band.lr(outer, dtype)))
            except OutOfMemory:
                if not run.may_halve or core.edge <= SMALLEST_TILE:
                    raise
                limit, least = max(SMALLEST_TILE, core.edge // 4 * 2), (0, 0)
                todo.appendleft(core)
            else:
                on_pixels(core.area)
        yield band.hr


def _run_tile(engine: Engine, lr: Values) -> Values:
    """Grey goes through the network as three equal channels and comes back as their mean."""
    if lr.shape[2] == 3:
        return engine(lr)
    grey: Values = engine(np.repeat(lr, 3, axis=2)).mean(axis=2, keepdims=True)
    return grey
