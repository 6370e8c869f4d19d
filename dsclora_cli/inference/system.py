"""Whether a GPU may be present, found without torch."""

from __future__ import annotations

import sys
from pathlib import Path

from dsclora_cli.paths import is_taken

_GPU_FILES = tuple(
    map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd", "C:/Windows/System32/nvcuda.dll"))
)
"""Files of GPU drivers: NVIDIA on Linux, on Jetson and under WSL, AMD, and NVIDIA on Windows."""


def find_driver() -> Path | None:
    """Return a file of a GPU driver, whether or not the installed torch can use the GPU."""
    return next((file for file in _GPU_FILES if is_taken(file)), None)


def may_have_gpu() -> bool:
    """Return False only where torch can have no device but the CPU; for True, ask torch itself."""
    # Every Mac may have MPS; elsewhere a driver has left files.
    if sys.platform != "darwin" and find_driver() is None:
        return False
    from importlib.metadata import PackageNotFoundError, version

    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False
