"""How a picture is cut into tiles, and how large they may be."""

from __future__ import annotations

from dataclasses import dataclass

from dsclora_cli.runtime.descriptor import Descriptor

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
