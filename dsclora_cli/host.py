"""CPUs and free memory of the machine, memory that is given back, and the number of worker processes. No torch."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use; a container or a job of Slurm may have some of the CPUs."""
    # os.process_cpu_count does the same from Python 3.13 on.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_memory() -> int:
    """Return the free bytes of host memory, within the limits of the process and of a Linux container."""
    import psutil  # absent on a borrowed machine that has little more than torch

    return int(min(psutil.virtual_memory().available, _within_limits(), _within_groups()))


def return_freed_memory() -> None:
    """Give memory that was freed back to the machine, on Linux with glibc, which keeps it in pools for threads."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # other libraries for C have no such function
            ctypes.CDLL(None).malloc_trim(0)


def worker_count() -> int:
    """Return the number of processes that torchrun started for this command; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _within_groups() -> int:
    """Return the free bytes of the control groups of the process, such as those of a container or of a job of Slurm."""
    free = [sys.maxsize]
    for folder, (limit, used, cached) in _memory_groups():
        with suppress(OSError, ValueError):
            most = (folder / limit).read_text(encoding="ascii").strip()
            taken = int((folder / used).read_text(encoding="ascii"))
            if most != "max":
                free.append(max(0, int(most) - taken + _fact(folder / "memory.stat", cached)))
    return min(free)


def _fact(path: Path, name: str) -> int:
    """Return a number from a file of names and numbers; 0 where the file has none. Raises ValueError."""
    # Pages of files that nobody has used for a while count as used, and are free as soon as memory is asked for.
    with suppress(OSError):
        facts = dict(line.split() for line in path.read_text(encoding="ascii").splitlines())
        return int(facts.get(name, 0))
    return 0


def _memory_groups() -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yield the folders of the process's control groups and of all outer groups, with names of files and of a fact."""
    lines = ["0::/"]
    with suppress(OSError, ValueError):
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers:
            top, names = _CGROUP, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top, names = _CGROUP / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # A container may show its own group at the top, and know nothing of the place on the machine.
        inner = [part for part in place.split("/") if part not in {"", ".."}]
        for depth in range(len(inner) + 1):
            yield top.joinpath(*inner[:depth]), names


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
