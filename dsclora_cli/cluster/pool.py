"""Workers on a Ray cluster: start, replace and stop them, and keep everything that Ray prints off the terminal.

Ray's own actors and `ray.wait` rather than Ray Data: docs/scale.md has the measurements behind the choice.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any, Literal

from dsclora_cli import __version__
from dsclora_cli.cluster.schedule import Task
from dsclora_cli.cluster.worker import TaskReport, UpscaleWorker, WorkerFacts
from dsclora_cli.config import ClusterOptions, UpscaleOptions
from dsclora_cli.errors import DscloraError, UsageError, bug_info, is_debugging
from dsclora_cli.host import usable_cpus

_LOCAL = "local"
"""Ray's name for a new cluster on this machine."""

_DEPTH = 2
"""Tasks that a worker has at a time: one at work, and one that waits in the worker, so that no worker is idle."""

_START_SECONDS = 120.0
"""Longest wait for the first worker; a cluster that grows on demand may need minutes for a machine."""

_CONNECT_SECONDS = 5.0
_MOST_INITS = 3  # attempts at starting a cluster on a busy machine
_MOST_STARTS = 3
"""Workers, for each place, that may end one after another without a finished task: nothing can be done there."""

_REPLY_SECONDS = 60.0
"""Longest wait for the reply of a worker that was asked for its progress; a stopped process never replies."""

_CHECK_SECONDS = 1.0  # between two looks at all workers

_OBJECT_STORE = 100 << 20  # bytes; a local cluster passes only paths and results

_SAME_VERSIONS = f"install the same versions of dsclora ({__version__}), ray and Python on all machines of the cluster"


@dataclass(eq=False)
class PoolWorker:
    """Worker of the pool, from the view of the driver."""

    actor: Any
    is_ready: bool = False
    tasks: list[Task] = field(default_factory=list)
    """Tasks without a report, the oldest first; only the oldest may have been begun."""
    moved: float = 0.0
    """Time of the last known step forward in the oldest task."""
    reply: Any = None
    """Future of Ray with the progress of the worker; None where the worker was not asked."""
    asked: float = 0.0
    """Time when the worker was asked."""
    fault: str = ""
    """Why the pool has ended the worker; empty for a worker that lives, or that ended by itself."""


@dataclass(frozen=True)
class PoolEvent:
    """Something that happened to a task."""

    kind: Literal["finished", "lost", "never-begun"]
    task: Task
    report: TaskReport | None = None
    """For a finished task."""
    reason: str = ""
    """For a lost task: how the worker ended."""
    bug: BaseException | None = None
    """Exception that nobody foresaw and that ended a task, not the worker."""


class WorkerPool:
    """Workers of a run. All methods are called by the driver's thread.

    Args:
        cluster: where and how many.
        options: all options of the run, with absolute paths.
        state: folder of records, for `UpscaleWorker`.

    Raises:
        UsageError: ray is not installed, there is no cluster at the address, or versions differ.
    """

    def __init__(self, cluster: ClusterOptions, options: UpscaleOptions, state: str | None) -> None:
        self._cluster, self._arguments = cluster, (options, state)
        self._refs: dict[Any, tuple[PoolWorker, Task | None]] = {}
        self._workers: list[PoolWorker] = []
        self.events: deque[PoolEvent] = deque()
        """What happened, in order; emptied by the caller."""
        self._began = monotonic()
        self._next_check = self._began
        self._starts = 0  # workers started since the last finished task
        self._opened = ExitStack()
        try:
            self._ray = _connect(cluster, self._opened)
        except BaseException:  # Ctrl-C as well: to start a cluster takes seconds
            self._opened.close()
            raise
        remote = self._ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, concurrency_groups={"control": 1})
        self._actor_class = remote(_with_control_group(self._ray))
        self.size = cluster.workers or _room(self._ray.nodes(), cluster)
        """Number of workers; some may still be waiting for a machine."""
        for _ in range(self.size):
            self._start()

    def free(self) -> Iterator[PoolWorker]:
        """Yield workers that can take another task; idle workers come first."""
        for depth in range(_DEPTH):
            for worker in self._workers:
                is_shared = not any(task.is_alone for task in worker.tasks)
                if worker.is_ready and len(worker.tasks) <= depth and is_shared:
                    yield worker

    def submit(self, worker: PoolWorker, task: Task) -> None:
        """Hand a task to a worker."""
        if not worker.tasks:
            worker.moved = monotonic()
        worker.tasks.append(task)
        self._refs[worker.actor.upscale.remote(task.files)] = worker, task

    def wait(self, timeout: float) -> None:
        """Wait at most `timeout` seconds, and add new events to `events`.

        Raises:
            UsageError: no worker can be started.
            DscloraError: workers end as soon as they start.
        """
        self._end_hung()
        if not self._refs:
            sleep(timeout)
            return
        refs = list(self._refs)
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=timeout)
        if not ready:
            self._check_started()
            return
        # All that are ready: with a thousand workers, one by one would be too slow.
        ready, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        for ref in ready:
            if ref in self._refs:  # else of a worker that was lost a moment ago
                self._receive(ref)

    def stop(self, timeout: float, is_given_up: Callable[[], bool] = lambda: False) -> None:
        """Let all workers finish the pictures behind the network, and add the events until then to `events`.

        The wait ends after `timeout` seconds, or when `is_given_up`, asked several times a second, returns True.
        """
        for worker in self._workers:
            worker.actor.stop.remote()
        until = monotonic() + timeout
        while any(worker.tasks for worker in self._workers) and monotonic() < until and not is_given_up():
            self.wait(0.1)

    def close(self) -> None:
        """End the workers, and a cluster of the run's own."""
        for worker in self._workers:
            with suppress(Exception):
                self._ray.kill(worker.actor)
        self._opened.close()

    def _start(self) -> None:
        worker = PoolWorker(self._actor_class.remote(*self._arguments))
        self._starts += 1
        self._workers.append(worker)
        self._refs[worker.actor.describe.remote()] = worker, None

    def _receive(self, ref: Any) -> None:  # noqa: ANN401 - the class of Ray has no public name
        worker, task = self._refs[ref]
        try:
            value = self._ray.get(ref)
        except self._ray.exceptions.RayActorError as error:
            self._replace(worker, task, error)
        except Exception as error:
            # A task that raised has a bug; the process of the worker lives on.
            if task is None:
                raise UsageError(
                    f"a worker of the cluster cannot start: {_last_line(error)}", _SAME_VERSIONS
                ) from error
            cause = getattr(error, "cause", None) or error  # Ray's own exception names processes, in colors
            self._end(ref, PoolEvent("lost", task, reason=bug_info(cause).message, bug=error))
        else:
            if task is None:
                del self._refs[ref]
                self._accept(worker, value)
            else:
                self._starts = 0
                self._end(ref, PoolEvent("finished", task, value))

    def _end(self, ref: Any, event: PoolEvent) -> None:  # noqa: ANN401
        # The event first: an interrupt in between must not lose the event.
        self.events.append(event)
        worker, _ = self._refs.pop(ref)
        worker.tasks.remove(event.task)
        worker.moved = monotonic()  # the next task begins

    def _accept(self, worker: PoolWorker, facts: WorkerFacts) -> None:
        if facts.version != __version__:
            raise UsageError(
                f"{facts.host} has dsclora {facts.version}, and this machine {__version__}", _SAME_VERSIONS
            )
        worker.is_ready = True

    def _replace(self, worker: PoolWorker, task: Task | None, error: Exception) -> None:
        """Start a worker in the place of a lost one, and add the events of all tasks of the lost worker."""
        reason = worker.fault or _reason_of_end(error)
        if task is None and "creation task" in str(error):
            raise UsageError(f"a worker of the cluster cannot start: {reason}", _SAME_VERSIONS) from error
        if self._starts > _MOST_STARTS * self.size:
            hint = "give each worker more memory or more --ray-cpus, or read the logs of Ray"
            raise DscloraError(f"workers of the cluster end before they finish anything: {reason}", hint) from error
        self._workers.remove(worker)
        is_begun = True
        # In the order of submission. A report may have come just before the end: the next task is then the lost one,
        # and the tasks behind a lost one still waited in the worker.
        for ref in [ref for ref, (owner, _) in self._refs.items() if owner is worker]:
            _, each = self._refs.pop(ref)
            report = self._report_of(ref)
            if each is None:
                continue
            if report is not None:
                self.events.append(PoolEvent("finished", each, report))
            else:
                self.events.append(PoolEvent("lost" if is_begun else "never-begun", each, reason=reason))
                is_begun = False
        self._start()

    def _end_hung(self) -> None:
        """End workers without a step forward for too long; `wait` then finds the tasks of the workers lost."""
        now = monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        for worker in self._workers:
            if worker.tasks and not worker.fault and now - worker.moved > self._cluster.timeout:
                self._check_progress(worker, now)

    def _check_progress(self, worker: PoolWorker, now: float) -> None:
        """Ask a worker for the progress, or read the reply. The driver itself knows only when tasks are finished."""
        if worker.reply is None:
            worker.reply, worker.asked = worker.actor.idle_seconds.remote(), now
            return
        ready, _ = self._ray.wait([worker.reply], timeout=0)
        if not ready and now - worker.asked <= _REPLY_SECONDS:
            return
        idle = now - worker.moved
        if ready:
            try:
                idle = self._ray.get(worker.reply)
            except self._ray.exceptions.RayError:
                return  # the worker has ended meanwhile, and `_receive` handles the end
        worker.reply = None
        if idle <= self._cluster.timeout:
            worker.moved = now - idle
            return
        # A worker that hangs in a call of the system may outlive the signal; the cluster drops the worker anyway.
        worker.fault = f"no progress within {self._cluster.timeout:g} seconds"
        self._ray.kill(worker.actor)

    def _report_of(self, ref: Any) -> TaskReport | None:  # noqa: ANN401
        """Return the report of a worker that has ended; None where there is no report."""
        with suppress(Exception):
            report: TaskReport = self._ray.get(ref, timeout=_CONNECT_SECONDS)
            return report
        return None

    def _check_started(self) -> None:
        """Raise UsageError where no worker has started for too long."""
        if any(worker.is_ready for worker in self._workers) or monotonic() - self._began < _START_SECONDS:
            return
        resources = self._ray.cluster_resources()
        has = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
        wants = f"{self._cluster.cpus} CPUs and {self._cluster.gpus:g} GPUs"
        raise UsageError(
            f"no worker with {wants} has started within {_START_SECONDS:g} seconds; the cluster has {has}",
            "choose --ray-cpus and --ray-gpus that a machine has, or wait until the cluster is free",
        )


def _connect(cluster: ClusterOptions, opened: ExitStack) -> Any:  # noqa: ANN401 - a module
    """Connect to a cluster, or start a cluster on this machine, and return the module of Ray.

    Args:
        cluster: Where.
        opened: Ends the connection and the cluster, unless the caller had connected before.

    Raises:
        UsageError: Ray is not installed, there is no cluster, or versions differ.
    """
    address = cluster.address or os.environ.get("RAY_ADDRESS") or _LOCAL
    if address != _LOCAL:
        _check_address(address)
    ray, quiet = _import_ray(is_alone=address == _LOCAL), not is_debugging()
    if ray.is_initialized():
        return ray
    settings: dict[str, Any] = {"log_to_driver": not quiet, "logging_level": logging.ERROR if quiet else logging.INFO}
    if address == _LOCAL:
        settings |= _local_settings(cluster)
        # Sessions of Ray stay in the folder of temporary files otherwise, with the names of pictures in their logs.
        opened.callback(shutil.rmtree, settings["_temp_dir"], ignore_errors=True)
    try:
        with _sigterm_kept(), _stderr_kept(quiet):
            _init(ray, address, settings)
    except Exception as error:
        raise _unconnected(address, error) from error
    opened.callback(_disconnect, ray)
    if quiet:
        _silence(ray)
    return ray


def _init(ray: Any, address: str, settings: dict[str, Any]) -> None:  # noqa: ANN401 - a module
    """Connect, or start a cluster; try again where a busy machine needs longer than the 30 seconds that Ray waits."""
    for _ in range(_MOST_INITS - 1):
        try:
            ray.init(address=address, **settings)
        except Exception as error:
            if address != _LOCAL or "timed out" not in str(error):
                raise
            ray.shutdown()
        else:
            return
    ray.init(address=address, **settings)


def _unconnected(address: str, error: Exception) -> UsageError:
    if address == _LOCAL:
        hint = "a busy machine may be too slow: try again, or start a cluster with `ray start` and add --ray-address"
        return UsageError(f"no Ray cluster could be started on this machine: {_last_line(error)}", hint)
    hint = _SAME_VERSIONS if "ersion mismatch" in str(error) else "check `ray status` there, and RAY_AUTH_TOKEN if set"
    return UsageError(f"no connection to the Ray cluster at {address}: {_last_line(error)}", hint)


def _import_ray(is_alone: bool) -> Any:  # noqa: ANN401 - a module
    # Ray reads the variables when imported. No usage statistics: the program promises no telemetry.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A worker without a GPU sees no GPU, so that --device auto takes the CPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
    if is_alone:
        # Ray gives workers the niceness 15: on a busy machine of one's own, they would hardly get on.
        os.environ.setdefault("RAY_worker_niceness", "0")
    if is_alone and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # The ports of Ray listen on all addresses of the machine. Without a key, everybody could run code here.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise UsageError("--executor ray needs Ray", 'pip install "dsclora[ray]"') from error
    return ray


def _local_settings(cluster: ClusterOptions) -> dict[str, Any]:
    """Return the settings of a cluster on this machine, without a dashboard."""
    return {
        "num_cpus": max((cluster.workers or 1) * cluster.cpus, usable_cpus()),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE,
        # Names of sockets have at most 107 bytes, and a folder of temporary files may have a long name.
        "_temp_dir": tempfile.mkdtemp(prefix="dsclora-ray-", dir="/tmp" if os.name == "posix" else None),  # noqa: S108
    }


def _disconnect(ray: Any) -> None:  # noqa: ANN401 - a module
    with _sigterm_kept():
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise UsageError for an address of another kind, and where nobody listens: Ray itself would wait for minutes."""
    hint = "give auto or HOST:PORT, and run dsclora on a machine of the cluster"
    if "://" in address:
        raise UsageError(f"--ray-address {address} is no address of a cluster's head", hint)
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise UsageError(f"--ray-address {address} is neither auto nor HOST:PORT", hint)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"no Ray cluster listens at {address}: {error}", hint) from error


def _silence(ray: Any) -> None:  # noqa: ANN401 - a module
    """Drop Ray's messages about lost workers: the driver reports pictures that are lost for good."""
    # No setting exists. Where the function has another name, messages are printed, and nothing else is wrong.
    if hasattr(ray._private.worker, "print_to_stdstream"):
        ray._private.worker.print_to_stdstream = lambda *_, **__: None
    logging.getLogger("ray").setLevel(logging.CRITICAL)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keep the handler of SIGTERM: Ray's own would end the program without a summary.

    A handler that is not from Python cannot be put back, and `getsignal` returns None for such a handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _stderr_kept(quiet: bool) -> Iterator[None]:
    """Drop messages of Ray's libraries on stderr while connecting: a sentence of an error says enough."""
    try:
        before = os.dup(2) if quiet else None
    except OSError:  # standard error is closed
        before = None
    if before is None:
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)


def _with_control_group(ray: Any) -> type[UpscaleWorker]:  # noqa: ANN401 - a module
    """Return the worker with a thread of Ray's for `stop` and `idle_seconds`, which do not wait for the task."""

    class Worker(UpscaleWorker):
        """Worker with a second thread."""

        @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
        def stop(self) -> None:
            """End the task."""
            super().stop()

        @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
        def idle_seconds(self) -> float:
            """Return the time since the last step forward."""
            return super().idle_seconds()

    return Worker


def _room(nodes: list[dict[str, Any]], cluster: ClusterOptions) -> int:
    """Return the number of workers that the machines of the cluster have room for, at least one."""

    def room_of(resources: dict[str, float]) -> int:
        rooms = [resources.get("CPU", 0) // cluster.cpus]
        if cluster.gpus:
            rooms.append(resources.get("GPU", 0) // cluster.gpus)
        return int(min(rooms))

    return max(1, sum(room_of(node["Resources"]) for node in nodes if node["Alive"]))


def _last_line(error: BaseException) -> str:
    """Return the last line with text: tracebacks of Ray end with the error of the worker."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1]


def _reason_of_end(error: Exception) -> str:
    """Return how a worker ended, in a few words."""
    text = str(error)
    if "OutOfMemory" in type(error).__name__ or "memory monitor" in text or "running low on memory" in text:
        return "the machine ran out of memory"
    if "ModuleNotFoundError" in text or "The actor died because of an error raised in its creation task" in text:
        return _last_line(error)
    return "the process was killed, or the machine has gone"
