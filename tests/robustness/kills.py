"""Processes that are killed, interrupted or terminated at random moments: nothing is torn, nothing is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from jobs import JOBS, Job, environment_of, hub
from limited import Ended, Limits, run_limited

_QUIET = {"Traceback", "this is a bug", "Exception ignored"}
"""Words that no interrupted process may write."""


@dataclass
class KillTally:
    """Counts and findings."""

    cases: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """Number of processes by their end: exit code or signal."""

    partial: int = 0
    """Number of cases in which some results were there and others were not."""

    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """What a run gives that nothing disturbs."""

    files: dict[str, bytes]
    report: object
    seconds: float


def reference(job: Job, folder: Path, served: dict[str, str]) -> Reference:
    """Run a job undisturbed, twice: the first run of a machine is slower than the others."""
    for name in ("warm", "reference"):
        place = folder / name
        place.mkdir(parents=True)
        job.prepare(place)
        ended = run_limited(job.command(), place, environment_of(place, served), Limits(seconds=600))
        assert ended.code == 0, ended.stderr
    files = job.files(folder / "reference")
    assert files, f"{job.name} wrote nothing"
    return Reference(files, job.report(ended), ended.seconds)


def disturb(name: str, signals: Sequence[Sequence[int]], cases: int, folder: Path, seed: int = 0) -> KillTally:
    """Disturb a job many times, each time at a random moment with one of the series of signals.

    Args:
        name: Name of the job.
        signals: Series of signals to send one after the other, such as `(SIGINT, SIGINT)`.
        cases: Number of runs to disturb.
        folder: An empty folder.
        seed: Decides the moments.
    """
    job, random, tally = JOBS[name], Random(f"{name} {seed}"), KillTally()
    with hub(job) as served:
        whole = reference(job, folder, served)
        for number in range(cases):
            place = folder / str(number)
            place.mkdir()
            job.prepare(place)
            series = signals[number % len(signals)]
            code, stderr = _run_disturbed(
                job, place, served, series, random.uniform(0.02, 1.05) * whole.seconds, random
            )
            tally.cases += 1
            tally.ends[_end(code)] += 1
            found = [*_judge(job, place, whole, tally), *_judge_end(code, stderr, series, place)]
            again = job.start_again(place, environment_of(place, served))
            found += _judge_again(job, place, whole, again)
            tally.findings += [
                f"case {number} {[signal.Signals(each).name for each in series]}: {text}" for text in found
            ]
            if not found:
                shutil.rmtree(place)
    return tally


def _run_disturbed(
    job: Job, place: Path, served: dict[str, str], series: Sequence[int], moment: float, random: Random
) -> tuple[int, str]:
    """Start a job, send the signals, and return exit code and stderr."""
    with (place / "home.err").open("wb") as stderr:
        process = subprocess.Popen(
            job.command(), cwd=place, env=environment_of(place, served), stdout=subprocess.DEVNULL, stderr=stderr
        )
        for each in series:
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, each)
            moment = random.uniform(0, 0.3)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return -99, "the process did not end within 120 s"
    text = (place / "home.err").read_text(encoding="utf-8", errors="replace")
    (place / "home.err").unlink()
    return process.returncode, text


def _end(code: int) -> str:
    return signal.Signals(-code).name if code < 0 and code != -99 else f"exit {code}"


def _judge(job: Job, place: Path, whole: Reference, tally: KillTally) -> Iterator[str]:
    """Yield the results that are there and are not those of an undisturbed run: a result is whole or absent."""
    there = job.files(place)
    tally.partial += 0 < len(there) < len(whole.files)
    for name, data in there.items():
        # The weights of a training run are those of the last validation so far, so only a whole file can be asked for.
        torn = not _is_whole(name, data) if job.resume else whole.files.get(name) != data
        if torn:
            yield f"{name} is torn: {len(data)} bytes, not {len(whole.files.get(name, b''))}"


def _is_whole(name: str, data: bytes) -> bool:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return bool(load(data))
    except SafetensorError:
        return False


def _judge_end(code: int, stderr: str, series: Sequence[int], place: Path) -> Iterator[str]:
    if signal.SIGKILL in series:
        return
    # Before Python has loaded a line of this program, SIGTERM ends the process as the system does, without a word.
    early = code == -signal.SIGTERM and not stderr
    if code not in (0, 130) and not early:
        yield f"ended with {_end(code)}: {stderr[-200:]!r}"
    if any(word in stderr for word in _QUIET):
        yield f"stderr: {stderr[-300:]!r}"
    hidden = [path.name for path in place.rglob(".dsclora-*")]
    if hidden and len(series) == 1:
        yield f"left {hidden}"


def _judge_again(job: Job, place: Path, whole: Reference, again: Ended) -> Iterator[str]:
    if again.code != 0:
        yield f"the second run ended with {again.code}: {again.stderr[-300:]!r}"
        return
    files = job.files(place)
    if files != whole.files:
        wrong = [name for name in files.keys() | whole.files.keys() if files.get(name) != whole.files.get(name)]
        yield f"after the second run, {sorted(wrong)} differ"
    if job.report(again) != whole.report:
        yield "the report of the second run differs"
