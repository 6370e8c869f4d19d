"""A Ray cluster of this machine for tests, pictures to upscale there, and ways to end its workers."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from batches import save_photo

from dsclora_cli.inference.native.library import why_unavailable

HEAD = """
import sys
import ray
for attempts_left in reversed(range(10)):
    try:
        context = ray.init(
            address="local", num_cpus=4, include_dashboard=False, object_store_memory=100 << 20,
            _temp_dir=sys.argv[1], logging_level="ERROR",
        )
        break
    except Exception:  # Ray gives itself 30 seconds, which a busy machine may need
        ray.shutdown()
        if not attempts_left:
            raise
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""

ENGINE = "torch" if why_unavailable() else "native"
"""One engine for all runs of a test, so that results are equal byte for byte."""

PATIENCE = 400
"""Seconds that a test waits at most for anything: a busy machine takes half a minute to start a cluster."""


def has_ray() -> bool:
    """Return whether Ray is installed. Nothing is imported: Ray reads the environment when imported."""
    return find_spec("ray") is not None


def require_ray() -> None:
    """Skip a test without Ray."""
    if not has_ray():
        pytest.skip("ray is not installed")


# A process of pytest may meet several clusters, and Ray reads the token of a process once.
_TOKEN = secrets.token_hex(32)


@contextmanager
def authenticated() -> Iterator[None]:
    """A key of the test's own, so that no other user of the machine reaches the cluster and no file is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_worker_niceness", "0")  # 15 otherwise, and other tests would go first
        patch.setenv("RAY_AUTH_TOKEN", _TOKEN)
        yield


@contextmanager
def local_cluster() -> Iterator[str]:
    """Start a cluster on this machine, and yield the address."""
    # Names of sockets have at most 107 bytes, so not a folder of pytest.
    scrap = tempfile.TemporaryDirectory(prefix="dsclora-test-", dir="/tmp", ignore_cleanup_errors=True)
    with scrap as folder, authenticated(), head(Path(folder)) as (address, _):
        yield address


@contextmanager
def head(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a cluster, and the process that holds the cluster."""
    command = [sys.executable, "-c", HEAD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "no cluster has started"
        yield address, process
        assert process.stdin is not None
        process.stdin.close()
        process.wait(PATIENCE)


def fill_folder(folder: Path, count: int) -> Path:
    """A folder with so many small pictures."""
    for seed in range(count):
        save_photo(folder / f"{seed:03}.png", seed=seed)
    return folder


def start(*arguments: object) -> subprocess.Popen[str]:
    """A command line with JSON output, in a process of its own."""
    command = [sys.executable, "-m", "dsclora_cli", "upscale", *map(str, arguments), "--json"]
    command += ["-m", "dsclora-x4", "--engine", ENGINE, "--threads", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the results in a folder; no hidden files, which may be half."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def results_of(out: str) -> list[dict[str, object]]:
    """The results in the output of a command."""
    return [json.loads(line) for line in out.splitlines()]


def wait_for_files(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a folder holds so many results of a process."""
    until = time.monotonic() + PATIENCE
    while not folder.is_dir() or sum(not path.name.startswith(".") for path in folder.iterdir()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"{folder} does not fill"
        time.sleep(0.02)


def kill_worker(process: subprocess.Popen[str] | None = None) -> None:
    """Kill a worker of the cluster that a process has started; without a process, of a cluster of this process."""
    workers = [
        child
        for child in psutil.Process(process and process.pid).children(recursive=True)
        if (child.cmdline() or [""])[0].startswith("ray::Worker")
    ]
    assert workers, "no worker is at work"
    os.kill(workers[0].pid, signal.SIGKILL)
