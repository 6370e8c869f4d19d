"""Processes that are killed, interrupted or terminated at random moments: nothing is torn, nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryFile
from typing import IO

from jobs import JOBS, Job, environment_of, hub
from limited import Ended, Limits, run_limited

_QUIET = {"Traceback", "this is a bug", "Exception ignored"}
"""Words that no interrupted process may write."""

_IMPORTS = 0.3
"""Seconds of processor time in which a process does little but import."""


@dataclass
class KillTally:
    """Counts and findings."""

    cases: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    """Number of processes by their end: exit code or signal."""

    stages: Counter[str] = field(default_factory=Counter)
    """Number of processes by what they were doing when the first signal came."""

    findings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """What a run gives that nothing disturbs."""

    inputs: dict[str, bytes]
    files: dict[str, bytes]
    report: object

    processor: float
    """Seconds of processor time."""


@dataclass(frozen=True)
class Disturbed:
    """How a run ended that signals disturbed."""

    code: int
    stdout: str
    stderr: str

    stage: str
    """What the process was doing when the first signal came."""


@dataclass(frozen=True)
class Moment:
    """When to disturb a process: no clock tells how far a process on a busy machine is."""

    results: int = 0
    """Number of results to wait for."""

    in_write: bool = False
    """Wait for an unfinished file as well."""

    processor: float = 0.0
    """Seconds of processor time to wait for."""

    delay: float = 0.0
    """Seconds to wait after all this."""


def reference(job: Job, folder: Path, served: dict[str, str]) -> Reference:
    """Run a job undisturbed, twice: the first run of a machine is slower than the others."""
    for name in ("warm", "reference"):
        place = folder / name
        place.mkdir(parents=True)
        job.prepare(place)
        inputs = _contents(place)
        ended = run_limited(job.command(), place, environment_of(place, served), Limits(seconds=600), job.given(place))
        assert ended.code == 0, ended.stderr
    files = job.files(folder / "reference")
    assert files, f"{job.name} wrote nothing"
    return Reference(inputs, files, job.report(ended), ended.processor)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
            moment = _choose(number, whole, random)
            ended = _run_disturbed(job, place, served, series, (moment, random))
            tally.cases += 1
            tally.ends[_end(ended.code)] += 1
            tally.stages[ended.stage] += 1
            found = [*_judge(job, place, whole), *_judge_end(job, place, ended, series)]
            if ended.code == 0 and _is_early(moment, whole):
                found.append("did not heed the signal")
            again = job.start_again(place, environment_of(place, served))
            found += _judge_again(job, place, whole, again)
            tally.findings += [
                f"case {number} {[signal.Signals(each).name for each in series]}: {text}" for text in found
            ]
            if not found:
                shutil.rmtree(place)
    return tally


def _choose(number: int, whole: Reference, random: Random) -> Moment:
    """Return a moment: inside a write, between two results, in imports, or at any time.

    The kinds take turns, and after a round the next one comes first: with four series of signals, each kind meets each
    series within 16 cases, and 8 cases have every kind.
    """
    some = random.randrange(len(whole.files))
    kinds = (
        Moment(some, in_write=True, delay=random.choice((0, random.uniform(0, 0.003), random.uniform(0, 0.2)))),
        Moment(some, delay=random.uniform(0, 0.02)) if some else Moment(in_write=True),
        Moment(processor=random.uniform(0, min(_IMPORTS, whole.processor))),
        Moment(processor=random.uniform(0, whole.processor)),
    )
    return kinds[(number + number // len(kinds)) % len(kinds)]


def _is_early(moment: Moment, whole: Reference) -> bool:
    """Return whether a run of many results has most of them still to do at a moment."""
    is_by_results = moment.results > 0 or moment.in_write
    return is_by_results and len(whole.files) >= 40 and moment.results < 20


def _run_disturbed(
    job: Job, place: Path, served: dict[str, str], series: Sequence[int], when: tuple[Moment, Random]
) -> Disturbed:
    """Start a job, send the signals, and wait for the end."""
    moment, random = when
    given = place / job.stdin if job.stdin else Path(os.devnull)
    with TemporaryFile() as stdout, TemporaryFile() as stderr, given.open("rb") as stdin:
        process = subprocess.Popen(
            job.command(),
            cwd=place,
            env=environment_of(place, served),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            # A shell lets its jobs in the background ignore Ctrl-C, and so would all processes that this one starts.
            preexec_fn=_heed_interrupts,  # noqa: PLW1509 - the harness has no threads of its own when it forks
        )
        _wait_for(job, place, process, moment)
        stage = _stage(job, place)
        for each in series:
            # A process that has ended is not waited for yet, so its number belongs to nobody else.
            os.kill(process.pid, each)
            with suppress(subprocess.TimeoutExpired):
                process.wait(random.uniform(0, 0.3))
            if process.returncode is not None:
                break
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return Disturbed(-99, "", "the process did not end within 120 s", stage)
        texts = [_read(stream) for stream in (stdout, stderr)]
    # What a killed process leaves says more than a look at a process that goes on.
    return Disturbed(process.returncode, *texts, _stage(job, place) if signal.SIGKILL in series else stage)


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode(errors="replace")


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for(job: Job, place: Path, process: subprocess.Popen[bytes], moment: Moment) -> None:
    """Wait until a process has come as far as the moment says, or has ended."""
    while not _has_come(job, place, process, moment):
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return
        time.sleep(0.0005)
    time.sleep(moment.delay)


def _has_come(job: Job, place: Path, process: subprocess.Popen[bytes], moment: Moment) -> bool:
    if moment.processor and _processor_seconds(process.pid) < moment.processor:
        return False
    if moment.results and len(job.names(place)) < moment.results:
        return False
    return not moment.in_write or any(job.unfinished(place))


def _processor_seconds(pid: int) -> float:
    """Return the processor time of all threads of a process, more exactly than in ticks of 10 ms."""
    spent = 0
    with suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            spent += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return spent / 1e9


def _stage(job: Job, place: Path) -> str:
    """Return what a process was doing, by the files that are there."""
    if any(job.unfinished(place)):
        return "inside a write"
    there = len(job.names(place))
    return "between two results or after the last" if there else "before the first result"


def _end(code: int) -> str:
    return signal.Signals(-code).name if code < 0 and code != -99 else f"exit {code}"


def _judge(job: Job, place: Path, whole: Reference) -> Iterator[str]:
    """Yield the results that are there and are not those of an undisturbed run: a result is whole or absent."""
    for name, data in job.files(place).items():
        # The weights of a training run are those of the last validation so far, so only a whole file can be asked for.
        torn = not _is_whole(data) if job.resume else whole.files.get(name) != data
        if torn:
            yield f"{name} is torn: {len(data)} bytes, not {len(whole.files.get(name, b''))}"


def _is_whole(data: bytes) -> bool:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return bool(load(data))
    except SafetensorError:
        return False


def _judge_end(job: Job, place: Path, ended: Disturbed, series: Sequence[int]) -> Iterator[str]:
    if signal.SIGKILL in series:
        return
    if _is_before_the_program(ended.code, ended.stderr):
        return
    if ended.code not in (0, 130):
        yield f"ended with {_end(ended.code)}: {ended.stderr[-200:]!r}"
    if any(word in ended.stderr for word in _QUIET):
        yield f"stderr: {ended.stderr[-300:]!r}"
    if len(series) > 1 and not job.has_lines:
        return  # the second signal raises KeyboardInterrupt, wherever the command is
    if unfinished := job.unfinished(place):
        yield f"left {unfinished}"
    if job.has_lines and (wrong := set(job.told(ended.stdout)) ^ set(job.names(place))):
        yield f"files without a line, or lines without a file: {sorted(wrong)}"


def _is_before_the_program(code: int, stderr: str) -> bool:
    """Return whether a process has ended as Python does before the first lines of this program are loaded.

    Without a word, or with a traceback in which no function of this program stands.
    """
    if code in (-signal.SIGTERM, -signal.SIGINT) and not stderr:
        return True
    places = re.findall(r'dsclora_cli/(\S+)", line \d+, in (\S+)', stderr)
    return "KeyboardInterrupt" in stderr and set(places) <= {("__main__.py", "<module>"), ("__init__.py", "<module>")}


def _judge_again(job: Job, place: Path, whole: Reference, again: Ended) -> Iterator[str]:
    refused = job.refuses and again.code == 2 and re.search(r" exists (already )?\(", again.stderr)
    if again.code != 0 and not refused:
        yield f"the second run ended with {again.code}: {again.stderr[-300:]!r}"
        return
    files = job.files(place)
    if files != whole.files:
        wrong = [name for name in files.keys() | whole.files.keys() if files.get(name) != whole.files.get(name)]
        yield f"after the second run, {sorted(wrong)} differ"
    if not refused and job.report(again) != whole.report:
        yield "the report of the second run differs"
    if left := job.unfinished(place):
        yield f"after the second run, {left} are left"
    changed = [name for name, data in whole.inputs.items() if (place / name).read_bytes() != data]
    if changed:
        yield f"the inputs {changed} have changed"
