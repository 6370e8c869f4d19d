"""Receive bytes from strangers: no wait without an end, no file without a largest size.

`hub` and `weights.download` give the requests; this module gives the deadlines, the limits and the progress.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

SLOWEST = 2048
"""Fewest bytes a second, on average over a window of time; a slower server counts as a server that does not answer."""

_POLL_SECONDS = 0.1
T = TypeVar("T")


class TooManyBytes(Exception):
    """A server sends more bytes than the file may have."""


class DiskError(Exception):
    """A file cannot be written while the connection is in order."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.reason = error.strerror or str(error)
        """The reason in words."""


@dataclass
class Watch:
    """Number of bytes that a transfer has received, read by the thread that waits for the transfer."""

    received: int = 0
    """Bytes so far."""

    total: int | None = None
    """Bytes in all, if the server or the pin says."""

    stopped: bool = False
    """Whether the waiting thread has given up: the transfer ends at the next block."""


OnWatch = Callable[[Watch], None]
"""Callback of the waiting thread, called about ten times a second."""


@dataclass
class Received:
    """A file that arrives, with the sha256 of the bytes so far."""

    file: BinaryIO
    """File to write to, opened for reading and writing."""

    limit: int
    """Largest number of bytes."""

    size: int = 0
    """Bytes written so far."""

    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """Return the sha256 of the bytes so far: 64 lower-case hex digits."""
        return self._digest.hexdigest()

    def restart(self) -> None:
        """Forget all bytes, for a server that cannot continue in the middle of the file. Raises OSError."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self._digest = 0, hashlib.sha256()

    def write_all(self, blocks: Iterable[bytes], watch: Watch) -> None:
        """Write blocks behind the bytes so far. Raises TooManyBytes, DiskError, or TimeoutError (stopped)."""
        for block in blocks:
            if watch.stopped:
                raise TimeoutError
            watch.received += len(block)
            if self.size + len(block) > self.limit:
                raise TooManyBytes
            try:
                self.file.write(block)
            except OSError as error:
                raise DiskError(error) from error
            self._digest.update(block)
            self.size += len(block)


def within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call. Raises TimeoutError after `seconds`.

    The time-outs of HTTP libraries cover neither the resolution of the host name nor a server that sends a byte now
    and then. The call runs in a daemon thread, so that the end of the program does not wait for the call.
    """
    return _in_thread(call).result(seconds)


def watched(seconds: float, call: Callable[[Watch], T], on_watch: OnWatch | None = None) -> T:
    """Return the result of a transfer that counts received bytes in a watch.

    Args:
        seconds: Length of a window; every window must bring `SLOWEST` bytes a second on average.
        call: The transfer; runs in a daemon thread.
        on_watch: Callback for the progress, called in the thread of the caller.

    Raises:
        TimeoutError: The bytes come too slowly, or not at all.
    """
    from concurrent.futures import wait

    watch = Watch()
    future = _in_thread(lambda: call(watch))
    before, end = 0, time.monotonic() + seconds
    try:
        while not wait([future], _POLL_SECONDS).done:
            if on_watch:
                on_watch(watch)
            if time.monotonic() >= end:
                if watch.received - before < SLOWEST * seconds:
                    raise TimeoutError
                before, end = watch.received, time.monotonic() + seconds
        if on_watch:
            on_watch(watch)
        return future.result()
    finally:
        watch.stopped = True  # after Ctrl-C too, so that no thread writes behind the back of the caller


def _in_thread(call: Callable[[], T]) -> Future[T]:
    from concurrent.futures import Future

    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 (raised again in the thread of the caller)
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def claim(path: Path, seconds: float) -> BinaryIO:
    """Create a file for a download, and open the file. Raises OSError.

    The file is a claim too: a second process waits until the file is gone. A file that does not grow for `seconds`
    belongs to a killed process and is removed; `is_ours` tells a process that only stood still. Nothing but a new
    file is ever opened, so that neither a link nor a pipe at this place leads anywhere.
    """
    seen, since = None, time.monotonic()
    while True:
        try:
            return path.open("x+b")
        except FileExistsError:
            found = _version(path)
        if found != seen:
            seen, since = found, time.monotonic()
        # The age by the clock spares the wait after a kill; the second rule holds where the clocks of machines differ.
        if found and (time.time() - found[2] / 1e9 > seconds or time.monotonic() - since > seconds):
            path.unlink(missing_ok=True)
        else:
            time.sleep(_POLL_SECONDS)


def release(own: os.stat_result, path: Path) -> None:
    """Remove the file that `claim` opened, unless another process has the claim now."""
    with suppress(OSError):
        if is_ours(own, path):
            path.unlink()


def is_ours(own: os.stat_result, path: Path) -> bool:
    """Return whether the file at `path` is still the file that `claim` opened, of which `own` is the status."""
    try:
        return os.path.samestat(own, path.lstat())
    except FileNotFoundError:
        return False


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
