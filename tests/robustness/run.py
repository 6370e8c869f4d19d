"""Run a check in its long form and record the result: `python tests/robustness/run.py CHECK`.

Without CHECK, write docs/reliability.md again. `--scale 0.1` runs a tenth of the cases and records nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "helpers"), str(HERE)]

import records  # noqa: E402
from records import Record, Row  # noqa: E402

if TYPE_CHECKING:
    from parser_fuzzing import ParserTally


def run_files(scale: float, folder: Path) -> Iterator[Row]:
    """Fuzz files through the command line: 20,000 files at scale 1."""
    from file_fuzzing import OPTIONS, Tally, fuzz

    batches, ordinary = max(1, round(200 * scale / len(OPTIONS) + 0.5)), 0
    for at, options in enumerate(OPTIONS):
        tally = Tally(ordinary=ordinary)
        fuzz(range(at, at + batches * len(OPTIONS), len(OPTIONS)), 100, folder, tally)
        ordinary = tally.ordinary
        observed = {**tally.outcomes, "largest MiB": tally.peak >> 20}
        yield Row(f"`upscale {' '.join(options)}`", tally.files, observed, tally.findings)


def run_parsers(scale: float, folder: Path) -> Iterator[Row]:
    """Fuzz the parsers of this project in this process: 5,000 inputs each at scale 1."""
    from parser_fuzzing import fuzz_parser
    from parsers import PARSERS

    for name in PARSERS:
        yield _parser_row(name, fuzz_parser(name, round(5_000 * scale), seed=1))


def run_coverage(scale: float, folder: Path) -> Iterator[Row]:
    """Fuzz the parsers guided by coverage, for an hour in all at scale 1. Needs the package atheris."""
    from parser_fuzzing import fuzz_by_coverage
    from parsers import PARSERS

    seconds = max(1, round(3600 * scale / len(PARSERS)))
    for index, name in enumerate(PARSERS):
        yield _parser_row(name, fuzz_by_coverage(name, seconds, folder / f"{index}.json"), {"seconds": seconds})


def _parser_row(name: str, tally: ParserTally, more: Mapping[str, int] = MappingProxyType({})) -> Row:
    observed = {**more, "refused": tally.refused, "slowest ms": round(tally.slowest * 1000)}
    return Row(name, tally.inputs, observed, [f"{place}: {text:.160}" for place, text in tally.findings.items()])


KILLS = {"folder of pictures": 120, "download": 120, "conversion": 24, "evaluation": 24, "training": 12}
"""Number of runs to kill at scale 1, by job: those that load torch take much longer."""


def run_kills(scale: float, folder: Path) -> Iterator[Row]:
    """Kill jobs at random moments with SIGKILL."""
    yield from _disturbed([(signal.SIGKILL,)], scale, folder)


def run_signals(scale: float, folder: Path) -> Iterator[Row]:
    """Interrupt and terminate jobs, once and twice: a third as many runs as are killed."""
    series = [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM)]
    yield from _disturbed(series, scale / 3, folder)


def _disturbed(series: Sequence[Sequence[int]], scale: float, folder: Path) -> Iterator[Row]:
    from kills import disturb

    for index, (name, cases) in enumerate(KILLS.items()):
        tally = disturb(name, series, max(1, round(cases * scale)), folder / f"{index}")
        observed = {**tally.ends, "with a part of the results": tally.partial}
        yield Row(name, tally.cases, observed, tally.findings)


CHECKS: dict[str, Callable[[float, Path], Iterator[Row]]] = {
    "files": run_files,
    "parsers": run_parsers,
    "coverage": run_coverage,
    "kills": run_kills,
    "signals": run_signals,
}
"""Checks by name; `checks.toml` says what each check promises."""


def main(arguments: Sequence[str]) -> None:
    """Run the checks that are named, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", nargs="*", metavar="CHECK")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases; below 1 nothing is recorded")
    parser.add_argument("--record", action="store_true", help="record the result of a run of fewer cases too")
    given = parser.parse_args(arguments)
    if not given.check:
        records.PAGE.write_text(records.page(records.load()), encoding="utf-8")
    for name in given.check:
        _run(name, CHECKS[name], given.scale, given.record or given.scale >= 1)


def _run(name: str, check: Callable[[float, Path], Iterator[Row]], scale: float, recorded: bool) -> None:
    """Run a check and record what was done, also of a check that is interrupted."""
    rows: list[Row] = []
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="dsclora-robustness-") as folder:
            os.environ |= {f"DSCLORA_{part}_DIR": f"{folder}/own/{part}" for part in ("CONFIG", "STATE", "CACHE")}
            for row in check(scale, Path(folder)):
                rows.append(row)
                print(f"{name}: {row.name}: {row.cases} {dict(row.outcomes)}", *row.findings, sep="\n    ", flush=True)
    finally:
        if recorded and rows:
            records.save(Record(name, rows, time.monotonic() - start))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(sys.argv[1:])
