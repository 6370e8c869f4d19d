"""Estimate the peak memory of a picture, for `--max-memory` and `--dry-run`."""

from __future__ import annotations

from dataclasses import dataclass

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.inference.engine import Engine, activation_bytes
from dsclora_cli.inference.tiling import SMALLEST_TILE, band_rows

MOST_WAITING_BYTES = 256 << 20
"""Bytes of pixels that may wait before the network; as many again may wait after the network."""

_PROCESS = {"native": 90 << 20, "openvino": 160 << 20, "torch": 360 << 20}
"""Resident bytes of each engine's libraries and weights, before any picture, measured on Linux x86-64."""

_CODECS = 64 << 20
"""Bytes that encoders, decoders and the allocator keep in addition to the pixels."""


def pixel_budget(max_memory: int | None) -> int:
    """Return the bytes of pixels that may wait before the network, and again after the network."""
    # An eighth for each of the two: the rest is for the tile, the process and the pixels being worked on.
    return MOST_WAITING_BYTES if max_memory is None else min(MOST_WAITING_BYTES, max_memory // 8)


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of a picture, for any tile size. Bytes are on the high side."""

    passes: tuple[tuple[int, int, int], ...]
    """(height, width, scale) of the input of every pass."""
    pixel_bytes: int
    """Bytes of a pixel in all channels."""
    engine: Engine
    streamed: bool
    """Whether the result is written band by band, and never is in memory whole."""
    reduced: bool
    """Whether the last pass is larger than the result, and bands are reduced before they are written."""
    waiting: int
    """Bytes of pixels that may wait before the network, and again after the network."""
    encoder_bytes: int = 0
    """Bytes that the encoder takes for a pixel of a result that is written whole."""
    is_file: bool = True
    """Whether the result is written to a file."""

    def peak(self, tile: int) -> int:
        """Return the largest number of bytes with tiles of this edge; 0 is the whole picture."""
        # The decoded picture may exist twice: in the decoder, and waiting before the network.
        height, width, _ = self.passes[0]
        lr = height * width * self.pixel_bytes
        lr += min(self.waiting, lr)
        *between, band = (
            band_rows(height, tile) * width * scale**2 * self.pixel_bytes for height, width, scale in self.passes
        )
        # Between two passes, one band is read while the next band is made.
        between_passes = 2 * sum(between)
        height, width, scale = self.passes[-1]
        hr = height * width * scale**2 * self.pixel_bytes
        if self.streamed:
            hr = min(hr, max(self.waiting, 2 * band)) + band * (1 + self.reduced)
        else:
            # Written whole, a result exists twice: as collected bands, and inside the encoder.
            hr = 2 * hr + height * width * scale**2 * self.encoder_bytes
        # One tile with halo: network activations, and the pixels as float32 at both ends. The last pass has the
        # largest picture, so only there a tile may reach the full edge.
        halo = self.engine.descriptor.halo
        rows, columns = (min(side, (tile or side) + 2 * halo) for side in (height, width))
        network = rows * columns * (activation_bytes(self.engine) + 3 * 4 * (1 + scale**2))
        return _PROCESS[self.engine.name] + _CODECS + lr + between_passes + hr + network

    def require_free(self, free: int) -> None:
        """Raise OutOfMemory where a result that is written whole does not fit into `free` bytes, whatever the tile."""
        needed = self.peak(SMALLEST_TILE) - _PROCESS[self.engine.name]
        if not self.streamed and needed > free:
            raise OutOfMemory(
                f"needs about {needed / 1e9:.2g} GB, because this format is written whole, and {free / 1e9:.2g} GB are"
                " free",
                "write PNG, JPEG or TIFF, or close other programs",
            )

    def fitting_tile(self, limit: int, most: int) -> int:
        """Return the largest edge up to `most` whose peak is at most `limit` bytes. Raises OutOfMemory for no edge."""
        fitting = next((edge for edge in range(most, SMALLEST_TILE - 1, -2) if self.peak(edge) <= limit), None)
        if fitting is None:
            least = self.peak(SMALLEST_TILE) / 1e9
            other = ", or write PNG, JPEG or TIFF" if self.is_file and not self.streamed else ""
            raise OutOfMemory(
                f"needs about {least:.2g} GB, more than --max-memory {limit / 1e9:.2g}GB", f"raise --max-memory{other}"
            )
        return fitting
