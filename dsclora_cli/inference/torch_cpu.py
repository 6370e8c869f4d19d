"""The PyTorch engine for CPUs, and `open_torch_engine`, which chooses between the engines for CPUs and GPUs."""

from __future__ import annotations

import copy
import os
from functools import cache

import torch
from torch import Tensor, nn

from dsclora_cli.errors import OutOfMemory, UsageError
from dsclora_cli.inference.device import is_out_of_memory
from dsclora_cli.inference.engine import Descriptor, Engine, UnitPixels, require_finite
from dsclora_cli.inference.torch_gpu import TorchGpuEngine


def open_torch_engine(network: nn.Module, descriptor: Descriptor, device: torch.device, dtype: torch.dtype) -> Engine:
    """Return the PyTorch engine for a device.

    Args:
        network: Maps `(N, 3, H, W)` to `(N, 3, scale*H, scale*W)`.
        descriptor: Describes the network.
        device: CPU, CUDA or MPS.
        dtype: float16, float32, or on the CPU float64.
    """
    if device.type != "cpu":
        return TorchGpuEngine(network, descriptor, device, dtype)
    # A copy: the layout of a network in training must not change.
    return TorchCpuEngine(copy.deepcopy(network), descriptor, dtype)


class TorchCpuEngine:
    """Runs `network`, which maps `(1, 3, H, W)` to `(1, 3, scale*H, scale*W)`, on the CPU in float32 or float64."""

    name, device, fp16_fallbacks = "torch", "cpu", 0

    def __init__(self, network: nn.Module, descriptor: Descriptor, dtype: torch.dtype) -> None:
        self.descriptor = descriptor
        self.dtype = str(dtype).removeprefix("torch.")
        # Convolutions are fastest in channels_last.
        self._network = network.eval().to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        """Upscale a tile; see `Engine`. Raises UsageError in a process forked from one with threads of torch."""
        _check_process()
        try:
            with torch.inference_mode():
                x = torch.from_numpy(tile).permute(2, 0, 1)[None]  # (1, 3, H, W), channels_last without a copy
                y: Tensor = self._network(x)
                result: UnitPixels = y[0].permute(1, 2, 0).contiguous().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = tile.shape[:2]
            message = f"a tile of {width}x{height} does not fit the memory of {self.device}"
            raise OutOfMemory(message, "close other programs to free memory") from error
        return require_finite(result)


def _check_process() -> None:
    """Raise UsageError where torch would wait for ever, for threads that a fork has left in the parent."""
    if torch.get_num_threads() > 1 and _first_process() != os.getpid():
        raise UsageError(
            "PyTorch does not run in a process that was forked after PyTorch had run with several threads",
            'start processes with multiprocessing.get_context("spawn"), or use one thread',
        )


@cache
def _first_process() -> int:
    """Return the process in which a network first ran with several threads; a forked process keeps the number."""
    return os.getpid()
