"""Facts about the machine, found without torch: free memory, and whether a GPU may be present."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_GPU_FILES = tuple(
    map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd", "C:/Windows/System32/nvcuda.dll"))
)
"""Files of GPU drivers: NVIDIA on Linux, on Jetson and under WSL, AMD, and NVIDIA on Windows."""


def host_memory() -> int:
    """Return the free bytes of host memory, within the limit of a Linux container."""
    available = psutil.virtual_memory().available
    # Only version 2 of control groups has these files; elsewhere no limit is known.
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return int(available)
    return int(available) if limit == "max" else max(0, min(available, int(limit) - used))


def may_have_gpu() -> bool:
    """Return False only where torch can have no device but the CPU; for True, ask torch itself."""
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    # Every Mac may have MPS; elsewhere a driver has left files.
    return sys.platform == "darwin" or any(file.exists() for file in _GPU_FILES)
