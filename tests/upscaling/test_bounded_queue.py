"""The queue between two stages holds what it may and lets go when told to."""

from __future__ import annotations

import threading

import pytest

from dsclora_cli.upscaling.bounded_queue import BoundedQueue, ClosedError, Worker

MB = 1 << 20


def fill(channel: BoundedQueue[int], count: int, size: int) -> Worker:
    """A thread that puts numbers."""

    def work() -> None:
        for number in range(count):
            channel.put(number, size)

    worker = Worker("test", work)
    worker.start()
    return worker


def settled(channel: BoundedQueue[int]) -> int:
    """How many items wait once the producer can do no more."""
    before = -1
    while before != len(channel._items):
        before = len(channel._items)
        threading.Event().wait(0.15)
    return before


def test_items_come_in_order_and_within_the_budget() -> None:
    channel: BoundedQueue[int] = BoundedQueue(4 * MB)
    worker = fill(channel, 9, MB)
    assert settled(channel) == 4
    assert channel.get() == 0
    assert settled(channel) == 3  # the one in hand still counts
    assert [channel.get() for _ in range(8)] == list(range(1, 9))
    worker.wait()


def test_an_item_beyond_the_budget_passes_alone() -> None:
    channel: BoundedQueue[int] = BoundedQueue(MB)
    worker = fill(channel, 2, 5 * MB)
    assert settled(channel) == 1
    assert (channel.get(), channel.get()) == (0, 1)
    worker.wait()


def test_small_items_do_not_pile_up() -> None:
    channel: BoundedQueue[int] = BoundedQueue(MB)
    fill(channel, 1000, 1)
    assert settled(channel) <= 16
    channel.abort()


def test_close_lets_the_rest_be_had_and_abort_does_not() -> None:
    for end, rest in ((BoundedQueue.close, [0, 1]), (BoundedQueue.abort, [])):
        channel: BoundedQueue[int] = BoundedQueue(MB)
        channel.put(0)
        channel.put(1)
        end(channel)
        with pytest.raises(ClosedError):
            channel.put(2)
        assert [channel.get() for _ in rest] == rest
        with pytest.raises(ClosedError):
            channel.get()


def test_closing_wakes_a_producer_that_waits() -> None:
    channel: BoundedQueue[int] = BoundedQueue(MB)
    worker = fill(channel, 9, MB)
    settled(channel)
    channel.close()
    worker.wait()


def test_a_worker_raises_in_the_thread_that_waits_for_it() -> None:
    def work() -> None:
        raise ValueError("broken")

    worker = Worker("test", work)
    worker.start()
    with pytest.raises(ValueError, match="broken"):
        worker.wait()
