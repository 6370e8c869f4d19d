"""The engine for GPUs: pixels travel as bytes, several tiles are in flight, and the host waits for none of them.

`TorchGpuEngine` gathers tiles into batches. A `BatchRunner` brings a batch to the device, starts the network and copies
the results back; `CudaRunner` copies through pinned memory and replays CUDA graphs.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.inference.device import full_float32, is_out_of_memory
from dsclora_cli.inference.engine import Descriptor, NotFinite, PendingTile, UnitPixels

GpuFunction = Callable[[Tensor], tuple[Tensor, ...]]
"""Map a batch on the device to results on the device."""

PendingArrays = Callable[[], tuple[NDArray[Any], ...]]
"""Wait for the results of a batch, and return them as arrays on the host."""

_BATCH = 2**18
"""LR pixels of the tiles that run as one batch: enough to fill a GPU."""

_GRAPHS = 3
"""CUDA graphs that are kept; each keeps the memory of its batch."""

_BLACK = 1e-3
"""Level in [0, 1] below which a whole result counts as black."""

_USABLE, _ALL_BLACK, _NOT_FINITE = range(3)
"""States of a result: `_ALL_BLACK` is black where the tile is not, which happens in float16 only."""


@dataclass(frozen=True)
class _BatchKind:
    """Properties that all tiles of a batch have in common."""

    shape: tuple[int, ...]
    """`(H, W, C)` of a tile."""

    dtype: np.dtype[Any]
    """dtype of tiles and results."""

    low: float
    """Value of black."""

    high: float
    """Value of white."""

    clamped: bool
    """Whether results are clamped to the range from `low` to `high`."""

    @property
    def transfer_dtype(self) -> np.dtype[Any]:
        """Return the dtype in which pixels travel; torch has few operations on uint16."""
        return self.dtype if self.dtype == np.uint8 else np.dtype(np.float32)

    @property
    def full_batch(self) -> int:
        """Return how many tiles make a full batch."""
        return max(1, _BATCH // (self.shape[0] * self.shape[1]))


@dataclass
class _Batch:
    """Tiles of the same kind that run together."""

    kind: _BatchKind
    tiles: list[NDArray[Any]] = field(default_factory=list)
    read: Callable[[int], tuple[NDArray[Any], int]] | None = None
    """Wait for the tile at an index, and return pixels and state; None until the batch has started."""


class TorchGpuEngine:
    """Runs `network`, which maps `(N, 3, H, W)` to `(N, 3, scale*H, scale*W)`, on CUDA or MPS in one dtype.

    Pixels of 8 bits are converted on the device, both ways. Consecutive tiles of the same kind run together in a batch.
    float32 is never TF32. In float16 a result with NaN or infinity, or an all-black result of a tile with light in it,
    is computed again in float32.
    """

    name = "torch"
    pixels_in_flight = 2 * _BATCH  # while one batch comes back, the next one is computed

    def __init__(self, network: nn.Module, descriptor: Descriptor, device: torch.device, dtype: torch.dtype) -> None:
        self.descriptor = descriptor
        self.device = str(device)
        self.dtype = str(dtype).removeprefix("torch.")
        self.fp16_fallbacks = 0
        self._device = device
        # Copied to the device for a fallback only: fallbacks are rare, and device memory is scarce.
        self._exact = network.eval().float()
        self._network = _placed(network, device, dtype)
        self._runner: BatchRunner = runner_for(device)
        self._open: _Batch | None = None
        self._one_by_one = False

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """Upscale a tile and wait for the result; see `Engine`."""
        batch = _Batch(_BatchKind(tile.shape, tile.dtype, 0.0, 1.0, clamped=False), [tile])
        self._start_batch(batch)
        return self._result(batch, 0)

    def start(self, tile: NDArray[Any], low: float, high: float) -> PendingTile:
        """Add a tile to the open batch, and start a full batch; see `StreamingEngine`."""
        kind = _BatchKind(tile.shape, tile.dtype, low, high, clamped=True)
        if self._open is None or self._open.kind != kind:
            self._start_open_batch()
            self._open = _Batch(kind)
        batch, index = self._open, len(self._open.tiles)
        batch.tiles.append(tile)
        if self._one_by_one or len(batch.tiles) == kind.full_batch:
            self._start_open_batch()
        return lambda: self._result(batch, index)

    def _start_open_batch(self) -> None:
        if self._open is not None:
            # Closed before it starts: a batch that raises OutOfMemory must not stay open.
            batch, self._open = self._open, None
            self._start_batch(batch)

    def _start_batch(self, batch: _Batch) -> None:
        """Start a batch; without enough memory, start the tiles singly. Raises OutOfMemory."""
        try:
            pending = self._run(batch.kind, batch.tiles, self._network)
        except OutOfMemory:
            if len(batch.tiles) == 1:
                raise
            # Batches of the same size would fail again, so later tiles run one by one as well.
            self._one_by_one = True
            each = [self._run(batch.kind, [tile], self._network) for tile in batch.tiles]
            batch.read = lambda index: _at(each[index], 0)
        else:
            batch.read = lambda index: _at(pending, index)

    def _run(self, kind: _BatchKind, tiles: Sequence[NDArray[Any]], network: nn.Module) -> PendingArrays:
        # Without a key nothing is captured: a fallback is no work that repeats.
        key = kind if network is self._network else None
        with self._out_of_memory_named(kind, len(tiles)):
            return self._runner.run(_gpu_function(network, kind), tiles, kind.transfer_dtype, key)

    def _result(self, batch: _Batch, index: int) -> NDArray[Any]:
        """Wait for the tile at an index of a batch; return `(scale*H, scale*W, C)` in the dtype of the tile."""
        if batch.read is None:
            self._start_open_batch()
        assert batch.read is not None
        pixels, state = batch.read(index)
        # In float32 black is what the network means: only float16 underflows to black.
        usable = state == _USABLE or (state == _ALL_BLACK and self.dtype != "float16")
        if not usable:
            pixels = self._in_float32(batch.kind, batch.tiles[index])
        return pixels.astype(batch.kind.dtype, copy=False)

    def _in_float32(self, kind: _BatchKind, tile: NDArray[Any]) -> NDArray[Any]:
        """Return the result of a tile in float32. Raises DscloraError if the result is not finite either."""
        if self.dtype == "float16":
            network = _placed(self._exact, self._device, torch.float32)
            pixels, states = self._run(kind, [tile], network)()
            if states[0] != _NOT_FINITE:
                self.fp16_fallbacks += 1
                result: NDArray[Any] = pixels[0]
                return result
        raise NotFinite

    @contextmanager
    def _out_of_memory_named(self, kind: _BatchKind, count: int) -> Iterator[None]:
        """Replace torch's out-of-memory errors by an OutOfMemory with the tile's size; other errors pass."""
        try:
            with torch.inference_mode(), full_float32():
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._runner.free_cached_memory()
            tiles = f"a tile of {kind.shape[1]}x{kind.shape[0]} does" if count == 1 else f"{count} tiles do"
            hint = "close other programs on the device, or use --device cpu"
            raise OutOfMemory(f"{tiles} not fit the memory of {self.device}", hint) from error


def _placed(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return a copy of the network on a device, in the layout of the device."""
    placed = copy.deepcopy(network).eval()
    return placed.to(device=device, dtype=dtype, memory_format=_layout(device))  # type: ignore[call-overload,no-any-return]


def _layout(device: torch.device) -> torch.memory_format:
    """Return the layout of feature maps: channels_last, the fastest for convolutions, but contiguous on MPS."""
    # Some releases of PyTorch compute convolutions of channels_last views wrongly on MPS, without an error
    # (github.com/pytorch/pytorch/issues/180984).
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def _at(pending: PendingArrays, index: int) -> tuple[NDArray[Any], int]:
    """Wait for a batch; return pixels `(H, W, C)` and state of the tile at an index."""
    pixels, states = pending()
    return pixels[index], int(states[index])


def _gpu_function(network: nn.Module, kind: _BatchKind) -> GpuFunction:
    """Return the function from pixels to upscaled pixels and states, all on the device.

    The function maps `(N, H, W, 1 or 3)` in the transfer dtype to `(N, scale*H, scale*W, 1 or 3)` of the same dtype and
    to the states `(N,)`. Gray goes through the network as three equal channels and comes back as their mean.
    """
    weight, span = next(network.parameters()), kind.high - kind.low
    dtype, layout = weight.dtype, _layout(weight.device)

    def upscale(sent: Tensor) -> tuple[Tensor, Tensor]:
        unit = (sent.permute(0, 3, 1, 2).float() - kind.low) * (1.0 / span)
        result: Tensor = network(unit.expand(-1, 3, -1, -1).to(dtype).contiguous(memory_format=layout)).float()
        # Judged before clamping, which would hide infinity. Black is suspicious only where the tile has some light.
        brightest, light = result.flatten(1).amax(1), unit.flatten(1).amax(1)
        blackness = torch.where((brightest < _BLACK) & (light > 0.01), _ALL_BLACK, _USABLE)
        states = torch.where(result.isfinite().flatten(1).all(1), blackness, _NOT_FINITE)
        if sent.shape[3] == 1:
            result = result.mean(1, keepdim=True)
        if kind.clamped:
            result = result.clamp(0.0, 1.0) * span + kind.low
        if kind.dtype.kind == "u":
            result = result.round()
        return result.permute(0, 2, 3, 1).to(sent.dtype).contiguous(), states

    return upscale


def runner_for(device: torch.device) -> BatchRunner:
    """Return the runner for a device."""
    return CudaRunner(device) if device.type == "cuda" else BatchRunner(device)


class BatchRunner:
    """Runs batches on any device; the backend starts work in order, and the first read copies the results."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(
        self,
        function: GpuFunction,
        tiles: Sequence[NDArray[Any]],
        dtype: np.dtype[Any],
        key: Hashable = None,  # noqa: ARG002 - for runners that keep what they capture
    ) -> PendingArrays:
        """Start a function on tiles, without waiting for the results.

        Args:
            function: Runs on the batch `(N, H, W, C)`.
            tiles: `(H, W, C)` arrays of the same shape.
            dtype: dtype of the batch on the device.
            key: Equal for two calls with functions that do the same to batches of equal shape; None if unknown.

        Returns:
            A function: wait for the results and return them on the host.
        """
        results = function(torch.from_numpy(np.stack(tiles, dtype=dtype)).to(self._device))
        # Every tile of the batch reads the results, but they are copied once.
        return cache(lambda: tuple(result.cpu().numpy() for result in results))

    def free_cached_memory(self) -> None:
        """Free memory kept only to make later batches faster."""


class CudaRunner(BatchRunner):
    """Runs batches on CUDA: copies go through pinned memory, and repeated functions are replayed from CUDA graphs.

    Starting a graph costs the host a single call; the network's own operations cost about a hundred. The latest few
    graphs are kept, with their memory. Where capturing fails, functions run without a graph.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._met: set[Hashable] = set()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._captures = True

    def run(
        self, function: GpuFunction, tiles: Sequence[NDArray[Any]], dtype: np.dtype[Any], key: Hashable = None
    ) -> PendingArrays:
        """Start a function on tiles; see `BatchRunner.run`."""
        # The current device and stream belong to a thread, and each GPU has a thread of its own.
        with torch.cuda.device(self._device):
            batch = _pinned(len(tiles), *tiles[0].shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
            np.stack(tiles, out=batch.numpy())
            graph = self._graph(function, batch, key)
            results = graph(batch) if graph else function(batch.to(self._device, non_blocking=True))
            # Copied in stream order, so a graph may overwrite its results when it is replayed.
            hosts = [_pinned(*result.shape, dtype=result.dtype) for result in results]
            for host, result in zip(hosts, results, strict=True):
                host.copy_(result, non_blocking=True)
            # Blocking: the waiting thread sleeps instead of spinning, which leaves its core to encoders.
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record()

        def read() -> tuple[NDArray[Any], ...]:
            done.synchronize()
            return tuple(host.numpy() for host in hosts)

        return read

    def free_cached_memory(self) -> None:
        """Drop all graphs, and return unused memory to CUDA."""
        self._met.clear()
        self._graphs.clear()
        torch.cuda.empty_cache()

    def _graph(self, function: GpuFunction, batch: Tensor, key: Hashable) -> _Graph | None:
        """Return the graph of a function for the shape of a batch, from the second batch on; None without a graph."""
        key_and_shape = key, batch.shape
        if key_and_shape in self._graphs:
            self._graphs.move_to_end(key_and_shape)
            return self._graphs[key_and_shape]
        # Capturing runs the function once more and takes memory, so a shape must come twice.
        if key is None or not self._captures or key_and_shape not in self._met:
            self._met.add(key_and_shape)
            return None
        while len(self._graphs) >= _GRAPHS:
            self._graphs.popitem(last=False)
        try:
            self._graphs[key_and_shape] = _Graph(function, batch.to(self._device))
        except RuntimeError as error:
            self._captures = False
            if is_out_of_memory(error):
                self.free_cached_memory()
            return None
        return self._graphs[key_and_shape]


class _Graph:
    """A function captured on the current device for batches of equal shape; results hold until the next call."""

    def __init__(self, function: GpuFunction, batch: Tensor) -> None:
        self._batch = batch
        # cuDNN chooses its kernels in a run on a stream of its own, for it must not while they are captured.
        warm_up = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        warm_up.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(warm_up):
            function(batch)
        torch.cuda.current_stream().wait_stream(warm_up)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads have devices of their own, and may allocate memory there during the capture.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._results = function(batch)

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return the results, on the device, of a batch in pinned memory."""
        # A graph reads the memory that it was captured with.
        self._batch.copy_(batch, non_blocking=True)
        self._graph.replay()
        return self._results


def _pinned(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return pinned memory from torch's pool; the pool reuses no block before the copies from the block finish."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)
