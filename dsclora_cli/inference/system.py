"""What this machine has, told without torch: memory to spare, and whether a GPU may be there."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_GPU_FILES = tuple(
    map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd", "C:/Windows/System32/nvcuda.dll"))
)
"""What drivers put there: NVIDIA's, on Linux, on Jetson and under WSL, AMD's, and NVIDIA's on Windows."""


def host_memory() -> int:
    """Bytes of host memory available to this process, a Linux container's limit included."""
    available = psutil.virtual_memory().available
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return int(available)
    return int(available) if limit == "max" else max(0, min(available, int(limit) - used))


def may_have_gpu() -> bool:
    """False only where torch cannot have a device but the CPU; True means that torch itself must be asked."""
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    return sys.platform == "darwin" or any(file.exists() for file in _GPU_FILES)
