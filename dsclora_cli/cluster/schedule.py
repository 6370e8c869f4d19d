"""Share the groups of a listing among workers: tasks of a few seconds, attempts counted, memory bounded.

Knows neither Ray nor a clock: `run.py` has a real cluster and a clock, `benchmarks/cluster.py` simulates both.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, count, islice

from dsclora_cli.cluster.listing import FileGroup
from dsclora_cli.errors import ErrorCode, ErrorInfo
from dsclora_cli.upscaling.types import FileResult

MOST_ATTEMPTS = 3
"""Attempts at a picture before the picture counts as failed."""

TASK_SECONDS = 5.0
"""Intended length of a task: a lost worker costs no more, and a driver serves a thousand workers."""

MOST_GROUPS = 64
"""Most groups of a task, however fast pictures are."""

_FIRST_GROUPS = 2
"""Groups of a task as long as no task has been timed."""

_PAUSES = (2.0, 10.0)
"""Seconds before the second and the third attempt after an error that may pass."""

_MOST_WAITING = 1000
"""Groups that may wait for another attempt: with more, the destination is out of order, and nothing new is begun."""

MOST_NOT_REACHED = 100_000
"""Groups that are still listed after a stop, for the account of all files: a second or two."""

_PASSING = frozenset((ErrorCode.IMAGE_UNWRITABLE, ErrorCode.OUT_OF_MEMORY))
"""Errors that may be gone a little later: a full disk or a lost mount; memory that other programs hold."""


@dataclass(eq=False)
class PendingGroup:
    """Group without all results."""

    group: FileGroup
    attempts: int = 0
    """Number of times that a worker has begun the group."""
    reported: set[str] = field(default_factory=set)
    """Names of the files with a final result."""
    loss: ErrorInfo | None = None
    """Error of the last lost worker of the group."""


@dataclass(eq=False)
class Task:
    """Groups for a single call of a worker."""

    pending: list[PendingGroup]
    is_alone: bool = False
    """Whether no other task may wait in the worker: the task may end the worker, with reports that are on their way."""

    @property
    def files(self) -> FileGroup:
        """Return all files of the task; finished files too, because names of results depend on all of a group."""
        return tuple(file for pending in self.pending for file in pending.group)


class Schedule:
    """Groups to do, groups in flight, and groups to try again.

    Args:
        groups: the listing; read only a little ahead of the workers.
        workers: number of workers that are expected.
    """

    def __init__(self, groups: Iterator[FileGroup], workers: int) -> None:
        self._groups, self._workers = groups, workers
        self._ahead: deque[FileGroup] = deque()
        self._waiting: list[tuple[float, int, PendingGroup]] = []  # a heap: the time of the next attempt comes first
        self._numbers = count()  # equal times in the heap are ordered by number
        self._in_flight: set[Task] = set()
        self._seconds_per_group: float | None = None
        self._is_listed = False
        self._is_stopped = False

    @property
    def is_listed(self) -> bool:
        """Return whether the listing has ended."""
        return self._is_listed

    @property
    def is_done(self) -> bool:
        """Return whether nothing is in flight and nothing will be begun."""
        return not self._in_flight and (self._is_stopped or not (self._waiting or self._refilled()))

    def stop(self) -> None:
        """Begin nothing more."""
        self._is_stopped = True

    def next_task(self, now: float, is_idle: bool = True) -> Task | None:
        """Return a task for a worker; None where nothing may be begun.

        Args:
            now: time in seconds.
            is_idle: whether the worker has no other task.
        """
        if self._is_stopped:
            return None
        is_alone = bool(self._waiting) and self._waiting[0][0] <= now
        if is_alone and not is_idle:
            return None
        if is_alone:
            # Where a picture ends its workers, no other picture is lost with the picture again.
            pending = [heapq.heappop(self._waiting)[2]]
        elif len(self._waiting) < _MOST_WAITING:
            self._refilled()
            pending = [PendingGroup(self._ahead.popleft()) for _ in range(self._size())]
        else:
            pending = []
        if not pending:
            return None
        for each in pending:
            each.attempts += 1
        task = Task(pending, is_alone)
        self._in_flight.add(task)
        return task

    def _refilled(self) -> bool:
        """Read ahead in the listing; return whether groups are ahead."""
        while not self._is_listed and len(self._ahead) < 2 * self._workers * self._wanted():
            group = next(self._groups, None)
            if group is None:
                self._is_listed = True
            else:
                self._ahead.append(group)
        return bool(self._ahead)

    def _wanted(self) -> int:
        """Return the number of groups that fill `TASK_SECONDS`."""
        if self._seconds_per_group is None:
            return _FIRST_GROUPS
        return max(1, min(MOST_GROUPS, round(TASK_SECONDS / max(self._seconds_per_group, 1e-3))))

    def _size(self) -> int:
        """Return the number of groups for the next task: fewer near the end, so that all workers end together."""
        if not self._is_listed:
            return min(self._wanted(), len(self._ahead))
        return min(self._wanted(), max(1, len(self._ahead) // (2 * self._workers)), len(self._ahead))

    def finished(self, task: Task, results: Iterable[FileResult], seconds: float, now: float) -> list[FileResult]:
        """Take the results of a task, and return the final results; the other pictures are tried again later.

        Args:
            task: a task of `next_task`.
            results: results of the worker, in any order.
            seconds: time of the work.
            now: time in seconds.
        """
        self._in_flight.remove(task)
        self._time(seconds / len(task.pending))
        by_name = {result.input: result for result in results}
        final = []
        for pending in task.pending:
            again = False
            for file in pending.group:
                result = by_name.get(file.name, FileResult(file.name, "not-reached"))
                if file.name in pending.reported:
                    continue
                if not self._is_final(result, pending.attempts):
                    again = True
                    continue
                pending.reported.add(file.name)
                if pending.loss and _is_elsewhere(result):
                    # A lost worker that cannot be ended still holds the claim: nobody finishes the picture.
                    result = FileResult(file.name, "failed", error=pending.loss)
                final.append(replace(result, attempts=pending.attempts))
            if again:
                self._wait(pending, now + _PAUSES[pending.attempts - 1])
        return final

    def _time(self, seconds: float) -> None:
        before = self._seconds_per_group
        self._seconds_per_group = seconds if before is None else 0.8 * before + 0.2 * seconds

    def _is_final(self, result: FileResult, attempts: int) -> bool:
        """Return whether no other attempt can lead to a better result."""
        if self._is_stopped or attempts >= MOST_ATTEMPTS:
            return True
        if result.status == "failed":
            return result.error is None or result.error.code not in _PASSING
        # In the first attempt, another run works on the picture. Later, a worker that only seemed lost may do so.
        return result.status not in {"interrupted", "not-reached"} and not (_is_elsewhere(result) and attempts > 1)

    def _wait(self, pending: PendingGroup, until: float) -> None:
        heapq.heappush(self._waiting, (until, next(self._numbers), pending))

    def give_back(self, task: Task) -> None:
        """Take a task back that no worker has begun."""
        self._in_flight.remove(task)
        for pending in task.pending:
            pending.attempts -= 1
            self._wait(pending, 0.0)

    def lost(self, task: Task, error: ErrorInfo) -> list[FileResult]:
        """Take back a task of a lost worker; return the results of pictures without another attempt.

        Args:
            task: a task of `next_task`.
            error: the error of the pictures after the last attempt.
        """
        self._in_flight.remove(task)
        final = []
        for pending in task.pending:
            pending.loss = error
            if pending.attempts < MOST_ATTEMPTS:
                self._wait(pending, 0.0)
                continue
            names = [file.name for file in pending.group if file.name not in pending.reported]
            final += [FileResult(name, "failed", error=error, attempts=pending.attempts) for name in names]
        return final

    def not_reached(self) -> Iterator[FileResult]:
        """Yield the files without a result; of files that were not listed yet, at most `MOST_NOT_REACHED` groups.

        Afterwards, `is_listed` says whether the listing has ended.
        """
        waiting = [pending for _, _, pending in sorted(self._waiting)]
        for pending in [*waiting, *(each for task in self._in_flight for each in task.pending)]:
            names = [file.name for file in pending.group if file.name not in pending.reported]
            yield from (FileResult(name, "not-reached", attempts=max(1, pending.attempts)) for name in names)
        rest = list(islice(self._groups, MOST_NOT_REACHED))
        for group in chain(self._ahead, rest):
            yield from (FileResult(file.name, "not-reached") for file in group)
        self._is_listed = self._is_listed or len(rest) < MOST_NOT_REACHED


def _is_elsewhere(result: FileResult) -> bool:
    """Return whether another process has claimed the picture."""
    return result.status == "skipped" and result.output is None and result.output_size is not None
