"""Measure `--executor ray` on this machine, and simulate a thousand workers over ten million pictures.

    python benchmarks/cluster.py run [--pictures 120] [--workers 1 2 4] [--rounds 1]
    python benchmarks/cluster.py simulate [--rows 10000000] [--workers 1000] [--times run.json]

`run` upscales a folder of 256x256 textures with each number of workers, and with as many commands at once without Ray,
each with its `--shard`: they show what the cores themselves give. It prints pictures a second from the first result to
the last one and the efficiency against one of the same kind, and saves the service times of all pictures.
`simulate` gives the schedule and the listing of the real driver a simulated cluster with these service times, workers
that are lost, and a clock; printed are the driver's memory, the driver's own time for a task, and the tail: how long
workers are idle at the end.
"""

from __future__ import annotations

import heapq
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from folder import fill
from results import parser_of, save_results

from dsclora_cli.cluster.listing import FileGroup, _keyed, _sorted_groups
from dsclora_cli.cluster.schedule import Schedule, Task
from dsclora_cli.errors import ErrorCode, ErrorInfo
from dsclora_cli.upscaling.inputs import ListedInput
from dsclora_cli.upscaling.types import FileResult

_DEPTH = 2  # tasks of a worker, as in `cluster/pool.py`


def measure(folder: Path, options: list[str]) -> tuple[float, float, list[float]]:
    """Return pictures a second from first to last result, seconds of the whole command, and service times.

    Args:
        folder: The pictures.
        options: What the command is given beside the folder.
    """
    command = [sys.executable, "-m", "dsclora_cli", "upscale", str(folder), "-m", "dsclora-x4", "--json", "--overwrite"]
    command += ["-o", str(folder.parent / "out"), "--device", "cpu", "--threads", "1", *options]
    started, times, services = time.perf_counter(), [], []
    with (
        tempfile.TemporaryFile("w+") as messages,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True) as process,
    ):
        for line in process.stdout or ():
            times.append(time.perf_counter())
            services.append(sum(json.loads(line).get("seconds", {}).values()))
        if process.wait():  # a picture that failed, or no cluster: no number means anything then
            messages.seek(0)
            raise SystemExit(f"{' '.join(command)} returned {process.returncode}:\n{messages.read()}")
    # Results come task by task: those of the first moment were begun before the clock.
    first = sum(each - times[0] < 0.05 for each in times)
    if first == len(times):
        raise SystemExit("all results came at once: take more --pictures")
    rate = (len(times) - first) / (times[-1] - times[0])
    return rate, time.perf_counter() - started, services


def with_ray(folder: Path, workers: int) -> tuple[float, float, list[float]]:
    """Measure one command with workers of one CPU on a Ray cluster of this machine."""
    return measure(folder, ["--executor", "ray", "--ray-workers", str(workers), "--ray-cpus", "1"])


def with_shards(folder: Path, commands: int) -> tuple[float, float, list[float]]:
    """Measure commands that run at the same time, each with its part of the pictures."""
    with ThreadPoolExecutor(commands) as threads:
        shards = [["--shard", f"{number + 1}/{commands}"] for number in range(commands)]
        rates, seconds, services = zip(*threads.map(partial(measure, folder), shards), strict=True)
    return sum(rates), max(seconds), [second for each in services for second in each]


def run(pictures: int, workers: list[int], rounds: int) -> dict[str, object]:
    """Print and return throughput and efficiency."""
    report: dict[str, object] = {"cores": os.cpu_count(), "pictures": pictures}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        folder.mkdir()
        fill(folder, pictures)
        for kind, way in {"command": with_shards, "worker": with_ray}.items():
            rates: dict[int, float] = {}
            services: list[float] = []
            for count in sorted({1, *workers}):
                found = [way(folder, count) for _ in range(rounds)]
                rates[count], seconds, services = max(found, key=lambda each: each[0])
                label = f"{count} {kind}{'s' * (count > 1)}"
                shown = f"{rates[count]:6.2f} pictures/s, efficiency {rates[count] / rates[1] / count:.0%}"
                print(f"{label:>12}: {shown}; {seconds:.1f} s in all", flush=True)
            report |= {f"pictures_per_second_{kind}": rates, "service_seconds": services}
    return report


class SimulatedCluster:
    """Workers with service times of a record, a clock, and a heap of the tasks that end next.

    Args:
        times: Seconds of pictures, drawn at random.
        workers: Number of workers.
        lost: Share of tasks whose worker is lost.
    """

    def __init__(self, times: list[float], workers: int, lost: float) -> None:
        self._times, self._lost = times, lost
        self._random = random.Random(0)
        self._ends: list[tuple[float, int, int, Task, bool]] = []
        self._number = 0
        self.free_at = [0.0] * workers
        """When each worker has nothing more to do."""
        self.open = [0] * workers
        """Tasks of each worker."""

    def submit(self, worker: int, task: Task, now: float) -> None:
        """Append a task to the tasks of a worker."""
        seconds = sum(self._random.choice(self._times) for _ in task.pending)
        is_lost = self._random.random() < self._lost
        begin = max(now, self.free_at[worker])
        # A lost worker is noticed in the middle of the task, and another one starts in ten seconds.
        end = begin + (seconds / 2 + 10 if is_lost else seconds)
        self.free_at[worker] = end
        self.open[worker] += 1
        self._number += 1
        heapq.heappush(self._ends, (end, self._number, worker, task, is_lost))

    def next_end(self) -> tuple[float, int, Task, bool]:
        """Return time, worker, task and whether the worker was lost, for the task that ends next."""
        end, _, worker, task, is_lost = heapq.heappop(self._ends)
        self.open[worker] -= 1
        return end, worker, task, is_lost


def listed(rows: int, count: list[int]) -> Iterator[FileGroup]:
    """Yield the groups of a single folder with so many pictures, sorted as the driver sorts a folder."""
    numbers = (number * 7_368_787 % rows for number in range(rows))  # no order, as a file system lists
    names = (f"photo-{number:08}.jpg" for number in numbers)
    files = (ListedInput(f"/archive/{name}", f"archive/{name}", ".", False) for name in names)
    for group in _sorted_groups(map(partial(_keyed, 0), files)):
        count[0] += len(group)
        yield group


def simulate(rows: int, workers: int, times: list[float], lost: float) -> dict[str, object]:
    """Print and return memory, time of the driver, and tail."""
    error = ErrorInfo(ErrorCode.WORKER_LOST, "lost")
    cluster, count, now = SimulatedCluster(times, workers, lost), [0], 0.0
    schedule = Schedule(listed(rows, count), workers)
    started, tasks, finished, losses, largest = time.process_time(), 0, 0, 0, 0
    idle = list(range(workers)) * _DEPTH
    while not schedule.is_done:
        while idle and (task := schedule.next_task(now)) is not None:
            cluster.submit(idle.pop(), task, now)
            tasks += 1
            largest = max(largest, len(task.pending))
        now, worker, task, is_lost = cluster.next_end()
        idle.append(worker)
        losses += is_lost
        results = [FileResult(file.name, "done") for file in task.files]
        seconds = sum(times) / len(times) * len(task.pending)
        final = schedule.lost(task, error) if is_lost else schedule.finished(task, results, seconds, now)
        finished += len(final)
    spent = time.process_time() - started
    ideal = rows * sum(times) / len(times) / workers
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tail = now - min(cluster.free_at)
    assert finished == count[0] == rows, "each picture has one result"
    print(f"{rows} pictures, {workers} workers: {now / 3600:.2f} h, {ideal / now:.1%} of the ideal")
    print(f"tail {tail:.1f} s; {tasks} tasks of at most {largest} pictures; {losses} lost workers")
    print(f"driver: {memory:.0f} MB at most; {spent:.0f} CPU seconds in all, {spent / rows * 1e6:.0f} us for a picture")
    return {"hours": now / 3600, "tail": tail, "tasks": tasks, "memory_mb": memory, "driver_seconds": spent}


def main() -> None:
    """Measure or simulate."""
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=["run", "simulate"])
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--workers", type=int, nargs="+", default=None)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--times", type=Path, help="file of `run --json`, with service times; else 0.2 to 2 s")
    parser.add_argument("--lost", type=float, default=1e-4, help="share of tasks whose worker is lost")
    args = parser.parse_args()
    if args.what == "run":
        save_results(args, run(args.pictures, args.workers or [1, 2, 4], args.rounds))
        return
    recorded = json.loads(args.times.read_text())["service_seconds"] if args.times else None
    times = recorded or [0.2, 0.3, 0.4, 0.6, 1.0, 2.0]
    save_results(args, simulate(args.rows, (args.workers or [1000])[0], times, args.lost))


if __name__ == "__main__":
    main()
