"""When CUDA work becomes a graph, which graphs are kept, and what happens where none can be: with a feigned CUDA."""

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
    """Work that is done anew at each call, as long as there is room."""

    captured: ClassVar[list[tuple[int, ...]]] = []
    failure: ClassVar[Exception | None] = None

    def __init__(self, work: torch_gpu.GpuFunction, batch: Tensor) -> None:
        if Graph.failure:
            raise Graph.failure
        self.captured.append(tuple(batch.shape))
        self._work = work
        self.calls = 0

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        self.calls += 1
        return self._work(batch)


class Event:
    """Done at once; whoever reads without waiting for it is found out."""

    waited = 0

    def __init__(self, blocking: bool) -> None:
        assert blocking

    def record(self) -> None:
        """Nothing is under way."""

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


def work(batch: Tensor) -> tuple[Tensor, Tensor]:
    return 255 - batch, batch.flatten(1).amax(1)


def check(each: BatchRunner, edge: int, kind: object, count: int = 2) -> None:
    """Run tiles of this edge, and see that the answers are theirs."""
    tiles = [np.full((edge, edge, 3), shade, np.uint8) for shade in range(count)]
    inverse, most = each.run(work, tiles, BYTE, kind)()
    np.testing.assert_array_equal(inverse, 255 - np.stack(tiles))
    assert most.tolist() == list(range(count))


def test_which_link_a_device_has() -> None:
    assert type(runner_for(torch.device("mps"))) is BatchRunner
    assert type(runner_for(torch.device("cuda", 1))) is CudaRunner


def test_the_plain_link_answers() -> None:
    check(BatchRunner(CPU), 4, "kind")


def test_a_batch_is_copied_once_however_often_it_is_read() -> None:
    read = BatchRunner(CPU).run(work, [np.zeros((4, 4, 3), np.uint8)] * 2, BYTE)
    assert read() is read()


def test_work_that_comes_again_is_captured_once(cuda: CudaRunner) -> None:
    for _ in range(4):
        check(cuda, 4, "kind")
    assert Graph.captured == [(2, 4, 4, 3)]
    assert Event.waited == 4


def test_kinds_and_shapes_have_graphs_of_their_own_and_the_latest_are_kept(cuda: CudaRunner) -> None:
    for edge in (4, 5, 6, 7):
        check(cuda, edge, "kind")
        check(cuda, edge, "kind")
    check(cuda, 7, "kind")
    check(cuda, 4, "kind")
    assert [shape[1] for shape in Graph.captured] == [4, 5, 6, 7, 4]
    check(cuda, 4, "another")
    check(cuda, 4, "another")
    check(cuda, 4, "another", count=1)
    assert len(Graph.captured) == 6


def test_work_of_no_kind_is_never_captured(cuda: CudaRunner) -> None:
    for _ in range(3):
        check(cuda, 4, None)
    assert Graph.captured == []


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("not while capturing")])
def test_where_nothing_can_be_captured_work_goes_on_without(cuda: CudaRunner, failure: Exception) -> None:
    Graph.failure = failure
    for _ in range(3):
        check(cuda, 4, "kind")
    Graph.failure = None
    check(cuda, 4, "kind")
    assert Graph.captured == []


def test_memory_that_is_given_back_holds_no_graphs(cuda: CudaRunner) -> None:
    check(cuda, 4, "kind")
    check(cuda, 4, "kind")
    cuda.free_cached_memory()
    for _ in range(2):
        check(cuda, 4, "kind")
    assert len(Graph.captured) == 2
