"""What a network costs: its size, and the time and memory of upscaling real images with it here."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType

import psutil
import torch

from dsclora_cli.evaluation.protocol import Image
from dsclora_cli.models.complexity import Complexity, complexity
from dsclora_cli.weights.checkpoint import load_network

MOST_IMAGES = 20
"""Images that are timed; of larger sets these many, evenly spread."""

_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Cost:
    """`size` is for a 256x256 input. Times are medians over `images` images, from 8-bit LR to 8-bit result.

    `peak_bytes`, for the largest of the images: on CUDA what torch had allocated there, else the resident memory of
    the whole process.
    """

    size: Complexity
    images: int
    image_ms: float
    megapixel_ms: float
    peak_bytes: int


@dataclass(frozen=True)
class Work:
    """What is measured: a network's file, and `(h, w, 3)` uint8 LR to the result with it on a device."""

    weights: Path
    device: str
    upscale: Callable[[Image], Image]


def measure(works: Sequence[Work], images: Sequence[Image]) -> tuple[Cost, ...]:
    """The cost of each work on at least one LR image. They take turns, so that a busy machine slows all alike."""
    largest = max(images, key=lambda image: image.size)
    peaks = [_peak(work, largest) for work in works]
    timings = [[_time(work.upscale, image) for work in works] for image in images]
    return tuple(
        Cost(
            size=complexity(load_network(work.weights)),
            images=len(images),
            image_ms=statistics.median(milliseconds for milliseconds, _ in column),
            megapixel_ms=statistics.median(milliseconds / megapixels for milliseconds, megapixels in column),
            peak_bytes=peak,
        )
        for work, peak, column in zip(works, peaks, zip(*timings, strict=True), strict=True)
    )


def spread(count: int) -> list[int]:
    """Indices of at most `MOST_IMAGES` of `count` images, evenly spread."""
    chosen = min(count, MOST_IMAGES)
    return [index * count // chosen for index in range(chosen)]


def _time(upscale: Callable[[Image], Image], image: Image) -> tuple[float, float]:
    """Milliseconds, and megapixels of the result. The result is on the host, so nothing is still running."""
    started = perf_counter()
    result = upscale(image)
    return (perf_counter() - started) * 1000, result.shape[0] * result.shape[1] / 1e6


def _peak(work: Work, image: Image) -> int:
    """Bytes; also warms up."""
    with _Peak(work.device) as peak:
        work.upscale(image)
    return peak.bytes


class _Peak:
    """A context manager that watches memory; `bytes` is the most there was."""

    def __init__(self, device: str) -> None:
        self.bytes = 0
        self._cuda = torch.device(device) if device.startswith("cuda") else None
        self._process = psutil.Process()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        if self._cuda is None:
            self._watcher.start()
        else:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda is not None:
            self.bytes = torch.cuda.max_memory_allocated(self._cuda)
            return
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        over = False
        while not over:
            self.bytes = max(self.bytes, self._process.memory_info().rss)
            over = self._over.wait(_POLL_SECONDS)
