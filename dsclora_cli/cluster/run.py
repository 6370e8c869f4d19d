"""Upscale on a cluster: `upscale_on_cluster` lists files, hands tasks to workers, and yields results.

The driver, the process of the caller, never opens a picture: rows are paths, and an error of a picture is a result.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from dsclora_cli.cluster.listing import Listing
from dsclora_cli.cluster.schedule import Schedule, Task
from dsclora_cli.config import ClusterOptions, UpscaleOptions
from dsclora_cli.errors import ErrorCode, ErrorInfo, UsageError
from dsclora_cli.paths import is_folder, is_taken, state_dir
from dsclora_cli.storage.places import RemotePlace, absolute_place, parse_place
from dsclora_cli.upscaling.bounded_queue import POLL_SECONDS
from dsclora_cli.upscaling.output_names import STDOUT
from dsclora_cli.upscaling.types import (
    RUN_ERRORS,
    Argument,
    FileResult,
    FoundInputs,
    InputFile,
    UpscaleCallbacks,
    check_stop,
)

if TYPE_CHECKING:
    from dsclora_cli.cluster.pool import PoolEvent, WorkerPool
    from dsclora_cli.cluster.worker import TaskReport

_STOP_SECONDS = 120.0
"""Longest wait for pictures that wait for the encoder, after Ctrl-C."""


def upscale_on_cluster(
    inputs: Argument | Iterable[Argument],
    options: UpscaleOptions,
    cluster: ClusterOptions,
    callbacks: UpscaleCallbacks | None = None,
) -> Generator[FileResult, None, None]:
    """Upscale files, folders, globs and lists on a Ray cluster; docs/scale.md describes the differences to one machine.

    Args:
        inputs: Paths, globs and `@list.txt`.
        options: All options of `dsclora upscale`. `options.batch.output` is a folder that all machines can write to.
        cluster: Where workers start, and how many.
        callbacks: Called in the iterating thread.

    Yields:
        One result per listed file, when the task of the file is finished. On KeyboardInterrupt, the pictures that wait
        for an encoder are finished, and a second one gives these pictures up.

    Raises:
        UsageError: Contradicting options, no cluster, or a cluster with another version.
        WeightsError: A worker cannot read or download the weights.
        DscloraError: All workers end at once.
    """
    _check(options)
    listing = Listing(inputs, options.batch)
    # Imported late: wrong options should not wait for the import of the engines.
    from dsclora_cli.cluster.pool import WorkerPool

    pool = WorkerPool(cluster, _for_workers(options, cluster), _shared_state(options, cluster))
    try:
        yield from ClusterRun(listing, pool, options, callbacks or UpscaleCallbacks()).results()
    finally:
        pool.close()


class ClusterRun:
    """One run: the listing, the schedule, and the pool of workers. Used once, in the thread of the caller."""

    def __init__(
        self, listing: Listing, pool: WorkerPool, options: UpscaleOptions, callbacks: UpscaleCallbacks
    ) -> None:
        self._listing, self._pool, self._options, self._callbacks = listing, pool, options, callbacks
        self._schedule = Schedule(listing.groups(), pool.size)
        self._reasons: set[str] = set()
        """Reasons for files that are left out, as far as the user has read them."""
        self._left_out = 0
        self._ready: deque[FileResult] = deque()
        """Final results that are still to be yielded; not in a local list, which an interrupt would lose."""

    def results(self) -> Generator[FileResult, None, None]:
        """Run, and yield a result for every file that was listed, however the run ends."""
        try:
            yield from self._run()
        except GeneratorExit:
            self._pool.stop(_STOP_SECONDS)
            raise
        except BaseException:
            yield from self._stopped()
            raise
        yield from self._not_reached()

    def _run(self) -> Iterator[FileResult]:
        while not self._schedule.is_done:
            self._submit()
            self._report_listing()
            self._pool.wait(POLL_SECONDS)
            while self._pool.events:
                self._take(self._pool.events.popleft())
                yield from self._pop_ready()
            check_stop(self._callbacks)
        self._report_listing()
        yield from self._pop_ready()

    def _pop_ready(self) -> Iterator[FileResult]:
        while self._ready:
            yield self._ready.popleft()

    def _submit(self) -> None:
        """Hand tasks to all free workers."""
        for worker in self._pool.free():
            task = self._schedule.next_task(monotonic(), is_idle=not worker.tasks)
            if task is None:
                break
            self._pool.submit(worker, task)

    def _report_listing(self) -> None:
        """Report how far the listing is, and take the results of folders that were not listed."""
        if self._listing.left_out:
            self._report_left_out(FoundInputs((), many=True, left_out=tuple(self._listing.left_out)))
            for each in self._listing.left_out:
                self._ready.append(FileResult(each.name, "left-out", warnings=(each.reason,)))
            self._listing.left_out.clear()
        self._ready += self._listing.failed
        self._listing.failed.clear()
        self._callbacks.on_listed(self._listing.count - self._left_out, self._schedule.is_listed)

    def _report_left_out(self, found: FoundInputs) -> None:
        """Call `on_inputs` with files that are left out; the user reads each reason once."""
        shown = tuple(replace(each, expected=each.expected or each.reason in self._reasons) for each in found.left_out)
        self._reasons.update(each.reason for each in shown)
        self._callbacks.on_inputs(replace(found, inputs=(), left_out=shown))

    def _take(self, event: PoolEvent) -> None:
        """Give an event to the schedule, and keep the final results. Raises the error of the whole run."""
        report = event.report
        if event.kind == "never-begun":
            self._schedule.give_back(event.task)
        elif report is None:
            if isinstance(event.bug, Exception):
                file = event.task.files[0]
                self._callbacks.on_bug(InputFile(Path(file.path), file.name), event.bug)
            self._ready += self._schedule.lost(event.task, _lost_error(event))
        else:
            self._take_report(event.task, report)
        if self._options.batch.fail_fast and any(result.status == "failed" for result in self._ready):
            self._schedule.stop()

    def _take_report(self, task: Task, report: TaskReport) -> None:
        if report.left_out:
            self._left_out += len(report.left_out)
            self._report_left_out(FoundInputs((), many=True, left_out=report.left_out))
        for note in report.notes:
            self._callbacks.note_once(note)
        if report.error is not None:
            self._schedule.stop()
        self._ready += self._schedule.finished(task, self._spelled(task, report), report.seconds, monotonic())
        if report.error is not None:
            raise report.error

    def _spelled(self, task: Task, report: TaskReport) -> Iterator[FileResult]:
        """Yield the results with the user's names of files and folders; workers have absolute paths."""
        output = parse_place(self._options.batch.output or ".")
        before, after = f"{_folder_of(self._options)}{os.sep}", f"{str(output).rstrip('/')}{os.sep}"
        paths = {file.name: file.path for file in task.files}

        def by_user(text: str, name: str) -> str:
            return text.replace(paths.get(name) or name, name).replace(before, after)

        for each in report.results:
            error = each.error and replace(each.error, message=by_user(each.error.message, each.input))
            warnings = tuple(by_user(warning, each.input) for warning in each.warnings)
            written = each.output and by_user(each.output, each.input)
            yield replace(each, output=written, warnings=warnings, error=error)

    def _stopped(self) -> Iterator[FileResult]:
        """Stop the workers, and yield the results until then, and all other listed files."""
        self._schedule.stop()
        # One more request gives up the pictures that wait for an encoder.
        with suppress(KeyboardInterrupt):
            self._pool.stop(_STOP_SECONDS, lambda: self._callbacks.stop_requests() > 1)
        while self._pool.events:
            with suppress(*RUN_ERRORS):  # the error of the first worker is the error of the run
                self._take(self._pool.events.popleft())
        yield from self._pop_ready()
        yield from self._not_reached()

    def _not_reached(self) -> Iterator[FileResult]:
        """Yield the files without an attempt: behind the first failure with `fail_fast`, or behind an interrupt."""
        yield from self._schedule.not_reached()
        if not self._schedule.is_listed:
            self._callbacks.note_once("the listing had not ended: more files than these were not started")


def _check(options: UpscaleOptions) -> None:
    """Raise UsageError for options that only one machine can follow."""
    output = options.batch.output
    place = parse_place(output) if output and output != STDOUT else None
    is_file = isinstance(place, Path) and is_taken(place) and not is_folder(place)
    if place is None or is_file or (isinstance(place, RemotePlace) and place.scheme == "memory"):
        raise UsageError("--executor ray writes into a folder", "name a folder with -o that all machines can write to")
    if options.batch.shard:
        raise UsageError("--shard and --executor ray cannot be combined", "leave one of them out")
    if "," in options.engine.device or options.engine.device == "all":
        hint = "leave --device out, and give each worker its GPUs with --ray-gpus"
        raise UsageError("with --executor ray, a worker has one device", hint)


def _for_workers(options: UpscaleOptions, cluster: ClusterOptions) -> UpscaleOptions:
    """Return the options for a process in another folder: absolute paths, and threads for all CPUs."""
    files: dict[str, Any] = {
        each.name: Path(absolute_place(value))
        for each in fields(options.model)
        if isinstance(value := getattr(options.model, each.name), Path)
    }
    engine = replace(options.engine, threads=options.engine.threads or cluster.cpus)
    # The slash: a name with a suffix would be a file.
    output = f"{_folder_of(options)}/"
    return replace(
        options, model=replace(options.model, **files), engine=engine, batch=replace(options.batch, output=output)
    )


def _shared_state(options: UpscaleOptions, cluster: ClusterOptions) -> str | None:
    """Return the folder of records for all machines.

    The user's own folder, and on several machines a folder next to the results, unless DSCLORA_STATE_DIR is set.
    None for results at a URL: records then lie next to the results anyway.
    """
    output = parse_place(options.batch.output or ".")
    is_alone = not (cluster.address or os.environ.get("RAY_ADDRESS"))
    if is_alone or os.environ.get("DSCLORA_STATE_DIR"):
        return absolute_place(state_dir())
    return None if isinstance(output, RemotePlace) else f"{_folder_of(options)}{os.sep}.dsclora"


def _folder_of(options: UpscaleOptions) -> str:
    """Return the folder of results for processes in other folders, without a slash at the end."""
    return absolute_place(parse_place(options.batch.output or ".")).rstrip("/")


def _lost_error(event: PoolEvent) -> ErrorInfo:
    if event.bug is not None:
        return ErrorInfo(ErrorCode.BUG, event.reason, "run again with DSCLORA_DEBUG=1 and report what it shows")
    is_memory = "memory" in event.reason
    hint = "give the workers more memory: fewer workers on a machine with larger --ray-cpus, or --max-memory"
    if "progress" in event.reason:
        hint = "check the picture and the file systems of the machines, or raise --ray-timeout"
    code = ErrorCode.OUT_OF_MEMORY if is_memory else ErrorCode.WORKER_LOST
    return ErrorInfo(code, f"every worker that began the picture was lost: {event.reason}", hint)
