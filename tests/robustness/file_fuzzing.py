"""Mutated picture files through `dsclora upscale`, in processes with limits: every file has a right account.

A batch is a folder of files and one command line. Equal numbers of batches give equal files, so a
finding can be made again.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from limited import PROGRAM, Ended, Limits, private_environment, run_limited
from mutations import mutate
from seeds import picture_files

from dsclora_cli.errors import DscloraError, ErrorCode
from dsclora_cli.imaging.reader import open_picture

SLOW = 10
"""Seconds of processor time of a file, or of 100 frames of an animation, above which the file is a finding.

A result states seconds of the clock. Other work of the machine makes the seconds of all files of a batch longer alike,
so they are reduced by the share of the time of the batch in which the processor worked.
"""

_ASLEEP = 300
"""Seconds of the clock above which a file is a finding, however busy the machine is."""

BUDGET = 500 * 2**20
"""Bytes of memory that a batch may take beyond a batch of whole files."""

_SILENCE = 20
"""Processor seconds without a new line after which a batch hangs."""

_MAX_PIXELS = "500000"
"""Larger pictures are refused: a mutated size must not make a batch slow. The hostile files test the usual limit."""

OPTIONS = (
    (),
    ("--salvage",),
    ("-f", "png"),
    ("-f", "tiff", "--salvage"),
    ("-s", "1.5", "-f", "webp"),
    ("-f", "jpg", "--metadata", "none"),
    ("-f", "png", "--wrap", "--strict"),
    ("-s", "2", "-f", "jp2", "--salvage"),
    ("-s", "2", "-f", "avif"),
    ("-s", "2", "-f", "gif"),
    ("--dry-run",),
)
"""Options of the batches, in turn."""


@dataclass
class Tally:
    """Counts and findings over many batches."""

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of files by status, or by error code."""

    findings: list[str] = field(default_factory=list)
    """One line for each finding: batch, file and what was wrong."""

    peak: int = 0
    """Bytes of the largest process."""

    ordinary: int = 0
    """Bytes of a process with whole files."""

    slowest: float = 0.0
    """Seconds of the slowest batch."""


def fuzz(batches: range, size: int, folder: Path, tally: Tally | None = None) -> Tally:
    """Run batches of `size` mutated files each in `folder`, and return counts and findings."""
    tally = tally or Tally()
    tally.ordinary = tally.ordinary or ordinary_memory(folder / "ordinary")
    for number in batches:
        place = folder / f"{number}"
        files = dict(mutated_files(number, size))
        options = OPTIONS[number % len(OPTIONS)]
        ended = _run(files, options, place)
        found = [*_judge(ended, files, options, place, tally)]
        if ended.peak > tally.ordinary + BUDGET:
            found.append(f"took {ended.peak >> 20} MiB, an ordinary batch {tally.ordinary >> 20} MiB")
        tally.findings += [f"batch {number} {' '.join(options)}: {text}" for text in found]
        tally.files += len(files)
        tally.peak, tally.slowest = max(tally.peak, ended.peak), max(tally.slowest, ended.seconds)
        if not found:
            shutil.rmtree(place)
    return tally


def mutated_files(number: int, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the files of a batch; equal numbers give equal files."""
    random = Random(number)
    seeds = picture_files()
    for index in range(size):
        name = random.choice(list(seeds))
        stem, _, suffix = name.rpartition(".")
        other = seeds[random.choice([each for each in seeds if each.endswith(f".{suffix}")])]
        yield f"{index:03}-{stem}.{suffix}", mutate(seeds[name], other, random)


def ordinary_memory(folder: Path) -> int:
    """Return the largest memory of a process that upscales the files without mutations."""
    ended = [_run(dict(picture_files()), options, folder / str(at)) for at, options in enumerate(OPTIONS[:2])]
    assert all(each.code in (0, 1) for each in ended), ended
    shutil.rmtree(folder)
    return max(each.peak for each in ended)


def _run(files: dict[str, bytes], options: tuple[str, ...], place: Path) -> Ended:
    (place / "in").mkdir(parents=True)
    for name, data in files.items():
        (place / "in" / name).write_bytes(data)
    # Named one by one: in a folder, the results of other files would be left out.
    names = [f"in/{name}" for name in files]
    command = (*PROGRAM, "upscale", *names, "-o", "out", "--json", "--offline", "--max-pixels", _MAX_PIXELS, *options)
    limits = Limits(seconds=1200, silence=_SILENCE, address_space=16 * 2**30)
    return run_limited(command, place, private_environment(place / "home"), limits)


def _judge(ended: Ended, files: dict[str, bytes], options: tuple[str, ...], place: Path, tally: Tally) -> Iterator[str]:
    """Yield everything that is wrong about a batch."""
    if ended.hung:
        yield f"hang: no line for {_SILENCE} s of processor time, after {len(ended.stdout.splitlines())} results"
    if ended.code not in (0, 1):
        yield f"exit code {ended.code}: {ended.stderr[-300:]!r}"
    try:
        results = [json.loads(line) for line in ended.stdout.splitlines()]
    except ValueError:
        yield f"stdout is no JSON: {ended.stdout[-200:]!r}"
        return
    failures = [line for line in ended.stderr.splitlines() if line.startswith("failed: ")]
    shown = {name for name in files if any(name in line for line in failures)}
    failed = {Path(result["input"]).name for result in results if result.get("status") == "failed"}
    if shown != failed or len(failures) != len(failed):
        yield f"lines of stderr name {len(shown)} files, and {len(failed)} failed: {ended.stderr[-300:]!r}"
    if "Traceback" in ended.stderr or any(not line.strip() for line in ended.stderr.splitlines()):
        yield f"stderr: {ended.stderr[-300:]!r}"
    if "--dry-run" in options:
        tally.outcomes["planned"] += len(results)
        yield from (f"planned as a bug: {result}" for result in results if "this is a bug" in json.dumps(result))
        return
    told = Counter(Path(result["input"]).name for result in results if "input" in result)
    if told != Counter(list(files)):
        yield f"no single account for {sorted((Counter(list(files)) - told) | (told - Counter(list(files))))[:5]}"
    for result in results:
        yield from _judge_result(result, place, tally, min(1.0, ended.processor / ended.seconds))
    if ended.code in (0, 1) and ended.code != bool(failed):
        yield f"exit code {ended.code}, although {len(failed)} failed"
    yield from _judge_leftovers(results, place)


def _judge_result(result: dict[str, object], place: Path, tally: Tally, worked: float) -> Iterator[str]:
    name, status, error = str(result.get("input")), result.get("status"), result.get("error")
    tally.outcomes[str(error["code"] if isinstance(error, dict) else status)] += 1
    seconds = result.get("seconds")
    clock = sum(seconds.values()) if isinstance(seconds, dict) else 0.0
    frames = result.get("frames")
    hundreds = max(1.0, frames / 100 if isinstance(frames, int) else 0)
    if clock * worked > SLOW * hundreds or clock > _ASLEEP * hundreds:
        yield f"{name}: {clock * worked:.1f} s of processor time, {clock:.1f} s of the clock"
    if isinstance(error, dict):
        code, message = error["code"], error["message"]
        if code not in set(ErrorCode) or code == ErrorCode.BUG:
            yield f"{name}: {error}"
        elif "\n" in message or not (error["hint"] or code != ErrorCode.IMAGE_UNREADABLE):
            yield f"{name}: message of several lines, or no next step: {error}"
    elif status == "done":
        try:
            with open_picture(place / str(result["output"])) as reader:
                size = [reader.header.width, reader.header.height]
                frames = sum(1 for _ in reader.frames())
        except DscloraError as failure:
            yield f"{name}: the result cannot be read: {failure}"
        else:
            if size != result["output_size"] or not frames:
                yield f"{name}: the result has {size} pixels, stated {result['output_size']}"
    elif status != "skipped":
        yield f"{name}: status {status!r}"


def _judge_leftovers(results: list[dict[str, object]], place: Path) -> Iterator[str]:
    written = {str(result["output"]) for result in results if result.get("status") == "done"}
    there = {path.relative_to(place).as_posix() for path in (place / "out").rglob("*")}
    if there != written:
        yield f"files that no result names, or results without files: {sorted(there ^ written)[:5]}"
    inputs = {path.name for path in (place / "in").iterdir()}
    if len(inputs) != len(results) or any(name.startswith(".") for name in inputs):
        yield f"{len(inputs)} files in the input folder after the run"
    if temporary := [path.name for path in (place / "home" / "tmp").rglob("*")]:
        yield f"temporary files are left: {temporary[:5]}"
