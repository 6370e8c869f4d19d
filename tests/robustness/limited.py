"""Processes with limits on time and memory, and an account of how each process ended."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "dsclora_cli")


@dataclass(frozen=True)
class Limits:
    """Limits of a process; 0 stands for no limit."""

    seconds: float = 120
    """Wall-clock seconds until the process is killed."""

    silence: float = 0
    """Processor seconds without a new byte on stdout or stderr until the process counts as hanging and is killed.

    Wall-clock time would tell of the other work of the machine. A process that waits for ever exceeds `seconds`.
    """

    address_space: int = 0
    """Bytes of virtual memory (RLIMIT_AS)."""

    file_size: int = 0
    """Bytes of the largest file that the process may write (RLIMIT_FSIZE)."""

    files: int = 0
    """Number of open descriptors (RLIMIT_NOFILE)."""

    data: int = 0
    """Bytes of private memory (RLIMIT_DATA)."""

    processes: int = 0
    """Number of processes and threads of the user (RLIMIT_NPROC); only for users other than root."""

    user: int = 0
    """Number of another user to run as; 0 keeps the user."""

    def apply(self) -> None:
        """Set the limits in the child, between fork and exec."""
        for kind, most in (
            (resource.RLIMIT_AS, self.address_space),
            (resource.RLIMIT_FSIZE, self.file_size),
            (resource.RLIMIT_NOFILE, self.files),
            (resource.RLIMIT_DATA, self.data),
            (resource.RLIMIT_NPROC, self.processes),
            (resource.RLIMIT_CORE, 0),
        ):
            if most or kind == resource.RLIMIT_CORE:
                resource.setrlimit(kind, (most, most))
        if self.user:
            os.setgroups([])
            os.setgid(self.user)
            os.setuid(self.user)


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code, or minus the number of the signal."""

    stdout: str
    stderr: str

    seconds: float
    """Wall-clock seconds."""

    processor: float
    """Seconds of processor time of all threads."""

    peak: int
    """Bytes of the largest resident memory."""

    hung: bool
    """Whether the process was killed because of a limit on time or silence."""


def private_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment in which every folder of the program lies in `home`, and the Hub is a closed door."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "tmp").mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    folders = {f"DSCLORA_{name.upper()}_DIR": str(home / name) for name in ("config", "state", "cache")}
    hub = {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_TELEMETRY": "1"}
    path = os.pathsep.join((str(ROOT), *filter(None, sys.path)))
    own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": path, "OMP_NUM_THREADS": "2"}
    return {**kept, **folders, **hub, **own, **more}


def run_limited(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    limits: Limits = Limits(),
    stdin: bytes = b"",
) -> Ended:
    """Run a command in `folder` until it ends or exceeds a limit, and return how the process ended."""
    logs = Path(environment["HOME"])
    out, err, given = (logs / f".{name}" for name in ("stdout", "stderr", "stdin"))
    given.write_bytes(stdin)
    start = time.monotonic()
    with out.open("wb") as stdout, err.open("wb") as stderr, given.open("rb") as source:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=source,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=limits.apply,  # noqa: PLW1509 - the harness has no threads of its own when it forks
            start_new_session=True,
        )
        hung = threading.Event()
        watcher = threading.Thread(target=_watch, args=(process, (out, err), limits, hung))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.join()
    texts = [path.read_bytes().decode(errors="replace") for path in (out, err)]
    for path in (out, err, given):
        path.unlink()
    seconds = time.monotonic() - start
    processor = usage.ru_utime + usage.ru_stime
    return Ended(process.returncode, *texts, seconds, processor, usage.ru_maxrss * 1024, hung.is_set())


def _watch(process: subprocess.Popen[bytes], logs: Sequence[Path], limits: Limits, hung: threading.Event) -> None:
    """Kill a process that exceeds a limit on time; ends together with the process."""
    start, spent, written = time.monotonic(), 0.0, -1
    while process.returncode is None:
        size, used = sum(path.stat().st_size for path in logs), 0.0
        with suppress(psutil.Error):
            used = sum(psutil.Process(process.pid).cpu_times()[:2])
        written, spent = (size, used) if size != written else (written, spent)
        silent = limits.silence and used - spent > limits.silence
        if silent or (limits.seconds and time.monotonic() - start > limits.seconds):
            hung.set()
            os.killpg(process.pid, signal.SIGKILL)
            return
        time.sleep(0.02)
