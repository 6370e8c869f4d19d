"""Claims of a process on a result or on a run folder, which other processes of the same user see.

The claims are locks of the system in the state folder. The system frees the lock of a process that ends, however the
process ends, so no claim is ever stale.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


class ProcessClaim:
    """Claim on what the file `lock` stands for: one process has the claim at a time."""

    def __init__(self, lock: Path) -> None:
        from filelock import FileLock, Timeout

        self.taken = True
        """True for the caller that has the claim, or where there is no place for claims; False for all others."""
        # Claimed in one thread and perhaps released in another thread, so not a lock of a thread.
        self._lock = FileLock(lock, thread_local=False)
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except (Timeout, RuntimeError):  # RuntimeError: another run of the same process holds the lock
            self.taken = False
        except (OSError, NotImplementedError):
            pass  # no place for locks, as for a user without a home: the work is done without a claim

    def release(self) -> None:
        """Let other processes have the claim."""
        if self.taken:
            with suppress(OSError, RuntimeError):
                self._lock.release()


def local_key(path: Path) -> str:
    """Return an identifier of a path, equal for all spellings of the path.

    Links are resolved. Upper and lower case are equal where the system ignores case in file names.
    """
    try:
        key = os.path.normcase(os.path.realpath(path))  # unlike Path.resolve, passes over a link to itself
    except ValueError:  # no file has a NUL in the name
        key = str(path)
    return key.casefold() if sys.platform == "darwin" else key
