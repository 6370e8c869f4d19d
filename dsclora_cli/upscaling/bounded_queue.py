"""A queue between two threads, bounded in bytes: pictures of any number and size pass in steady memory."""

from __future__ import annotations

from collections import deque
from threading import Condition, Thread
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

POLL_SECONDS = 0.1
"""Nobody waits longer at once: on Windows a waiting main thread does not hear Ctrl-C."""

_SMALLEST = 1 << 16
"""What an item counts at least, in bytes, so that tiny pictures do not pile up by the thousand."""


class ClosedError(Exception):
    """The other side has stopped: nothing more can be put, or nothing is left to get."""


class BoundedQueue(Generic[T]):
    """Carries items from one thread to one other.

    The items waiting here and the one last got count at most `budget` bytes together, or are one item.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._in_hand = 0
        self._closed = False
        self._changed = Condition()

    def put(self, item: T, size: int = 0) -> None:
        """Add an item of `size` bytes, waiting for room. Raises ClosedError."""
        size = max(size, _SMALLEST)
        with self._changed:
            while not self._closed and self._bytes and self._bytes + size > self._budget:
                self._changed.wait(POLL_SECONDS)
            if self._closed:
                raise ClosedError
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()

    def get(self) -> T:
        """The next item, waiting for it; the one before no longer counts. Raises ClosedError."""
        with self._changed:
            self._bytes -= self._in_hand
            self._in_hand = 0
            self._changed.notify_all()
            while not self._items:
                if self._closed:
                    raise ClosedError
                self._changed.wait(POLL_SECONDS)
            item, self._in_hand = self._items.popleft()
            return item

    def close(self) -> None:
        """Nothing more is put; what is here can still be had."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abort(self) -> None:
        """Close, and throw away what is here."""
        with self._changed:
            self._items.clear()
            self.close()


class Worker(Thread):
    """A thread that keeps what ended it in `error`, for the thread that started it to raise."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        # A daemon: a download that hangs must not keep an interrupted program alive.
        super().__init__(name=f"dsclora-{name}", daemon=True)
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work."""
        try:
            self._work()
        except ClosedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again by `wait`, in the thread that waits for this one
            self.error = error

    def rest(self) -> None:
        """Wait until the thread has ended."""
        while self.is_alive():
            self.join(POLL_SECONDS)

    def wait(self) -> None:
        """Wait until the thread has ended, and raise what ended it early."""
        self.rest()
        if self.error is not None:
            raise self.error
