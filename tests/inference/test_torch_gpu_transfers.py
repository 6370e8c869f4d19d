"""Transfers and CUDA graphs, with a fake CUDA: what is captured, which graphs are kept, and what a failure does."""

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from dsclora_cli.inference import torch_gpu
from dsclora_cli.inference.torch_gpu import BatchRunner, CudaRunner, runner_for

CPU = torch.device("cpu")
BYTE = np.dtype(np.uint8)


class Graph:
    """A graph that runs the function again at each call, or fails to be captured with `failure`."""

    captured: ClassVar[list[tuple[int, ...]]] = []
    failure: ClassVar[Exception | None] = None

    def __init__(self, function: torch_gpu.GpuFunction, batch: Tensor) -> None:
        if Graph.failure:
            raise Graph.failure
        self.captured.append(tuple(batch.shape))
        self._function = function
        self.calls = 0

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        return self._function(batch)


class Event:
    """An event that is done at once and counts how often somebody waited."""

    waited = 0

    def __init__(self, blocking: bool) -> None:
        assert blocking

    def record(self) -> None:
        """Do nothing: no copy is in flight."""

    def synchronize(self) -> None:
        Event.waited += 1


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaRunner:
    monkeypatch.setattr(torch_gpu, "_Graph", Graph)
    monkeypatch.setattr(torch_gpu, "_pinned", lambda *shape, dtype: torch.empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(Graph, "captured", [])
    monkeypatch.setattr(Graph, "failure", None)
    monkeypatch.setattr(Event, "waited", 0)
    return CudaRunner(CPU)


def invert(batch: Tensor) -> tuple[Tensor, Tensor]:
    return 255 - batch, batch.flatten(1).amax(1)


def check(each: BatchRunner, edge: int, key: object, count: int = 2) -> None:
    """Run tiles of this edge, and compare the results with the expected ones."""
    tiles = [np.full((edge, edge, 3), shade, np.uint8) for shade in range(count)]
    inverse, most = each.run(invert, tiles, BYTE, key)()
    np.testing.assert_array_equal(inverse, 255 - np.stack(tiles))
    assert most.tolist() == list(range(count))


def test_only_cuda_devices_have_the_cuda_runner() -> None:
    assert type(runner_for(torch.device("mps"))) is BatchRunner
    assert type(runner_for(torch.device("cuda", 1))) is CudaRunner


def test_the_plain_runner_returns_the_results() -> None:
    check(BatchRunner(CPU), 4, "key")


def test_results_are_copied_once_for_all_tiles_of_a_batch() -> None:
    read = BatchRunner(CPU).run(invert, [np.zeros((4, 4, 3), np.uint8)] * 2, BYTE)
    assert read() is read()


def test_a_function_that_repeats_is_captured_once(cuda: CudaRunner) -> None:
    for _ in range(4):
        check(cuda, 4, "key")
    assert Graph.captured == [(2, 4, 4, 3)]
    assert Event.waited == 4


def test_each_key_and_shape_has_a_graph_and_the_latest_three_are_kept(cuda: CudaRunner) -> None:
    for edge in (4, 5, 6, 7):
        check(cuda, edge, "key")
        check(cuda, edge, "key")
    check(cuda, 7, "key")
    check(cuda, 4, "key")
    assert [shape[1] for shape in Graph.captured] == [4, 5, 6, 7, 4]
    check(cuda, 4, "another")
    check(cuda, 4, "another")
    check(cuda, 4, "another", count=1)
    assert len(Graph.captured) == 6


def test_a_function_without_a_key_is_never_captured(cuda: CudaRunner) -> None:
    for _ in range(3):
        check(cuda, 4, None)
    assert Graph.captured == []


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("not while capturing")])
def test_when_capturing_fails_functions_run_without_a_graph(cuda: CudaRunner, failure: Exception) -> None:
    Graph.failure = failure
    for _ in range(3):
        check(cuda, 4, "key")
    Graph.failure = None
    check(cuda, 4, "key")
    assert Graph.captured == []


def test_freeing_cached_memory_drops_the_graphs(cuda: CudaRunner) -> None:
    check(cuda, 4, "key")
    check(cuda, 4, "key")
    cuda.free_cached_memory()
    for _ in range(2):
        check(cuda, 4, "key")
    assert len(Graph.captured) == 2
