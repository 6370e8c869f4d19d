"""What runs a network: a call from one tile to one upscaled tile, whatever does the arithmetic. No torch here.

What the rest of the program must know of a network, stated by the network itself, without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import DscloraError

UnitPixels = NDArray[np.float32 | np.float64]
"""`(H, W, 3)` RGB, nominally in [0, 1], C-contiguous."""

PendingTile = Callable[[], NDArray[Any]]
"""Waits for an upscaled tile; raises as an `Engine` does."""


class Engine(Protocol):
    """Upscales tiles with one network. `name` is that of what does the arithmetic: torch or openvino."""

    name: str
    descriptor: Descriptor
    device: str
    dtype: str

    @property
    def fp16_fallbacks(self) -> int:
        """How many tiles so far had an unusable answer in half precision and were run again in float32."""
        ...

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """`(H, W, 3)` in [0, 1] -> `(scale*H, scale*W, 3)`, not clamped; the next call may write over it.

        Raises OutOfMemory for a tile that does not fit the device, and DscloraError where the answer is not finite.
        """
        ...


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine that works on several tiles at once."""

    pixels_in_flight: int
    """How many LR pixels the engine wants to have started at once."""

    def start(self, tile: NDArray[Any], low: float, high: float) -> PendingTile:
        """`(H, W, 1 or 3)` pixels, of which `low` and `high` mean 0 and 1 -> `(scale*H, scale*W, 1 or 3)` such pixels.

        Answers are clamped to that range, and integers rounded. Raises OutOfMemory, of this tile or those before.
        """
        ...


def value_bytes(engine: Engine) -> int:
    """Bytes of one of the values that an engine computes with."""
    return 2 if engine.dtype == "float16" else 4


def require_finite(answer: UnitPixels) -> UnitPixels:
    """The answer of a network in float32. Raises DscloraError where there is NaN or infinity in it."""
    with np.errstate(invalid="ignore"):
        total = answer.sum()
    if not np.isfinite(total):
        raise not_finite_error()
    return answer


def not_finite_error() -> DscloraError:
    """What is raised where a network answers NaN or infinity."""
    return DscloraError("the network answered NaN or infinity in float32", "check the weights file; it may be damaged")


class Ensemble:
    """The x8 geometric self-ensemble: the mean over flips and transposes, each turned back (EDSR, arXiv 1707.02921).

    A tile's halo is the same on every side, so tiling stays exact.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.descriptor = engine.descriptor
        self.device = engine.device
        self.dtype = engine.dtype

    @property
    def fp16_fallbacks(self) -> int:
        """Tiles run again in float32, all orientations counted."""
        return self._engine.fp16_fallbacks

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """Eight runs of the engine for one tile."""
        total: UnitPixels = np.zeros((), tile.dtype)
        for transpose in (False, True):
            turned = tile.transpose(1, 0, 2) if transpose else tile
            for flip in ((), (0,), (1,), (0, 1)):
                result = np.flip(self._engine(np.ascontiguousarray(np.flip(turned, flip))), flip)
                total = total + (result.transpose(1, 0, 2) if transpose else result)
        return total / tile.dtype.type(8)


@dataclass(frozen=True)
class Descriptor:
    """A network as its callers see it.

    `halo` is the receptive-field radius in LR pixels: an output pixel depends on no LR pixel further away, so a
    tile that carries this many pixels of context on each side is upscaled exactly as the whole picture would be.
    `floats_per_pixel` is the number of activation values alive at once per LR pixel, from which memory is planned.
    Where a part of the network sees the whole picture, `exact_tiles` is False: tiles differ a little from the whole.
    """

    arch: str
    scale: int
    channels: int
    blocks: int
    halo: int
    floats_per_pixel: int
    supports_half: bool = True
    exact_tiles: bool = True
