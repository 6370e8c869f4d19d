"""The queue between two stages holds what the budget allows, and ends when closed or cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dsclora_cli.upscaling.bounded_queue import (
    POLL_SECONDS,
    BoundedQueue,
    ByteBudget,
    CancelledError,
    ClosedError,
    Worker,
)

MB = 1 << 20


def in_thread(work: Callable[[], None]) -> Worker:
    worker = Worker("test", work)
    worker.start()
    return worker


def fill(queue: BoundedQueue[int], count: int, size: int) -> Worker:
    """Put numbers in another thread."""

    def work() -> None:
        for number in range(count):
            queue.put(number, size)

    return in_thread(work)


def settled(queue: BoundedQueue[int]) -> int:
    """Return how many items wait once the producer can do no more."""
    counts = [-1]
    while len(counts) < 5 or len(set(counts[-5:])) > 1:
        counts.append(len(queue._items))
        threading.Event().wait(0.05)
    return counts[-1]


def test_items_come_in_order_and_within_the_budget() -> None:
    queue: BoundedQueue[int] = BoundedQueue(ByteBudget(4 * MB))
    worker = fill(queue, 9, MB)
    assert settled(queue) == 4
    assert next(queue) == 0
    assert settled(queue) == 3  # the item in hand still counts
    assert [next(queue) for _ in range(8)] == list(range(1, 9))
    worker.wait()


def test_an_item_larger_than_the_budget_passes_alone() -> None:
    queue: BoundedQueue[int] = BoundedQueue(ByteBudget(MB))
    worker = fill(queue, 2, 5 * MB)
    assert settled(queue) == 1
    assert (next(queue), next(queue)) == (0, 1)
    worker.wait()


def test_small_items_do_not_pile_up() -> None:
    budget = ByteBudget(MB)
    queue: BoundedQueue[int] = BoundedQueue(budget)
    fill(queue, 1000, 1)
    assert settled(queue) == 16
    budget.abort()


def test_the_number_of_items_has_a_limit_too() -> None:
    budget = ByteBudget(MB)
    queue: BoundedQueue[int] = BoundedQueue(budget, 3)
    fill(queue, 9, 0)
    assert settled(queue) == 3
    budget.abort()


def test_no_wait_of_a_reader_or_a_writer_is_longer_than_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float | None] = []
    wait = threading.Condition.wait

    def record(self: threading.Condition, timeout: float | None = None) -> bool:
        if self is budget.changed:
            waits.append(timeout)
        return wait(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", record)
    budget = ByteBudget(MB)
    queue: BoundedQueue[int] = BoundedQueue(budget, 1)
    threading.Timer(0.3, lambda: queue.put(0)).start()
    assert next(queue) == 0
    worker = fill(queue, 3, MB)
    threading.Event().wait(0.3)
    assert [next(queue) for _ in range(3)] == [0, 1, 2]
    worker.wait()
    assert len(waits) > 3 and all(each is not None and each <= POLL_SECONDS for each in waits)


def test_queues_share_a_budget() -> None:
    budget = ByteBudget(4 * MB)
    first: BoundedQueue[int] = BoundedQueue(budget)
    second: BoundedQueue[int] = BoundedQueue(budget)
    first.put(0, 3 * MB)
    worker = fill(second, 3, MB)
    assert settled(second) == 1
    assert next(first) == 0
    first.close()
    with pytest.raises(StopIteration):
        next(first)  # gives back what the last item counted
    assert settled(second) == 3
    worker.wait()


def test_a_closed_queue_gives_what_waits_and_ends() -> None:
    queue: BoundedQueue[int] = BoundedQueue(ByteBudget(MB))
    queue.put(0)
    queue.put(1)
    queue.close()
    assert list(queue) == [0, 1]


def test_a_failed_queue_gives_what_waits_and_raises() -> None:
    queue: BoundedQueue[int] = BoundedQueue(ByteBudget(MB))
    queue.put(0)
    parts = queue.branch()
    parts.put(1)
    queue.fail(ValueError("broken"))
    assert (next(queue), next(parts)) == (0, 1)
    for ended in (parts, queue):
        with pytest.raises(ValueError, match="broken"):
            next(ended)


def test_a_closed_budget_gives_what_waits_and_an_aborted_one_does_not() -> None:
    for end, rest in ((ByteBudget.close, [0, 1]), (ByteBudget.abort, [])):
        budget = ByteBudget(MB)
        queue: BoundedQueue[int] = BoundedQueue(budget)
        queue.put(0)
        queue.put(1)
        end(budget)
        with pytest.raises(ClosedError):
            queue.put(2)
        assert [next(queue) for _ in rest] == rest
        with pytest.raises(ClosedError):
            next(queue)


def test_cancelling_frees_the_budget_and_wakes_both_threads() -> None:
    budget = ByteBudget(4 * MB)
    queue: BoundedQueue[int] = BoundedQueue(budget)
    parts = queue.branch()
    caught: list[str] = []

    def put() -> None:
        try:
            for number in range(9):
                parts.put(number, MB)
        except CancelledError:
            caught.append("put")

    def get() -> None:
        try:
            next(queue)
        except CancelledError:
            caught.append("get")

    workers = [in_thread(put), in_thread(get)]
    assert settled(parts) == 4
    assert next(parts) == 0
    queue.cancel()
    for worker in workers:
        worker.wait()
    assert sorted(caught) == ["get", "put"]
    assert budget.used == 0
    with pytest.raises(CancelledError):
        next(parts)
    other: BoundedQueue[int] = BoundedQueue(budget)
    other.put(0, 4 * MB)
    assert next(other) == 0


def test_closing_the_budget_wakes_a_producer_that_waits() -> None:
    budget = ByteBudget(MB)
    queue: BoundedQueue[int] = BoundedQueue(budget)
    worker = fill(queue, 9, MB)
    settled(queue)
    budget.close()
    worker.wait()


def test_a_worker_raises_in_the_thread_that_waits() -> None:
    def work() -> None:
        raise ValueError("broken")

    worker = in_thread(work)
    with pytest.raises(ValueError, match="broken"):
        worker.wait()
