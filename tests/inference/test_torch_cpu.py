"""The PyTorch engine for CPUs: layout of pixels, and out-of-memory errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dsclora_cli.errors import DscloraError, OutOfMemory
from dsclora_cli.inference.engine import Descriptor
from dsclora_cli.inference.torch_cpu import TorchCpuEngine

DOUBLER = Descriptor("double", scale=2, halo=0, floats_per_pixel=12)


class Double(nn.Module):
    """A network that repeats every pixel, or raises `failure`."""

    def __init__(self, failure: Exception | None = None) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.failure = failure

    def forward(self, x: Tensor) -> Tensor:
        if self.failure:
            raise self.failure
        return (x * self.one).repeat_interleave(2, 2).repeat_interleave(2, 3)


def tile() -> np.ndarray:
    return np.random.default_rng(0).random((4, 5, 3), np.float32)


def test_tiles_go_in_and_come_out_as_height_width_channels() -> None:
    engine = TorchCpuEngine(Double(), DOUBLER, torch.float32)
    np.testing.assert_array_equal(engine(tile()), tile().repeat(2, 0).repeat(2, 1))
    assert (engine.device, engine.dtype, engine.fp16_fallbacks) == ("cpu", "float32", 0)


def test_nan_in_float32_is_an_error() -> None:
    network = Double()
    network.one.data.fill_(float("nan"))
    with pytest.raises(DscloraError, match="NaN or infinity in float32"):
        TorchCpuEngine(network, DOUBLER, torch.float32)(tile())


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 4 GB)"),
        RuntimeError("Storage size calculation overflowed with sizes=[10000000000, 10000000000, 3, 3]"),
        MemoryError(),
    ],
)
def test_every_kind_of_allocation_failure_is_out_of_memory(failure: Exception) -> None:
    with pytest.raises(OutOfMemory, match="a tile of 5x4 does not fit the memory of cpu"):
        TorchCpuEngine(Double(failure=failure), DOUBLER, torch.float32)(tile())


def test_other_errors_are_raised_unchanged() -> None:
    with pytest.raises(RuntimeError, match="CUDA error: an illegal"):
        TorchCpuEngine(Double(failure=RuntimeError("CUDA error: an illegal access")), DOUBLER, torch.float32)(tile())


def test_a_real_allocation_failure_is_out_of_memory() -> None:
    class Huge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.empty(2**50)

    with pytest.raises(OutOfMemory):
        TorchCpuEngine(Huge(), DOUBLER, torch.float32)(tile())
