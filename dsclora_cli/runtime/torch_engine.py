"""The engine of every platform: a torch module run on CPU, CUDA or MPS."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.runtime.descriptor import Descriptor
from dsclora_cli.runtime.engine import Values, finite
from dsclora_cli.runtime.fused import can_fuse, fuse
from dsclora_cli.runtime.precision import full_float32

_BLACK = 1e-3


def open_engine(network: nn.Module, descriptor: Descriptor, device: torch.device, dtype: torch.dtype) -> TorchEngine:
    """The engine of a network of ours; on the CPU in float32 a fused form of it runs, where this PyTorch has one."""
    return TorchEngine(fuse(network) if can_fuse(device, dtype) else network, descriptor, device, dtype)


class TorchEngine:
    """Runs `network`, which maps `(1, 3, H, W)` to `(1, 3, scale*H, scale*W)`, on one device in one dtype.

    The network is moved there, in channels_last, in which the convolutions of every backend are fastest. float32 is
    never TF32. In float16 an answer with NaN or inf, or all black from a tile that is not, is computed again in
    float32.
    """

    name = "torch"

    def __init__(self, network: nn.Module, descriptor: Descriptor, device: torch.device, dtype: torch.dtype) -> None:
        self.descriptor = descriptor
        self.device = str(device)
        self.dtype = str(dtype).removeprefix("torch.")
        self.rescued = 0
        self._device, self._dtype = device, dtype
        layout = torch.channels_last
        self._network = network.eval().to(device=device, dtype=dtype, memory_format=layout)  # type: ignore[call-overload]

    def __call__(self, tile: Values) -> Values:
        """See `Engine`. Raises OutOfMemory when the device has no room for the tile."""
        result = self._run(tile, self._dtype)
        if self._dtype is torch.float16 and _unusable(result, tile):
            self._network.float()
            try:
                result = self._run(tile, torch.float32)
            finally:
                self._network.to(self._dtype)
            self.rescued += 1
        return finite(result)

    def _run(self, tile: Values, dtype: torch.dtype) -> Values:
        try:
            with torch.inference_mode(), full_float32():
                lr = torch.from_numpy(tile)
                x = lr.to(self._device, dtype).permute(2, 0, 1)[None]  # (1, 3, H, W), channels_last
                y: Tensor = self._network(x)
                return y[0].permute(1, 2, 0).to("cpu", lr.dtype).contiguous().numpy()
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            height, width = tile.shape[:2]
            raise OutOfMemory(f"a tile of {width}x{height} does not fit the memory of {self.device}") from error


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """CUDA has a class for it; the CPU and MPS allocators only say so."""
    text = str(error)
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "DefaultCPUAllocator" in text
        or "MPS backend out of memory" in text
    )


def _unusable(result: Values, tile: Values) -> bool:
    if not np.isfinite(result).all():
        return True
    return bool(result.max() < _BLACK and tile.max() > 0.01)
