"""Interface of engines, which run a network on tiles of pixels, and the description of a network.

Nothing here imports torch: OpenVINO runs without it. Engines are in native, torch_cpu.py, torch_gpu.py and
openvino.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import DscloraError

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean color of DIV2K's training pictures, RGB in [0, 1]; every architecture subtracts the mean from the input."""

PIXEL_RANGE = 255.0
"""Networks compute with pixels in [0, 255], as their papers do; callers pass and receive pixels in [0, 1]."""

NO_NORM = "no_norm"
"""Name of a tensor in community files; its presence says that the network takes RGB in [0, 1] without normalization."""

UnitPixels = NDArray[np.float32 | np.float64]
"""`(H, W, 3)` RGB, nominally in [0, 1], C-contiguous."""

PendingTile = Callable[[], NDArray[Any]]
"""Wait for an upscaled tile and return the pixels; raise the errors that an `Engine` raises."""


@dataclass(frozen=True)
class Descriptor:
    """A network in the eyes of callers: everything for tiling, memory planning and reports."""

    arch: str
    """Architecture: span, compact, edsr or rcan; for a network of spandrel, the name there in lower case."""

    scale: int
    """Factor from LR to HR, equal for both sides."""

    halo: int
    """Radius of the receptive field in LR pixels.

    An output pixel depends on no LR pixel that is further away. A tile that carries `halo` pixels of context on each
    side is therefore upscaled exactly as inside the whole picture.
    """

    floats_per_pixel: int
    """Activation values alive at the same time for each LR pixel; the memory of a tile is planned from the number."""

    supports_half: bool = True
    """Whether the network may run in float16."""

    exact_tiles: bool = True
    """False where a part of the network sees the whole picture: tiles then differ a little from the whole picture."""

    multiple: int = 1
    """Places and sizes of tiles are multiples of this number of LR pixels; above 1 for networks with windows."""

    traceable: bool = True
    """Whether tracers can follow the forward pass for every size; False for networks of other libraries."""


def span_descriptor(channels: int, blocks: int, scale: int) -> Descriptor:
    """Return the facts on a SPAN. The receptive-field radius is `3 * blocks + 3` LR pixels.

    Three 3x3 convolutions a block, conv_1, conv_2 and the upsampler add one pixel of radius each; the attention is
    pointwise and adds none.
    """
    return Descriptor("span", scale, halo=3 * blocks + 3, floats_per_pixel=15 * channels)


class Engine(Protocol):
    """Upscales tiles with a network."""

    name: str
    """Name of the library that runs the network: native, torch or openvino."""

    descriptor: Descriptor
    """The network that the engine runs."""

    device: str
    """Name of the device, such as cpu or cuda:0."""

    dtype: str
    """Floating-point type of the network: float16, float32 or float64."""

    @property
    def fp16_fallbacks(self) -> int:
        """Return the number of tiles so far with an unusable result in float16, computed again in float32."""
        ...

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """Upscale a tile.

        Args:
            tile: `(H, W, 3)` in [0, 1].

        Returns:
            `(scale*H, scale*W, 3)`, not clamped. The next call may write over the array.

        Raises:
            OutOfMemory: The tile does not fit the device.
            NotFinite: The result holds NaN or infinity.
        """
        ...


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine that works on several tiles at once."""

    pixels_in_flight: int
    """LR pixels that the engine wants to have started at the same time."""

    def start(self, tile: NDArray[Any], low: float, high: float) -> PendingTile:
        """Start to upscale a tile, without waiting for the result.

        Args:
            tile: `(H, W, 1 or 3)` pixels of any depth.
            low: Value of black in `tile`.
            high: Value of white in `tile`.

        Returns:
            A function that waits for `(scale*H, scale*W, 1 or 3)` pixels of the same dtype, clamped to the range from
            `low` to `high`; integers are rounded.

        Raises:
            OutOfMemory: The tile, or a tile started before, does not fit the device.
        """
        ...


def activation_bytes(engine: Engine) -> int:
    """Return the bytes of memory that the network needs for each LR pixel of a tile, halo included."""
    return engine.descriptor.floats_per_pixel * (2 if engine.dtype == "float16" else 4)


def require_finite(pixels: UnitPixels) -> UnitPixels:
    """Return the result of a network, of any shape. Raises NotFinite for NaN or infinity."""
    # NaN and infinity survive a sum, and a sum reads the array once without a temporary of the same size.
    with np.errstate(invalid="ignore"):
        total = pixels.sum()
    if not np.isfinite(total):
        raise NotFinite
    return pixels


class NotFinite(DscloraError):
    """The result of a network holds NaN or infinity."""

    def __init__(self) -> None:
        super().__init__(
            "the result of the network holds NaN or infinity in float32", "check the weights file; it may be damaged"
        )


class Ensemble:
    """The x8 geometric self-ensemble: mean over flips and transposes, turned back (EDSR, arXiv 1707.02921).

    A tile has the same halo on every side, so tiles stay exact under flips and transposes.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.descriptor = engine.descriptor
        self.device = engine.device
        self.dtype = engine.dtype

    @property
    def fp16_fallbacks(self) -> int:
        """Return the float32 fallbacks of the engine; every orientation of a tile counts."""
        return self._engine.fp16_fallbacks

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """Return the mean `(scale*H, scale*W, 3)` of eight runs on one tile `(H, W, 3)`."""
        total: UnitPixels = np.zeros((), tile.dtype)
        for transpose in (False, True):
            turned = tile.transpose(1, 0, 2) if transpose else tile
            for flip in ((), (0,), (1,), (0, 1)):
                # A copy even where NumPy calls the view contiguous: along a side of one pixel its stride may be
                # negative, which PyTorch refuses. Adding makes a new array, so the engine may write over the result of
                # the run before.
                result = np.flip(self._engine(np.flip(turned, flip).copy()), flip)
                total = total + (result.transpose(1, 0, 2) if transpose else result)
        return total / tile.dtype.type(8)
