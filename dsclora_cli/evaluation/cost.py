"""Cost of a network: size, and the time and memory of upscaling real images on this machine."""

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

MAX_TIMED_IMAGES = 20
"""Number of images to time; of larger sets, images at even intervals."""

_POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Cost:
    """Cost of a network on this machine."""

    size: Complexity
    """Parameters, multiply-adds and activations for an input of 256x256 pixels."""

    images: int
    """Number of images that were timed."""

    image_ms: float
    """Median time for one image in ms, from 8-bit LR in memory to the 8-bit result in memory."""

    megapixel_ms: float
    """Median time for 10^6 pixels of the result in ms."""

    peak_bytes: int
    """Peak memory for the largest image: on CUDA memory allocated by torch, else resident memory of the process."""


@dataclass(frozen=True)
class TimedModel:
    """A model to measure."""

    weights: Path
    """File of the network, to count parameters and operations."""

    device: str
    """Device of the network, whose memory is measured."""

    upscale: Callable[[Image], Image]
    """Upscale `(h, w, 3)` uint8 LR with the network; return `(H, W, 3)` uint8 on the host."""


def measure(models: Sequence[TimedModel], images: Sequence[Image]) -> tuple[Cost, ...]:
    """Return the cost of each model on at least one LR image, `(h, w, 3)` uint8."""
    largest = max(images, key=lambda image: image.size)
    peaks = []
    for model in models:
        with _PeakMemory(model.device) as peak:
            model.upscale(largest)  # warms up as well: the first run compiles kernels and fills caches
        peaks.append(peak.bytes)
    image_ms: list[list[float]] = [[] for _ in models]
    megapixel_ms: list[list[float]] = [[] for _ in models]
    # Models take turns for each image, so that another program on the machine slows all models alike.
    for image in images:
        for index, model in enumerate(models):
            started = perf_counter()
            result = model.upscale(image)
            # The result is on the host, so no work on a GPU is still running.
            elapsed = (perf_counter() - started) * 1000
            image_ms[index].append(elapsed)
            megapixel_ms[index].append(elapsed / (result.shape[0] * result.shape[1] / 1e6))
    return tuple(
        Cost(
            size=complexity(load_network(model.weights)),
            images=len(images),
            image_ms=statistics.median(image_ms[index]),
            megapixel_ms=statistics.median(megapixel_ms[index]),
            peak_bytes=peaks[index],
        )
        for index, model in enumerate(models)
    )


def timed_indices(count: int) -> list[int]:
    """Return the indices of the images to time, at even intervals among `count` images."""
    chosen = min(count, MAX_TIMED_IMAGES)
    return [index * count // chosen for index in range(chosen)]


class _PeakMemory:
    """Context manager that measures peak memory in `bytes`."""

    def __init__(self, device: str) -> None:
        self.bytes = 0
        self._cuda = torch.device(device) if device.startswith("cuda") else None
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> _PeakMemory:
        if self._cuda is None:
            self._poller.start()
        else:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._cuda is not None:
            # The counter of torch is exact, and no polling disturbs the run.
            self.bytes = torch.cuda.max_memory_allocated(self._cuda)
            return
        self._stop.set()
        self._poller.join()

    def _poll(self) -> None:
        # The last sample follows `stop`, so that even the shortest run is measured at least once.
        stopped = False
        while not stopped:
            self.bytes = max(self.bytes, self._process.memory_info().rss)
            stopped = self._stop.wait(_POLL_SECONDS)
