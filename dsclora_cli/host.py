"""Free memory of the machine, found without torch."""

from __future__ import annotations

import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def host_memory() -> int:
    """Return the free bytes of host memory, within the limits of the process and of a Linux container."""
    import psutil  # absent on a borrowed machine that has little more than torch

    available = min(psutil.virtual_memory().available, _within_limits())
    # Only version 2 of control groups has these files; elsewhere no limit is known.
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return int(available)
    return int(available) if limit == "max" else max(0, min(available, int(limit) - used))


def _within_limits() -> int:
    """Return the bytes that the process may still take under the limits of `ulimit` and `prlimit`, if there are any."""
    if sys.platform == "win32":
        return sys.maxsize
    import resource

    import psutil

    used = psutil.Process().memory_info()
    free = [sys.maxsize]
    # Only Linux reports the size of the data segment, and only Linux and BSD keep to these limits.
    for kind, taken in ((resource.RLIMIT_DATA, getattr(used, "data", 0)), (resource.RLIMIT_AS, used.vms)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            free.append(max(0, limit - taken))
    return min(free)
