"""The engine of GPUs: pixels travel as bytes, several tiles are under way, and the host waits for none of them.

Between the host and a GPU: how a batch gets there, how its work is started, and how answers come back.
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
from dsclora_cli.inference.engine import Descriptor, PendingTile, UnitPixels, not_finite_error

_BATCH = 2**18
"""Pixels of the tiles that are run as one batch: enough to fill a GPU."""

_BLACK = 1e-3
_FINE, _DARK, _BROKEN = range(3)  # states of an answer


@dataclass(frozen=True)
class _BatchKind:
    """What the tiles of a batch share: shape, dtype, the values that mean 0 and 1, and if answers are cut there."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    low: float
    high: float
    clamped: bool

    @property
    def carrier(self) -> np.dtype[Any]:
        """The dtype in which they travel."""
        return self.dtype if self.dtype == np.uint8 else np.dtype(np.float32)

    @property
    def batch(self) -> int:
        """How many there are in a full one."""
        return max(1, _BATCH // (self.shape[0] * self.shape[1]))


@dataclass
class _Batch:
    """Tiles of one kind, and what reads pixels and state of each answer once they are on their way."""

    kind: _BatchKind
    tiles: list[NDArray[Any]] = field(default_factory=list)
    read: Callable[[int], tuple[NDArray[Any], int]] | None = None


class TorchGpuEngine:
    """Runs `network`, which maps `(N, 3, H, W)` to `(N, 3, scale*H, scale*W)`, on CUDA or MPS in one dtype.

    Pixels of 8 bits are converted on the device, both ways. Tiles of one shape that are started one after the other run
    as one batch. float32 is never TF32. In float16 an answer with NaN or inf, or all black from a tile that is not, is
    computed again in float32.
    """

    name = "torch"
    pixels_in_flight = 2 * _BATCH

    def __init__(self, network: nn.Module, descriptor: Descriptor, device: torch.device, dtype: torch.dtype) -> None:
        self.descriptor = descriptor
        self.device = str(device)
        self.dtype = str(dtype).removeprefix("torch.")
        self.fp16_fallbacks = 0
        self._device = device
        self._exact = network.eval().float()
        self._network = _placed(network, device, dtype)
        self._runner: BatchRunner = runner_for(device)
        self._open: _Batch | None = None
        self._alone = False

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """See `Engine`."""
        batch = _Batch(_BatchKind(tile.shape, tile.dtype, 0.0, 1.0, clamped=False), [tile])
        self._launch(batch)
        return self._answer(batch, 0)

    def start(self, tile: NDArray[Any], low: float, high: float) -> PendingTile:
        """See `StreamingEngine`."""
        kind = _BatchKind(tile.shape, tile.dtype, low, high, clamped=True)
        if self._open is None or self._open.kind != kind:
            self._launch_open()
            self._open = _Batch(kind)
        batch, place = self._open, len(self._open.tiles)
        batch.tiles.append(tile)
        if self._alone or len(batch.tiles) == kind.batch:
            self._launch_open()
        return lambda: self._answer(batch, place)

    def _answer(self, batch: _Batch, place: int) -> NDArray[Any]:
        if batch.read is None:
            self._launch_open()
        assert batch.read is not None
        pixels, state = batch.read(place)
        usable = state == _FINE or (state == _DARK and self.dtype != "float16")
        if not usable:
            pixels = self._again(batch.kind, batch.tiles[place])
        return pixels.astype(batch.kind.dtype, copy=False)

    def _again(self, kind: _BatchKind, tile: NDArray[Any]) -> NDArray[Any]:
        """The answer to a tile in float32. Raises DscloraError where it is not finite either."""
        if self.dtype == "float16":
            network = _placed(self._exact, self._device, torch.float32)
            pixels, states = self._started(kind, [tile], network)()
            if states[0] != _BROKEN:
                self.fp16_fallbacks += 1
                answer: NDArray[Any] = pixels[0]
                return answer
        raise not_finite_error()

    def _launch_open(self) -> None:
        if self._open is not None:
            batch, self._open = self._open, None
            self._launch(batch)

    def _launch(self, batch: _Batch) -> None:
        """Send a batch on its way, tile by tile where there is no memory for all. Raises OutOfMemory."""
        try:
            read = self._started(batch.kind, batch.tiles, self._network)
        except OutOfMemory:
            if len(batch.tiles) == 1:
                raise
            self._alone = True
            each = [self._started(batch.kind, [tile], self._network) for tile in batch.tiles]
            batch.read = lambda place: _first(each[place])
        else:
            batch.read = lambda place: _first(read, place)

    def _started(self, kind: _BatchKind, tiles: Sequence[NDArray[Any]], network: nn.Module) -> PendingArrays:
        again = kind if network is self._network else None
        with self._guarded(kind, len(tiles)):
            return self._runner.run(_work(network, kind), tiles, kind.carrier, again)

    @contextmanager
    def _guarded(self, kind: _BatchKind, count: int) -> Iterator[None]:
        try:
            with torch.inference_mode(), full_float32():
                yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._runner.free_cached_memory()
            tiles = f"a tile of {kind.shape[1]}x{kind.shape[0]} does" if count == 1 else f"{count} tiles do"
            raise OutOfMemory(f"{tiles} not fit the memory of {self.device}") from error


def _placed(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy on a device, in the layout in which convolutions are fastest there."""
    placed = copy.deepcopy(network).eval()
    return placed.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _first(read: PendingArrays, place: int = 0) -> tuple[NDArray[Any], int]:
    pixels, states = read()
    return pixels[place], int(states[place])


def _work(network: nn.Module, kind: _BatchKind) -> GpuFunction:
    """From pixels `(N, H, W, C)` to pixels `(N, scale*H, scale*W, C)` of the same dtype, and the states `(N,)`.

    Grey goes through the network as three equal channels and comes back as their mean.
    """
    dtype, span = next(network.parameters()).dtype, kind.high - kind.low

    def work(sent: Tensor) -> tuple[Tensor, Tensor]:
        unit = (sent.permute(0, 3, 1, 2).float() - kind.low) * (1.0 / span)
        answer: Tensor = network(unit.expand(-1, 3, -1, -1).to(dtype)).float()
        states = torch.where(answer.isfinite().flatten(1).all(1), _darkness(answer, unit), _BROKEN)
        if sent.shape[3] == 1:
            answer = answer.mean(1, keepdim=True)
        if kind.clamped:
            answer = answer.clamp(0.0, 1.0) * span + kind.low
        if kind.dtype.kind == "u":
            answer = answer.round()
        return answer.permute(0, 2, 3, 1).to(sent.dtype).contiguous(), states

    return work


def _darkness(answer: Tensor, unit: Tensor) -> Tensor:
    """`_DARK` for answers that are all black where the tile is not, `(N,)`."""
    black, tile = answer.flatten(1).amax(1), unit.flatten(1).amax(1)
    return torch.where((black < _BLACK) & (tile > 0.01), _DARK, _FINE)


GpuFunction = Callable[[Tensor], tuple[Tensor, ...]]
"""From a batch on the device to answers there."""

PendingArrays = Callable[[], tuple[NDArray[Any], ...]]
"""Waits for the answers, and gives them on the host."""

_GRAPHS = 3  # each keeps the memory of its batch


def runner_for(device: torch.device) -> BatchRunner:
    """The link for a device."""
    return CudaRunner(device) if device.type == "cuda" else BatchRunner(device)


class BatchRunner:
    """Work is started as the device's backend starts it, in order; answers are copied when they are first read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(
        self,
        work: GpuFunction,
        tiles: Sequence[NDArray[Any]],
        dtype: np.dtype[Any],
        kind: Hashable = None,  # noqa: ARG002 - for runners that keep what they start
    ) -> PendingArrays:
        """Start `work` on tiles of one shape, as one batch in this dtype.

        `kind` is the same for calls that do the same to batches of one shape, None where that is not known.
        """
        answers = work(torch.from_numpy(np.stack(tiles, dtype=dtype)).to(self._device))
        return cache(lambda: tuple(answer.cpu().numpy() for answer in answers))

    def free_cached_memory(self) -> None:
        """Give back memory that is only kept for later batches."""


class CudaRunner(BatchRunner):
    """Copies go through pinned memory, and nobody waits for them; work that comes again is replayed as a CUDA graph.

    Starting a graph costs the host one call, where the network's own operations cost some hundred. Graphs of the latest
    few kinds are kept, with the memory they work in. Where one cannot be captured, work is started as it is.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._met: set[Hashable] = set()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._captures = True

    def run(
        self, work: GpuFunction, tiles: Sequence[NDArray[Any]], dtype: np.dtype[Any], kind: Hashable = None
    ) -> PendingArrays:
        """See `BatchRunner`."""
        with torch.cuda.device(self._device):
            batch = _pinned(len(tiles), *tiles[0].shape, dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
            np.stack(tiles, out=batch.numpy())
            graph = self._graph(work, batch, kind)
            answers = graph(batch) if graph else work(batch.to(self._device, non_blocking=True))
            there = [_pinned(*answer.shape, dtype=answer.dtype) for answer in answers]
            for host, answer in zip(there, answers, strict=True):
                host.copy_(answer, non_blocking=True)
            done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            done.record()

        def read() -> tuple[NDArray[Any], ...]:
            done.synchronize()
            return tuple(host.numpy() for host in there)

        return read

    def free_cached_memory(self) -> None:
        """See `BatchRunner`."""
        self._met.clear()
        self._graphs.clear()
        torch.cuda.empty_cache()

    def _graph(self, work: GpuFunction, batch: Tensor, kind: Hashable) -> _Graph | None:
        """The graph of this work, from its second time on."""
        key = kind, batch.shape
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if kind is None or not self._captures or key not in self._met:
            self._met.add(key)
            return None
        while len(self._graphs) >= _GRAPHS:
            self._graphs.popitem(last=False)
        try:
            self._graphs[key] = _Graph(work, batch.to(self._device))
        except RuntimeError as error:
            self._captures = False
            if is_out_of_memory(error):
                self.free_cached_memory()
            return None
        return self._graphs[key]


class _Graph:
    """Work on batches of one shape, captured on the current device; its answers hold until it is called again."""

    def __init__(self, work: GpuFunction, batch: Tensor) -> None:
        self._batch = batch
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            work(batch)  # cuDNN chooses its kernels now, for it must not while they are captured
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads have devices of their own, and may allocate there meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._answers = work(batch)

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The answers to a batch in pinned memory, on the device."""
        self._batch.copy_(batch, non_blocking=True)
        self._graph.replay()
        return self._answers


def _pinned(*shape: int, dtype: torch.dtype) -> Tensor:
    """From a pool that torch keeps, which waits for copies that are under way."""
    return torch.empty(shape, dtype=dtype, pin_memory=True)
