"""Between the host and a GPU: how a batch gets there, how its work is started, and how answers come back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsclora_cli.runtime.device import is_out_of_memory

Work = Callable[[Tensor], tuple[Tensor, ...]]
"""From a batch on the device to answers there."""

Reading = Callable[[], tuple[NDArray[Any], ...]]
"""Waits for the answers, and gives them on the host."""

_GRAPHS = 3  # each keeps the memory of its batch


def link_to(device: torch.device) -> Link:
    """The link for a device."""
    return CudaLink(device) if device.type == "cuda" else Link(device)


class Link:
    """Work is started as the device's backend starts it, in order; answers are copied when they are first read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(self, work: Work, tiles: Sequence[NDArray[Any]], dtype: np.dtype[Any], kind: Hashable = None) -> Reading:  # noqa: ARG002 - for links that keep what they start
        """Start `work` on tiles of one shape, as one batch in this dtype.

        `kind` is the same for calls that do the same to batches of one shape, None where that is not known.
        """
        answers = work(torch.from_numpy(np.stack(tiles, dtype=dtype)).to(self._device))
        return cache(lambda: tuple(answer.cpu().numpy() for answer in answers))

    def forget(self) -> None:
        """Give back memory that is only kept for later batches."""


class CudaLink(Link):
    """Copies go through pinned memory, and nobody waits for them; work that comes again is replayed as a CUDA graph.

    Starting a graph costs the host one call, where the network's own operations cost some hundred. Graphs of the latest
    few kinds are kept, with the memory they work in. Where one cannot be captured, work is started as it is.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._met: set[Hashable] = set()
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._captures = True

    def run(self, work: Work, tiles: Sequence[NDArray[Any]], dtype: np.dtype[Any], kind: Hashable = None) -> Reading:
        """See `Link`."""
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

    def forget(self) -> None:
        """See `Link`."""
        self._met.clear()
        self._graphs.clear()
        torch.cuda.empty_cache()

    def _graph(self, work: Work, batch: Tensor, kind: Hashable) -> _Graph | None:
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
                self.forget()
            return None
        return self._graphs[key]


class _Graph:
    """Work on batches of one shape, captured on the current device; its answers hold until it is called again."""

    def __init__(self, work: Work, batch: Tensor) -> None:
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
