"""PyTorch devices and dtypes by name, free memory, and switches that make float32 on a device exact or fast."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Lock

import torch

from dsclora_cli.errors import UsageError
from dsclora_cli.host import host_memory
from dsclora_cli.inference.engine import Descriptor


def resolve_device(name: str) -> torch.device:
    """Return the device called auto, cpu, cuda, cuda:N or mps.

    Raises UsageError for an absent device: another device is never taken instead.
    """
    if name == "auto":
        if _has_cuda():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = name.partition(":")
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind == "mps" and not index:
        if not torch.backends.mps.is_available():
            raise UsageError("this machine has no MPS device", "use --device auto or --device cpu")
        return torch.device("mps")
    if kind == "cuda" and (not index or index.isdecimal()):
        return _cuda_device(int(index or 0))
    raise UsageError(f"unknown device {name!r}", "choose auto, cpu, cuda, cuda:N or mps")


def every_gpu() -> tuple[str, ...]:
    """Return the names of all CUDA devices."""
    count = torch.cuda.device_count() if _has_cuda() else 0
    return tuple(f"cuda:{index}" for index in range(count))


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use."""

    name: str
    """Name of the device: cuda:N or mps."""

    description: str
    """Name of the hardware."""

    memory: int
    """Memory in bytes; 0 where the system does not say."""

    free_memory: int
    """Memory in bytes that is free now."""


def describe_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that torch can use."""
    if torch.backends.mps.is_available():
        return (Gpu("mps", "Apple GPU", 0, host_memory()),)
    found = []
    for name in every_gpu():
        properties = torch.cuda.get_device_properties(name)
        free = torch.cuda.mem_get_info(torch.device(name))[0]
        found.append(Gpu(name, properties.name, properties.total_memory, free))
    return tuple(found)


def _has_cuda() -> bool:
    """Return whether a CUDA device can be used; torch warns of every broken driver, in several lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.is_available()


def _cuda_device(index: int) -> torch.device:
    count = len(every_gpu())
    if count == 0:
        built = "has no CUDA support" if torch.version.cuda is None else "finds no CUDA device"
        raise UsageError(f"the installed torch {built}", "use --device cpu, or install a CUDA build of torch")
    if index >= count:
        raise UsageError(
            f"there is no device cuda:{index}, only {count} GPUs", f"use --device cuda:0 to cuda:{count - 1}"
        )
    return torch.device("cuda", index)


def resolve_dtype(name: str, device: torch.device, descriptor: Descriptor) -> torch.dtype:
    """Return the dtype called auto, float32 or float16; auto is float16 on CUDA where the network allows float16.

    bfloat16 is not offered: 8 bits of mantissa cost SPAN up to 75 gray levels.
    """
    half = descriptor.supports_half and device.type in {"cuda", "mps"}
    if name == "auto":
        return torch.float16 if half and device.type == "cuda" else torch.float32
    if name == "float32":
        return torch.float32
    if name == "float16":
        if not half:
            raise UsageError(f"float16 is not offered on {device.type}", "use --dtype float32 or auto")
        return torch.float16
    raise UsageError(f"unknown dtype {name!r}", "choose auto, float32 or float16")


def channel_multiple(device: torch.device, dtype: torch.dtype) -> int:
    """Return the number that the channels of a network should be a multiple of on a device; 1 for any number.

    The tensor cores of CUDA GPUs read eight float16 values at once. Kernels for other numbers of channels are slower.
    """
    return 8 if device.type == "cuda" and dtype is torch.float16 else 1


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Return whether an error comes from a device or host without enough memory."""
    # CUDA has an exception class for out-of-memory; the allocators of CPU and MPS only have a text.
    text = str(error)
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "DefaultCPUAllocator" in text
        or "could not create a primitive" in text  # oneDNN
        or "Storage size calculation overflowed" in text  # more bytes than an address has bits for
        or "MPS backend out of memory" in text
    )


def free_memory(device: torch.device) -> int:
    """Return the bytes still free on the device; for CPU and MPS, the bytes free on the host or in the container."""
    if device.type == "cuda":
        # Memory that torch's allocator has reserved but not handed out is free for torch, though not for CUDA.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return host_memory()


class _FullFloat32:
    """Counts the threads inside `full_float32`; the TF32 switch is global, and the last thread out restores it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before = True

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.cudnn.allow_tf32 = self._before


_FULL = _FullFloat32()


def full_float32() -> AbstractContextManager[None]:
    """Keep all 23 bits of mantissa in CUDA convolutions in float32; by default torch lets TF32 drop 13 bits."""
    return _FULL


@contextmanager
def no_subnormals() -> Iterator[None]:
    """Treat float32 values below 1e-38 as zero on the CPU, in the calling thread and in threads started from there.

    The tails of SiLU produce subnormal numbers once a network is trained for a while, and convolutions over subnormal
    numbers are up to ten times slower.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
