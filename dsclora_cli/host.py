"""Free memory of the machine, found without torch."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


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
