"""The native engine: any SPAN on the CPU, in float32."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import OutOfMemory, UsageError
from dsclora_cli.host import usable_cpus
from dsclora_cli.inference.engine import NotFinite, PendingTile, UnitPixels
from dsclora_cli.inference.native.library import CPU_VARIABLE, chosen_cpu, load_library
from dsclora_cli.inference.native.weights import SpanWeights

_TYPES: dict[np.dtype[Any], int] = {np.dtype(np.uint8): 0, np.dtype(np.uint16): 1, np.dtype(np.float32): 2}
"""Numbers of the pixel types in the library."""

_FLOATS_OF_MAP = 0.26
"""Floats of a feature map for each channel and pixel of a tile of 256: the library keeps a few bands of rows of a map.

Measured: 36, 80 and 148 MB for tiles of 256, 554 and 1066 pixels a side, so larger tiles need less for each pixel.
"""

_NO_MEMORY, _NOT_FINITE = 1, 2  # what `dsclora_native_upscale` returns


class NativeEngine:
    """Runs a SPAN with the native library; results have the same bytes for any number of threads.

    Pixels of 8 and 16 bits go into the library and come back as they are: scaling, limiting and rounding are parts of
    the first and of the last layer.
    """

    name, device, dtype, fp16_fallbacks = "native", "cpu", "float32", 0

    pixels_in_flight = 0
    """The library works on a tile with all threads, so a second tile in flight gains nothing."""

    def __init__(self, weights: SpanWeights, threads: int | None = None) -> None:
        """Open the network. Raises RuntimeError without the library, OutOfMemory, and UsageError for the wrong CPU."""
        floats = math.ceil(_FLOATS_OF_MAP * weights.channels * (3 * weights.blocks + 4))
        self.descriptor = replace(weights.descriptor, floats_per_pixel=floats)
        self._threads = threads or usable_cpus()
        self._library = load_library()
        sizes = weights.channels, weights.blocks, weights.descriptor.scale
        self._handle = self._library.dsclora_native_open(
            *sizes, weights.mean.ctypes.data, weights.pixel_range, weights.values.ctypes.data, chosen_cpu().encode()
        )
        if not self._handle and not chosen_cpu():  # every CPU runs the portable kernels
            raise OutOfMemory("the network does not fit the memory of cpu", "close other programs to free memory")
        if not self._handle:
            problem = f"this CPU cannot run the native engine with {CPU_VARIABLE}={chosen_cpu()}"
            raise UsageError(problem, "leave the variable out, or choose avx512, avx2, neon or portable")
        # Not at exit: after Ctrl-C for the second time, a thread may still be in the library, and would crash.
        weakref.finalize(self, self._library.dsclora_native_close, self._handle).atexit = False

    @property
    def cpu(self) -> str:
        """Return the instruction set in use: avx512, avx2, neon or portable."""
        name: bytes = self._library.dsclora_native_cpu(self._handle)
        return name.decode()

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """Upscale a tile; see `Engine`."""
        return self._upscale(np.ascontiguousarray(tile, np.float32), 0.0, 1.0, limited=False)

    def start(self, tile: NDArray[Any], low: float, high: float) -> PendingTile:
        """Upscale a tile when the result is asked for; see `StreamingEngine`."""
        return lambda: self._upscale(np.ascontiguousarray(tile), low, high, limited=True)

    def _upscale(self, tile: NDArray[Any], low: float, high: float, *, limited: bool) -> NDArray[Any]:
        height, width, channels = tile.shape
        scale = self.descriptor.scale
        try:
            result = np.empty((height * scale, width * scale, channels), tile.dtype)
        except MemoryError as error:
            raise self._out_of_memory(tile) from error
        pixels = tile.ctypes.data, result.ctypes.data, height, width, _TYPES[tile.dtype], channels
        status = self._library.dsclora_native_upscale(self._handle, *pixels, low, high, limited, self._threads)
        if status == _NO_MEMORY:
            raise self._out_of_memory(tile)
        if status == _NOT_FINITE:
            raise NotFinite
        return result

    def _out_of_memory(self, tile: NDArray[Any]) -> OutOfMemory:
        message = f"a tile of {tile.shape[1]}x{tile.shape[0]} does not fit the memory of {self.device}"
        return OutOfMemory(message, "close other programs to free memory")
