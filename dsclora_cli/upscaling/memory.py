"""How much memory a picture takes: what `--max-memory` and `--dry-run` reckon with."""

from __future__ import annotations

from dataclasses import dataclass

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.inference.engine import Engine, value_bytes
from dsclora_cli.inference.tiling import SMALLEST_TILE, band_rows, tile_memory

MOST_PIXELS = 256 << 20
"""Bytes of pixels that may wait before the network, and as many after it."""

_PROCESS = {"openvino": 160 << 20, "torch": 360 << 20}
"""Resident memory with the engine's libraries and its weights, before any picture, as measured on Linux x86-64."""

_AROUND = 64 << 20  # what encoders, decoders and the allocator keep beside the pixels


def budget(max_memory: int | None) -> int:
    """Bytes of pixels that may wait before the network, and as many after it, where all of it has a limit."""
    return MOST_PIXELS if max_memory is None else min(MOST_PIXELS, max_memory // 8)


@dataclass(frozen=True)
class MemoryEstimate:
    """One picture on its way through a network.

    `passes` are height, width and scale of the LR side of each; `pixel_bytes` are those of a pixel in all channels.
    `banded` says that the result is written as its bands come and is never in memory as a whole, `reduced` that they
    are made smaller first. `waiting` are the bytes of pixels that may wait before the network, and as many after it.
    """

    passes: tuple[tuple[int, int, int], ...]
    pixel_bytes: int
    engine: Engine
    banded: bool
    reduced: bool
    waiting: int

    def peak(self, tile: int) -> int:
        """Bytes at most, with tiles of this edge; 0 is the whole picture."""
        height, width, _ = self.passes[0]
        lr = height * width * self.pixel_bytes
        *between, band = (self._band(each, tile) for each in self.passes)
        height, width, scale = self.passes[-1]
        whole = height * width * scale**2 * self.pixel_bytes
        hr = min(whole, max(self.waiting, 2 * band)) + band * (1 + self.reduced) if self.banded else 2 * whole
        pixels = lr + min(self.waiting, lr) + 2 * sum(between) + hr
        return _PROCESS[self.engine.name] + _AROUND + pixels + self._network(tile)

    def fitting_tile(self, limit: int, most: int) -> int:
        """The largest edge up to `most` with which the peak stays below the limit. Raises OutOfMemory."""
        fitting = next((edge for edge in range(most, SMALLEST_TILE - 1, -2) if self.peak(edge) <= limit), None)
        if fitting is None:
            least = self.peak(SMALLEST_TILE) / 1e9
            hint = "raise --max-memory" if self.banded else "raise --max-memory, or write PNG, JPEG or TIFF"
            raise OutOfMemory(f"needs about {least:.2g} GB, more than --max-memory {limit / 1e9:.2g}GB", hint)
        return fitting

    def _band(self, each: tuple[int, int, int], tile: int) -> int:
        """Bytes of a band that a pass makes."""
        height, width, scale = each
        return band_rows(height, tile) * width * scale**2 * self.pixel_bytes

    def _network(self, tile: int) -> int:
        """The network's own memory for one tile, its halo included, and its pixels as floats on both ends."""
        height, width, scale = self.passes[-1]
        halo = 2 * self.engine.descriptor.halo
        rows, columns = (min(side, (tile or side) + halo) for side in (height, width))
        values = rows * columns * 3 * 4 * (1 + scale**2)
        return tile_memory(self.engine.descriptor, rows, columns, value_bytes(self.engine)) + values
