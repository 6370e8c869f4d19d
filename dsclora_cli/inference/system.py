"""Whether a GPU may be present, found without torch."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_GPU_FILES = tuple(
    map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd", "C:/Windows/System32/nvcuda.dll"))
)
"""Files of GPU drivers: NVIDIA on Linux, on Jetson and under WSL, AMD, and NVIDIA on Windows."""


def may_have_gpu() -> bool:
    """Return False only where torch can have no device but the CPU; for True, ask torch itself."""
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    # Every Mac may have MPS; elsewhere a driver has left files.
    return sys.platform == "darwin" or any(file.exists() for file in _GPU_FILES)
