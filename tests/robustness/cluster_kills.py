"""Drivers and workers of a Ray cluster, killed at random moments: nothing is torn, and nothing is lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from batches import leftovers
from clusters import PATIENCE, contents, fill_folder, kill_worker, local_cluster, results_of, start, wait_for_files
from kills import KillTally

DRIVER, WORKER = "driver of a Ray cluster", "worker of a Ray cluster"

_COUNT = 40
_CLUSTER = ("--executor", "ray", "--ray-workers", "2", "--ray-cpus", "1")


def kill(victim: str, cases: int, folder: Path, seed: int = 0) -> KillTally:
    """Kill the driver or a worker of runs over a folder, each time at a random moment, and start the command again.

    Args:
        victim: `DRIVER` or `WORKER`.
        cases: Number of runs.
        folder: An empty folder.
        seed: Decides the moments.
    """
    random, tally = Random(f"{victim} {seed}"), KillTally()
    source = fill_folder(folder / "in", _COUNT)
    _finish(source, folder / "alone")
    whole = contents(folder / "alone")
    with local_cluster() as address:
        cluster = (*_CLUSTER, "--ray-address", address)
        for number in range(cases):
            output = folder / f"{number}"
            # The last results come while the workers end.
            moment, delay = max(1, random.randrange(_COUNT - 8)), random.uniform(0, 0.05)
            process = start(source, "-o", output, *cluster)
            wait_for_files(output, moment, process)
            time.sleep(delay)
            kill_worker() if victim == WORKER else process.kill()
            out, error = process.communicate(timeout=PATIENCE)
            tally.cases += 1
            tally.ends["exit 0" if process.returncode == 0 else "SIGKILL"] += 1
            found = [*_judge(contents(output), whole)]
            if victim == WORKER:
                found += _judge_driver(process.returncode, out, error, contents(output).keys() == whole.keys())
            # The rest follows on the cluster or without one.
            _finish(source, output, *(cluster if number % 2 else ()))
            if contents(output) != whole:
                found.append("after the second run, the results differ")
            if left := leftovers(output):
                found.append(f"after the second run, {left} are left")
            tally.findings += [f"case {number}, after {moment} results: {text}" for text in found]
            if not found:
                shutil.rmtree(output)
    return tally


def _judge(left: dict[str, bytes], whole: dict[str, bytes]) -> Iterator[str]:
    """Yield the results that are there and are not those of one machine."""
    for name, data in left.items():
        if whole.get(name) != data:
            yield f"{name} is torn: {len(data)} bytes, not {len(whole.get(name, b''))}"


def _judge_driver(code: int, out: str, error: str, is_complete: bool) -> Iterator[str]:
    """Yield what is wrong about a run that has lost a worker: other workers do its pictures, but for finished ones."""
    statuses = {str(each["status"]) for each in results_of(out)}
    if code or not statuses <= {"done", "skipped"} or not is_complete:
        yield f"ended with {code}, {sorted(statuses)}: {error[-300:]!r}"


def _finish(source: Path, output: Path, *cluster: str) -> None:
    """Run a command to its end."""
    process = start(source, "-o", output, *cluster)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
