"""Queues between two threads, bounded in bytes: pictures of any number and size pass in steady memory.

A `ByteBudget` stands between two stages. All queues between the two stages share the budget and the lock.
"""

from __future__ import annotations

from collections import deque
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

POLL_SECONDS = 0.1
"""Longest uninterrupted wait of the main thread: on Windows, Ctrl-C does not end a wait."""

_SMALLEST = 1 << 16
"""Least number of bytes that pixels count, so that tiny pictures do not pile up by the thousand."""


class ClosedError(Exception):
    """The other stage has stopped: no item can be put, or no item will come."""


class CancelledError(Exception):
    """The picture was cancelled; other pictures between the same two stages continue."""


class ByteBudget:
    """Budget for the bytes of pixels between two threads, shared by every queue between the two."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Bytes. A single item larger than the limit passes alone."""
        self.used = 0
        """Bytes of all waiting items, and of the last item of every reader."""
        self.closed = False
        """Whether queues refuse items; waiting items can still be read."""
        self.aborted = False
        """Whether waiting items are dropped as well."""
        self.changed = Condition()
        """Lock of all fields above and of all queues of the budget; notified after each change."""

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the fields holds; the caller holds the lock. The main thread may wait here too."""
        while not self.changed.wait_for(condition, POLL_SECONDS):
            pass

    def close(self) -> None:
        """Let no queue take more items. Waiting items can still be read."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def abort(self) -> None:
        """Close, and drop the waiting items."""
        with self.changed:
            self.aborted = True
            self.close()


class BoundedQueue(Generic[T]):
    """Iterator over items from another thread.

    A queue ends with `close`, with `fail`, or with `cancel`. A branch carries the parts of an item, for example the
    bands of a frame; `fail` and `cancel` concern a queue together with all branches.

    Args:
        budget: counts the bytes of the items, together with all other queues of the same budget.
        max_items: number of items that may wait, whatever their bytes.
    """

    def __init__(self, budget: ByteBudget, max_items: int | None = None) -> None:
        self._budget = budget
        self._max_items = max_items
        self._parent: BoundedQueue[Any] | None = None
        self._items: deque[tuple[T, int]] = deque()
        self._in_hand = 0  # bytes of the item that the reader took last and may still use
        self._closed = False
        # Only the root uses the three below, for itself and for its branches.
        self._held = 0  # bytes of the budget
        self._error: Exception | None = None
        self._cancelled = False

    def branch(self) -> BoundedQueue[Any]:
        """Return a queue for the parts of an item; `fail` and `cancel` of the parent also end the branch."""
        queue: BoundedQueue[Any] = BoundedQueue(self._budget)
        queue._parent = self._root
        return queue

    @property
    def _root(self) -> BoundedQueue[Any]:
        return self._parent or self

    def put(self, item: T, size: int = 0) -> None:
        """Add an item of `size` bytes after waiting for room. Raises ClosedError or CancelledError."""
        size = max(size, _SMALLEST) if size else 0
        budget, root = self._budget, self._root
        with budget.changed:
            budget.wait_for(lambda: budget.closed or root._cancelled or self._has_room(size))
            if budget.closed:
                raise ClosedError
            if root._cancelled:
                raise CancelledError
            self._items.append((item, size))
            budget.used += size
            root._held += size
            budget.changed.notify_all()

    def _has_room(self, size: int) -> bool:
        if self._max_items is not None and len(self._items) >= self._max_items:
            return False
        # An item larger than the whole budget passes once nothing else waits.
        return not size or not self._budget.used or self._budget.used + size <= self._budget.limit

    def __iter__(self) -> BoundedQueue[T]:
        """Return the queue."""
        return self

    def __next__(self) -> T:
        """Wait for the next item and return the item. The bytes of the item before count no longer.

        Raises the error given to `fail`, CancelledError, and ClosedError where the budget was closed before the queue.
        """
        budget, root = self._budget, self._root
        with budget.changed:
            if not root._cancelled:  # else `cancel` has given the bytes back already
                budget.used -= self._in_hand
                root._held -= self._in_hand
                self._in_hand = 0
                budget.changed.notify_all()
            budget.wait_for(
                lambda: bool(self._items or self._closed or budget.closed or root._cancelled or root._error)
            )
            if budget.aborted:
                raise ClosedError
            if root._cancelled:
                raise CancelledError
            if self._items:
                item, self._in_hand = self._items.popleft()
                return item
            if self._closed:
                raise StopIteration
            raise root._error or ClosedError

    def close(self) -> None:
        """End the queue: the reader gets the waiting items, then StopIteration."""
        with self._budget.changed:
            self._closed = True
            self._budget.changed.notify_all()

    def fail(self, error: Exception) -> None:
        """End the queue and all branches: the reader gets the waiting items, then `error`."""
        with self._budget.changed:
            self._root._error = error
            self._budget.changed.notify_all()

    def cancel(self) -> None:
        """Drop all items of the queue and of the branches; the next call of either thread raises CancelledError."""
        root = self._root
        with self._budget.changed:
            root._cancelled = True
            root._items.clear()
            # The traceback refers to functions that refer to the queue: a cycle, which would keep the engine.
            root._error = None
            self._budget.used -= root._held
            root._held = 0
            self._budget.changed.notify_all()


class Worker(Thread):
    """Thread with an `error`: the exception, if any, for `wait` to raise in another thread."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        # A daemon: a download that hangs must not keep an interrupted program alive.
        super().__init__(name=f"dsclora-{name}", daemon=True)
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        """Do the work. A ClosedError is a normal end: the stage before, or the caller, has stopped."""
        try:
            self._work()
        except ClosedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again by `wait`, in the thread that waits for this one
            self.error = error
        finally:
            # The work belongs to the owner of the thread. A cycle would keep the owner, with engines of hundreds of
            # megabytes, until Python looks for cycles.
            del self._work

    def rest(self, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Wait until the thread has ended; `while_waiting` is called several times a second."""
        while self.is_alive():
            self.join(POLL_SECONDS)
            while_waiting()

    def wait(self, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Wait until the thread has ended, as `rest` does, and raise `error`."""
        self.rest(while_waiting)
        if self.error is not None:
            raise self.error
