"""Measure how faithful results are: results reduced to the size of their inputs, against the inputs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.imaging.color import convert_pixels
from dsclora_cli.imaging.metrics import luma, psnr_of_error
from dsclora_cli.imaging.resize import StreamedBicubic
from dsclora_cli.imaging.types import AnyFrame, Frame, Pixels, StreamedFrame, regroup_bands, stack_bands

_STEP_VALUES = 1 << 20
"""Values of a result that are reduced at once: sums of the kernel are in float64, eight times the size of pixels."""


def measure_pixels(pixels: Pixels, upscaled: Pixels) -> float | None:
    """Return the faithfulness of an upscaled picture `(H, W, 1 to 4)` in dB; None for floating-point pixels."""
    if pixels.dtype.kind == "f":
        return None
    meter = FaithfulnessMeter()
    stack_bands(
        meter.upscale(Frame(pixels), lambda _: StreamedFrame(upscaled.shape, [upscaled])).bands(), upscaled.shape
    )
    return meter.decibels


class FaithfulnessMeter:
    """Measures the results of a picture while their bands pass by.

    Every frame is reduced by MATLAB's bicubic, as benchmarks make their inputs. The difference to the input is measured
    in luma, with transparent pixels on white, as in `dsclora compare`. Only the thread of the network uses the meter
    until the last band is passed on.
    """

    def __init__(self) -> None:
        self._squares = 0.0
        self._pixels = 0

    @property
    def decibels(self) -> float | None:
        """Return the PSNR over all frames so far, infinity without any difference; None before the first frame."""
        return psnr_of_error(self._squares / self._pixels) if self._pixels else None

    def upscale(self, frame: AnyFrame, upscale: Callable[[AnyFrame], StreamedFrame]) -> StreamedFrame:
        """Return the upscaled frame, measured while its bands are read.

        Args:
            frame: `(H, W, 1 to 4)`, uint8 or uint16.
            upscale: Returns the upscaled frame; reads rows of the input before the same rows of the result.
        """
        source = _Rows(frame)
        result = upscale(source.frame)
        return StreamedFrame(result.shape, self._measured(result, source), result.duration_ms)

    def _measured(self, result: StreamedFrame, source: _Rows) -> Iterator[Pixels]:
        rows, columns, channels = result.shape
        height, width = source.frame.shape[:2]
        reducer = StreamedBicubic(rows, width, height)
        at_once = max(1, _STEP_VALUES // (columns * channels))
        for band in result.bands():
            # Before the band goes on: with the last band, the other threads take the picture as finished.
            for step in regroup_bands([band], at_once):
                reduced = reducer.add(_to_rgb(step))
                if reduced is not None:
                    difference = luma(reduced) - source.take(len(reduced))
                    self._squares += float(np.sum(difference**2))
                    self._pixels += difference.size
            yield band


class _Rows:
    """Luma of the rows of an input, kept until the same rows of the result come."""

    def __init__(self, frame: AnyFrame) -> None:
        self.frame = frame
        """Frame to upscale; of bands, each is kept as luma in passing."""
        self._waiting: deque[NDArray[np.float32]] = deque()
        self._taken = 0
        if not isinstance(frame, Frame):
            self.frame = StreamedFrame(frame.shape, self._kept(frame.bands()), frame.duration_ms)

    def _kept(self, bands: Iterator[Pixels]) -> Iterator[Pixels]:
        for band in bands:
            # float32 is exact to 0.00001 levels, and half as large.
            self._waiting.append(luma(_to_rgb(band)).astype(np.float32))
            yield band

    def take(self, rows: int) -> NDArray[np.floating]:
        """Return the luma of the next rows `(rows, W)`."""
        if isinstance(self.frame, Frame):
            self._taken += rows
            return luma(_to_rgb(self.frame.pixels[self._taken - rows : self._taken]))
        parts = []
        while rows:
            first = self._waiting.popleft()
            if len(first) > rows:
                self._waiting.appendleft(first[rows:])
            parts.append(first[:rows])
            rows -= len(parts[-1])
        return np.concatenate(parts)


def _to_rgb(pixels: Pixels) -> Pixels:
    """Return `(H, W, 1 to 4)` as `(H, W, 3)` of the same dtype; transparent pixels lie on white."""
    return convert_pixels(pixels, 3, pixels.dtype)
