"""Tasks, attempts and waiting, with results and a clock of the test: no Ray, no pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from dsclora_cli.cluster.listing import FileGroup
from dsclora_cli.cluster.schedule import MOST_ATTEMPTS, MOST_GROUPS, MOST_NOT_REACHED, TASK_SECONDS, Schedule, Task
from dsclora_cli.errors import ErrorCode, ErrorInfo
from dsclora_cli.upscaling.inputs import ListedInput
from dsclora_cli.upscaling.types import FileResult

LOST = ErrorInfo(ErrorCode.WORKER_LOST, "gone")
FULL = ErrorInfo(ErrorCode.IMAGE_UNWRITABLE, "the disk is full")
BROKEN = ErrorInfo(ErrorCode.IMAGE_UNREADABLE, "broken")


def groups(count: int, size: int = 1) -> Iterator[FileGroup]:
    for number in range(count):
        yield tuple(ListedInput(f"/in/{number}.{part}", f"{number}.{part}", "", False) for part in range(size))


def done(task: Task, **changes: object) -> list[FileResult]:
    return [FileResult(file.name, **{"status": "done", "output": "x", **changes}) for file in task.files]


def test_every_file_is_done_once_and_tasks_last_as_long_as_intended() -> None:
    schedule, sizes, final = Schedule(groups(5000), 4), [], Counter[str]()
    while not schedule.is_done:
        task = schedule.next_task(0.0)
        assert task is not None
        sizes.append(len(task.pending))
        # A picture takes a quarter of a second.
        final.update(result.input for result in schedule.finished(task, done(task), len(task.pending) / 4, 0.0))
    assert set(final.values()) == {1} and len(final) == 5000
    assert Counter(sizes).most_common(1)[0][0] == TASK_SECONDS * 4
    assert max(sizes) <= MOST_GROUPS and sizes[-1] == 1, "the last tasks are small, so that all workers end together"


def test_the_listing_is_read_a_little_ahead_of_the_workers() -> None:
    read = 0

    def counted() -> Iterator[FileGroup]:
        nonlocal read
        for group in groups(10**9):
            read += 1
            yield group

    schedule = Schedule(counted(), 8)
    for _ in range(50):
        task = schedule.next_task(0.0)
        assert task is not None
        schedule.finished(task, done(task), 0.001, 0.0)
    assert read <= 50 * MOST_GROUPS + 2 * 8 * MOST_GROUPS


def test_a_picture_that_ends_its_workers_fails_alone() -> None:
    """The other pictures of the task are done, whatever the order."""
    schedule, results, killed = Schedule(groups(6), 1), list[FileResult](), 0
    while not schedule.is_done:
        task = schedule.next_task(0.0)
        assert task is not None
        if any(file.name == "1.0" for file in task.files):
            killed += 1
            results += schedule.lost(task, LOST)
        else:
            results += schedule.finished(task, done(task), 1.0, 0.0)
    assert killed == MOST_ATTEMPTS
    assert {result.input: (result.status, result.attempts) for result in results} == {
        **{f"{number}.0": ("done", 1) for number in range(2, 6)},
        "0.0": ("done", 2),
        "1.0": ("failed", MOST_ATTEMPTS),
    }
    assert [result.error for result in results if result.error] == [LOST]


def test_another_attempt_shares_a_worker_with_no_other_task() -> None:
    """The report of a task may be on the way when the next task ends the worker."""
    schedule = Schedule(groups(10), 1)
    task = schedule.next_task(0.0)
    assert task is not None and not task.is_alone
    schedule.lost(task, LOST)
    assert schedule.next_task(0.0, is_idle=False) is None
    again = schedule.next_task(0.0, is_idle=True)
    assert again is not None and again.is_alone and len(again.pending) == 1


def test_a_refused_write_is_tried_again_after_a_pause() -> None:
    schedule = Schedule(groups(1), 1)
    task = schedule.next_task(0.0)
    assert task is not None
    assert schedule.finished(task, done(task, status="failed", output=None, error=FULL), 1.0, now=100.0) == []
    assert schedule.next_task(101.0) is None and not schedule.is_done
    again = schedule.next_task(102.0)
    assert again is not None
    (result,) = schedule.finished(again, done(again), 1.0, now=103.0)
    assert (result.status, result.attempts, schedule.is_done) == ("done", 2, True)


def test_a_picture_that_is_broken_is_not_tried_again() -> None:
    schedule = Schedule(groups(1), 1)
    task = schedule.next_task(0.0)
    assert task is not None
    (result,) = schedule.finished(task, done(task, status="failed", output=None, error=BROKEN), 1.0, 0.0)
    assert (result.error, result.attempts, schedule.is_done) == (BROKEN, 1, True)


def test_a_destination_out_of_order_stops_new_work() -> None:
    """Ten thousand pictures do not fail one after another while a disk is full."""
    schedule, begun = Schedule(groups(10_000), 2), 0
    while (task := schedule.next_task(0.0)) is not None:
        begun += len(task.pending)
        schedule.finished(task, done(task, status="failed", output=None, error=FULL), 0.01, now=0.0)
    assert 1000 <= begun < 1000 + MOST_GROUPS


def test_a_group_is_tried_again_as_a_whole_and_reported_once() -> None:
    """Names of results depend on all files of a group."""
    schedule = Schedule(groups(1, size=3), 1)
    task = schedule.next_task(0.0)
    assert task is not None
    first, second, third = done(task)
    refused = FileResult(second.input, "failed", error=FULL)
    assert [result.input for result in schedule.finished(task, [first, refused, third], 1.0, 0.0)] == ["0.0", "0.2"]
    again = schedule.next_task(60.0)
    assert again is not None and again.files == task.files
    assert [result.input for result in schedule.finished(again, done(again), 1.0, 60.0)] == ["0.1"]


def test_a_task_that_was_never_begun_counts_no_attempt() -> None:
    schedule = Schedule(groups(1), 1)
    task = schedule.next_task(0.0)
    assert task is not None
    schedule.give_back(task)
    again = schedule.next_task(0.0)
    assert again is not None
    assert [result.attempts for result in schedule.finished(again, done(again), 1.0, 0.0)] == [1]


@pytest.mark.parametrize(("losses", "status"), [(0, "skipped"), (1, "done")])
def test_a_picture_of_another_process_is_left_to_another_run_but_not_to_a_lost_worker(losses: int, status: str) -> None:
    schedule = Schedule(groups(1), 1)
    for _ in range(losses):
        task = schedule.next_task(0.0)
        assert task is not None
        schedule.lost(task, LOST)
    task = schedule.next_task(0.0)
    assert task is not None
    elsewhere = done(task, status="skipped", output=None, output_size=(4, 4))
    final = schedule.finished(task, elsewhere, 1.0, 0.0)
    if losses:
        assert final == []
        task = schedule.next_task(60.0)
        assert task is not None
        final = schedule.finished(task, done(task), 1.0, 60.0)
    assert [result.status for result in final] == [status]


def test_a_picture_that_a_lost_worker_still_claims_has_failed() -> None:
    schedule = Schedule(groups(1), 1)
    task = schedule.next_task(0.0)
    assert task is not None
    schedule.lost(task, LOST)
    for attempt in range(2, MOST_ATTEMPTS + 1):
        task = schedule.next_task(60.0 * attempt)
        assert task is not None
        elsewhere = done(task, status="skipped", output=None, output_size=(4, 4))
        final = schedule.finished(task, elsewhere, 1.0, 60.0 * attempt)
    assert [(each.status, each.error, each.attempts) for each in final] == [("failed", LOST, MOST_ATTEMPTS)]


@pytest.mark.slow
def test_a_stop_does_not_wait_for_an_endless_listing() -> None:
    schedule = Schedule(groups(10**9), 1)
    schedule.stop()
    assert sum(1 for _ in schedule.not_reached()) == MOST_NOT_REACHED and not schedule.is_listed


def test_after_a_stop_every_listed_file_has_a_result() -> None:
    schedule = Schedule(groups(20), 1)
    begun, lost = schedule.next_task(0.0), schedule.next_task(0.0)
    assert begun is not None and lost is not None
    schedule.stop()
    assert schedule.next_task(0.0) is None
    results = [FileResult(begun.files[0].name, "done"), FileResult(begun.files[1].name, "interrupted")]
    final = [*schedule.finished(begun, results, 1.0, 0.0), *schedule.lost(lost, LOST), *schedule.not_reached()]
    counts = Counter(result.status for result in final)
    assert (counts["done"], counts["interrupted"]) == (1, 1)
    assert len({result.input for result in final}) == len(final) == 20 and schedule.is_done and schedule.is_listed
