"""Long runs of one process over many pictures: memory, descriptors, threads and pace, sampled from outside.

Started as a script, the file is such a process: runs over folders, and pictures in memory, through the Python API.
"""

from __future__ import annotations

import gc
import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import numpy as np
import psutil
from batches import save_animation, save_photo
from file_fuzzing import mutated_files
from limited import PROGRAM, private_environment
from seeds import picture_files

from dsclora_cli import Upscaler, upscale_files
from dsclora_cli.config import (
    BatchOptions,
    EngineOptions,
    ModelOptions,
    ReadOptions,
    SaveOptions,
    SizeOptions,
    UpscaleOptions,
)
from dsclora_cli.inference.native.library import why_unavailable
from dsclora_cli.inference.openvino import is_installed
from dsclora_cli.upscaling.picture import PictureUpscaler

GROWTH = 20 * 2**20
"""Bytes that a process may grow in an hour after the warm-up, and at least in a run of less than an hour."""

WARM_UP = 60
"""Seconds of processor time in which caches and allocators may fill; at most a quarter of a run."""

WARM_UP_RUNS = 500
"""Allow runs over folders about two turns of the options, in seconds of processor time."""

_WINDOWS = 12
"""Parts of a run, of which the least value counts."""

_SPREAD = 2.0
"""Descriptors and threads that may be more at the end."""

_LOOSE = 20
"""Factor of the limits in a run of less than two warm-ups, which shows gross faults only."""

_SLOWER = 0.6
"""Share of the pictures of a processor second that must be left at the end: other work of the machine costs a part."""

_STUCK, _ASLEEP = 120, 1800
"""Seconds of processor time, and of the clock, without a result, after which the process hangs.

A busy machine may leave a process with little of its time.
"""

_GIVEN_UP = 7
"""Of so many runs, the last is given up in the middle."""

_COMMON = ("--offline", "--json", "--threads", "1", "--device", "cpu", "--max-pixels", "500000")


@dataclass(frozen=True)
class Sample:
    """State of the process at a moment."""

    seconds: float
    """Wall-clock seconds since the start."""

    processor: float
    """Seconds of processor time so far, of all threads."""

    memory: int
    """Resident bytes."""

    descriptors: int
    threads: int

    pictures: int
    """Results so far."""


@dataclass
class Soak:
    """A process under observation: samples, counts and findings."""

    samples: list[Sample] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    """Number of results by status."""

    findings: list[str] = field(default_factory=list)

    warm_up: float = WARM_UP
    """Seconds of processor time of the warm-up: on a busy machine, seconds of the clock say little."""

    def facts(self) -> dict[str, int | float | str]:
        """Return what was observed, by name, and add a finding for every limit that was exceeded."""
        span, used = self.samples[-1].seconds, self.samples[-1].processor
        warm = [each for each in self.samples if each.processor >= min(self.warm_up, used / 4)]
        if len(warm) < 4:
            self.findings.append(f"only {len(warm)} samples after the warm-up")
            return {}
        hours = (warm[-1].seconds - warm[0].seconds) / 3600
        loose = 1 if used >= 2 * self.warm_up else _LOOSE
        memory, descriptors, threads = (_slope(warm, name) for name in ("memory", "descriptors", "threads"))
        early, late = _pace(warm[: len(warm) // 2]), _pace(warm[len(warm) // 2 :])
        if memory * hours > loose * GROWTH * max(1.0, hours):
            self.findings.append(f"memory grows by {memory / 2**20:.1f} MiB in an hour")
        for name, slope in (("descriptors", descriptors), ("threads", threads)):
            if slope * hours > loose * _SPREAD:
                self.findings.append(f"{name} grow by {slope:.1f} in an hour")
        if late < early * _SLOWER:
            self.findings.append(f"{early:.1f} pictures in a processor second at first, {late:.1f} at the end")
        return {
            **dict(self.statuses),
            "minutes": round(span / 60, 1),
            "MiB after the warm-up": warm[0].memory >> 20,
            "MiB at the end": warm[-1].memory >> 20,
            "MiB at most": max(each.memory for each in warm) >> 20,
            "MiB an hour": round(memory / 2**20, 2),
            "descriptors": f"{min(e.descriptors for e in warm)} to {max(e.descriptors for e in warm)}",
            "descriptors an hour": round(descriptors, 2),
            "threads": f"{min(e.threads for e in warm)} to {max(e.threads for e in warm)}",
            "threads an hour": round(threads, 2),
            "pictures a processor second, first half": round(early, 2),
            "second half": round(late, 2),
        }


def _slope(samples: Sequence[Sample], name: str) -> float:
    """Return the rise of a value in an hour: a straight line through the least values of windows.

    A sample may fall into a large picture. What is never let go of is there in every sample.
    """
    windows = np.array_split(np.arange(len(samples)), min(_WINDOWS, len(samples)))
    least = [min((samples[index] for index in window), key=lambda each: getattr(each, name)) for window in windows]
    hours = np.array([each.seconds for each in least]) / 3600
    return float(np.polyfit(hours, [getattr(each, name) for each in least], 1)[0])


def _pace(samples: Sequence[Sample]) -> float:
    """Return pictures in a second of processor time."""
    first, last = samples[0], samples[-1]
    return (last.pictures - first.pictures) / max(last.processor - first.processor, 1e-9)


def soak_small(pictures: int, folder: Path, every: float) -> Soak:
    """Upscale a folder of small pictures in one run of the command line."""
    for number in range(pictures):
        suffix, edge = ("jpg", "png", "webp")[number % 3], 24 + number * 7 % 41
        save_photo(folder / "in" / f"{number}.{suffix}", (edge, 88 - edge), seed=number)
    command = (*PROGRAM, "upscale", "in", "-o", "out", "-s", "2", *_COMMON)
    with _Process(command, folder, every) as process:
        process.wait_until(lambda: process.popen.poll() is not None)
    if process.soak.statuses != {"done": pictures}:
        process.soak.findings.append(f"{pictures} pictures, and results {dict(process.soak.statuses)}")
    return process.soak


def soak_watch(seconds: float, folder: Path, every: float) -> Soak:
    """Let the command line watch a folder, in which mixed pictures arrive, and from which they go again."""
    (folder / "in").mkdir(parents=True)
    command = (*PROGRAM, "upscale", "in", "-o", "out", "--watch", "--salvage", *_COMMON)
    given = 0
    with _Process(command, folder, every) as process:
        for number in itertools.count():
            if process.age > seconds or process.stuck:
                break
            names = fill_mixed(folder / "in", number)
            given += len(names)
            process.wait_until(lambda: process.soak.statuses.total() >= given)  # noqa: B023 - called at once
            for path in (*(folder / "in").iterdir(), *(folder / "out").iterdir()):
                path.unlink(missing_ok=True)
        process.popen.send_signal(signal.SIGTERM)  # a parent may ignore SIGINT
    if process.soak.statuses.total() != given:
        process.soak.findings.append(f"{given} pictures, and results {dict(process.soak.statuses)}")
    return process.soak


def soak_runs(seconds: float, folder: Path, every: float) -> Soak:
    """Upscale mixed folders, and pictures in memory, one after the other in one process, through the Python API."""
    folder.mkdir(parents=True)
    with _Process((sys.executable, __file__), folder, every) as process:
        process.soak.warm_up = WARM_UP_RUNS
        for number in itertools.count():
            if process.age > seconds or process.stuck:
                break
            place = folder / f"{number}"
            fill_mixed(place, number)
            process.tell(place.name)
            process.wait_until(lambda: process.soak.statuses["folder"] > number)  # noqa: B023 - called at once
            for path in sorted(place.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            place.rmdir()
        process.tell("")
    return process.soak


SOAKS = {"a watched folder": soak_watch, "runs over folders in one process": soak_runs}
"""Soaks that take a time, by name."""


def fill_mixed(folder: Path, number: int) -> list[str]:
    """Write pictures of many formats and sizes, broken files and animations; equal numbers give equal files."""
    random = Random(number)
    whole = picture_files()
    files = dict(mutated_files(number, 12))
    files |= {f"w-{name}": whole[name] for name in random.sample(sorted(whole), 12)}
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        # Written elsewhere first: a watch must not see half of a picture that is broken already.
        part = folder.with_name("part")
        part.write_bytes(data)
        part.rename(folder / f"{number}-{name}")
    for index in range(4):
        size = (random.randrange(20, 300), random.randrange(20, 300))
        save_photo(folder / f"{number}-{index}.{random.choice(('jpg', 'png', 'webp', 'tif'))}", size, seed=number)
    save_animation(folder / f"{number}-frames.gif", frames=random.choice((3, 6)), size=(40, 30))
    return [path.name for path in folder.iterdir()]


class _Process:
    """A process that writes one JSON object for each result, and is sampled while the caller waits."""

    def __init__(self, command: Sequence[str], folder: Path, every: float) -> None:
        self._every, self._due = every, 0.0
        self._out = folder / "results.jsonl"
        self._err = folder / "messages.txt"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            environment = private_environment(folder / "home", OMP_NUM_THREADS="1", PYTHONFAULTHANDLER="1")
            self.popen = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=err
            )
        self._start = self._progress = time.monotonic()
        self._process = psutil.Process(self.popen.pid)
        self._lines = self._out.open("rb")
        self._rest, self._used = b"", 0.0
        self.soak = Soak()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.wait_until(lambda: self.popen.poll() is not None)
        code, age = self.popen.poll() or 0, self.age  # before the kill
        self.popen.kill()
        self.popen.communicate()
        self._read()
        self._lines.close()
        text = self._err.read_text(encoding="utf-8", errors="replace")
        if code < 0:
            self.soak.findings.append(f"ended by {signal.Signals(-code).name} after {age:.0f} s: {text[-2000:]!r}")
        if "Traceback" in text or "this is a bug" in text:
            self.soak.findings.append(f"messages: {text[-300:]!r}")

    @property
    def age(self) -> float:
        """Wall-clock seconds since the start."""
        return time.monotonic() - self._start

    @property
    def stuck(self) -> bool:
        """Whether the process has ended, or writes no results any more."""
        used = self.soak.samples[-1].processor if self.soak.samples else 0.0
        waited = time.monotonic() - self._progress
        return self.popen.poll() is not None or waited > _ASLEEP or used - self._used > _STUCK

    def tell(self, line: str) -> None:
        """Write a line to the process; nothing is written to a process that has ended."""
        assert self.popen.stdin is not None
        with suppress(BrokenPipeError):
            self.popen.stdin.write(f"{line}\n".encode())
            self.popen.stdin.flush()

    def wait_until(self, reached: Callable[[], bool]) -> None:
        """Read results and take samples until a state is reached, or the process is stuck."""
        while not reached():
            self._read()
            if self.age >= self._due:
                self._due += self._every
                self._sample()
            if self.stuck and not reached():
                self._read()
                if not reached():
                    self.soak.findings.append(
                        f"stuck or ended early after {self.age:.0f} s: {self._err.read_bytes()[-300:]!r}"
                    )
                return
            time.sleep(0.1)
        self._read()

    def _read(self) -> None:
        """Count the results since the last look."""
        *lines, self._rest = (self._rest + self._lines.read()).split(b"\n")
        for line in lines:
            result = json.loads(line)
            # A watched folder that is empty for a moment is told of as well, and the summary has no status.
            if "status" in result and result.get("input") != "in":
                self.soak.statuses[result["status"]] += 1
        if lines:
            self._progress = time.monotonic()
            self._used = self.soak.samples[-1].processor if self.soak.samples else 0.0

    def _sample(self) -> None:
        try:
            with self._process.oneshot():
                times, memory = self._process.cpu_times(), self._process.memory_info().rss
                descriptors, threads = self._process.num_fds(), self._process.num_threads()
        except psutil.Error:
            return
        if not memory:  # a process that has ended, and has not been waited for
            return
        pictures = self.soak.statuses.total()
        self.soak.samples.append(Sample(self.age, times.user + times.system, memory, descriptors, threads, pictures))


def _serve(folders: Iterator[str]) -> None:
    """Upscale the named folders, each with the next options and a new engine, and pictures in memory; print results."""
    chosen = _options()
    kept = Upscaler("dsclora-x4", options=chosen[0])
    for number, name in enumerate(itertools.takewhile(bool, (line.strip() for line in folders))):
        for status in _run(name, number, chosen[number % len(chosen)]):
            _tell(status)
        if not _is_given_up(number):  # the threads of a run that was given up may still end
            assert sum(type(each) is PictureUpscaler for each in gc.get_objects()) == 1, "an engine outlives its run"
        pixels = np.random.default_rng(number).integers(0, 256, (20 + number % 50, 31, 1 + number % 4), np.uint8)
        for array in (pixels, pixels.astype(np.uint16) * 257, pixels.astype(np.float32) / 255):
            assert kept(array).shape[:2] == (pixels.shape[0] * 4, 31 * 4)
            _tell("array")
        _tell("folder")


def _tell(status: str) -> None:
    sys.stdout.write(json.dumps({"status": status}) + "\n")
    sys.stdout.flush()


def _options() -> list[UpscaleOptions]:
    """Return the options of the runs, in turn: all engines that are installed, and several sizes and formats."""
    plain = UpscaleOptions(read=ReadOptions(500_000), model=ModelOptions(offline=True))
    engines = [
        name for name, missing in (("native", why_unavailable()), ("openvino", not is_installed())) if not missing
    ]
    sizes = (SizeOptions(), SizeOptions(scale=2), SizeOptions(scale=1.5), SizeOptions(long_edge=300))
    formats = (None, "PNG", "WEBP", "TIFF", "AVIF")
    turns = itertools.islice(
        zip(itertools.cycle((*engines, "torch")), itertools.cycle(sizes), itertools.cycle(formats)), 60
    )
    return [
        replace(
            plain,
            engine=EngineOptions(engine=engine, device="cpu", threads=1, ensemble=index % 10 == 9),
            size=size,
            save=SaveOptions(format=name),
            read=replace(plain.read, salvage=index % 2 == 1),
            wrap=index % 6 == 5,
            measure=index % 4 == 3,
        )
        for index, (engine, size, name) in enumerate(turns)
    ]


def _is_given_up(number: int) -> bool:
    """Return whether a run is given up in the middle."""
    return number % _GIVEN_UP == _GIVEN_UP - 1


def _run(name: str, number: int, options: UpscaleOptions) -> Iterator[str]:
    """Upscale a folder, and yield the status of each result; some runs are given up in the middle."""
    results = upscale_files([name], replace(options, batch=BatchOptions(output=f"{name}/out")))
    wanted = 5 if _is_given_up(number) else None
    with closing(results):
        yield from (result.status for result in itertools.islice(results, wanted))


if __name__ == "__main__":
    _serve(iter(sys.stdin.readline, ""))
