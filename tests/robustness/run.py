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
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent / "helpers"), str(HERE)]

import records  # noqa: E402
from records import Record, Row  # noqa: E402

if TYPE_CHECKING:
    from determinism import DeterminismTally
    from parser_fuzzing import ParserTally
    from soak import Soak


@dataclass(frozen=True)
class Plan:
    """How much of a check to run."""

    scale: float
    """Share of the cases of the long form."""

    folder: Path
    """An empty folder."""

    rows: str = ""
    """Part of the names of the rows to run, or several parts with commas between; empty for all."""

    def wants(self, name: str) -> bool:
        """Return whether to run the row with this name."""
        return any(part in name for part in self.rows.split(","))


def run_files(plan: Plan) -> Iterator[Row]:
    """Fuzz files through the command line: 20,000 files at scale 1."""
    from file_fuzzing import OPTIONS, Tally, fuzz

    batches, ordinary = max(1, round(200 * plan.scale / len(OPTIONS) + 0.5)), 0
    for at, options in enumerate(OPTIONS):
        name = f"`upscale {' '.join(options)}`"
        if not plan.wants(name):
            continue
        tally = Tally(ordinary=ordinary)
        fuzz(range(at, at + batches * len(OPTIONS), len(OPTIONS)), 100, plan.folder, tally)
        ordinary = tally.ordinary
        observed = {**tally.outcomes, "largest MiB": tally.peak >> 20}
        yield Row(name, tally.files, observed, tally.findings)


def run_parsers(plan: Plan) -> Iterator[Row]:
    """Fuzz the parsers of this project in this process: 5,000 inputs each at scale 1."""
    from parser_fuzzing import fuzz_parser
    from parsers import PARSERS

    for name in filter(plan.wants, PARSERS):
        yield _parser_row(name, fuzz_parser(name, round(5_000 * plan.scale), seed=1))


def run_coverage(plan: Plan) -> Iterator[Row]:
    """Fuzz the parsers guided by coverage, for an hour in all at scale 1. Needs the package atheris."""
    from parser_fuzzing import fuzz_by_coverage
    from parsers import PARSERS

    seconds = max(1, round(3600 * plan.scale / len(PARSERS)))
    for index, name in enumerate(filter(plan.wants, PARSERS)):
        tally = fuzz_by_coverage(name, seconds, plan.folder / f"{index}.json")
        yield _parser_row(name, tally, {"seconds": seconds, "processor seconds": round(tally.processor)})


def _parser_row(name: str, tally: ParserTally, more: Mapping[str, int] = MappingProxyType({})) -> Row:
    observed = {**more, "refused": tally.refused, "slowest ms": round(tally.slowest * 1000)}
    return Row(name, tally.inputs, observed, [f"{place}: {text:.160}" for place, text in tally.findings.items()])


KILLS = {
    "many small pictures": 120,
    "folder of pictures": 120,
    "download": 120,
    "video": 16,
    "conversion": 24,
    "merge": 8,
    "evaluation": 24,
    "training": 4,
    "distillation": 4,
}
"""Number of runs to kill at scale 1, by job: those that load torch take much longer."""

SIGNALS = {
    "many small pictures": 40,
    "folder of pictures": 24,
    "download": 24,
    "video": 8,
    "conversion": 8,
    "evaluation": 16,
    "training": 16,
    "distillation": 16,
}
"""Number of runs to interrupt and terminate at scale 1, by job."""


def run_kills(plan: Plan) -> Iterator[Row]:
    """Kill jobs at random moments with SIGKILL. Needs Ray for the rows of a cluster."""
    import cluster_kills
    from clusters import has_ray

    yield from _disturbed([(signal.SIGKILL,)], KILLS, plan)
    for victim in filter(plan.wants, (cluster_kills.DRIVER, cluster_kills.WORKER) if has_ray() else ()):
        (plan.folder / victim).mkdir()
        tally = cluster_kills.kill(victim, max(1, round(24 * plan.scale)), plan.folder / victim)
        yield Row(victim, tally.cases, dict(tally.ends), tally.findings)


def run_signals(plan: Plan) -> Iterator[Row]:
    """Interrupt and terminate jobs, once and twice."""
    series = [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM)]
    yield from _disturbed(series, SIGNALS, plan)


def _disturbed(series: Sequence[Sequence[int]], cases: Mapping[str, int], plan: Plan) -> Iterator[Row]:
    from kills import disturb

    for index, (name, number) in enumerate(cases.items()):
        if not plan.wants(name):
            continue
        tally = disturb(name, series, max(1, round(number * plan.scale)), plan.folder / f"{index}")
        yield Row(name, tally.cases, {**tally.ends, **tally.stages}, tally.findings)


def run_power(plan: Plan) -> Iterator[Row]:
    """Trace what every job writes, syncs and renames. Needs strace."""
    from jobs import JOBS
    from power import trace

    for index, name in enumerate(name for name in JOBS if plan.wants(name)):
        (plan.folder / f"{index}").mkdir()
        account = trace(name, plan.folder / f"{index}")
        observed = {"files with a final name": account.final, "syncs": account.syncs}
        yield Row(name, 1, observed, account.findings)


REPEATED = ("video", "training", "distillation", "merge", "evaluation", "conversion")
"""Jobs that run again for the comparison of bytes."""


def run_determinism(plan: Plan) -> Iterator[Row]:
    """Compare bytes of results over everything that decides only the speed. Needs Ray for the rows of a cluster."""
    import determinism
    from clusters import has_ray

    most = None if plan.scale >= 1 else max(1, round(7 * plan.scale))
    determinism.save_pictures(plan.folder / "pictures")
    for engine in determinism.engines():
        kinds = [*determinism.ways(("",)), *([determinism.CLUSTER] if has_ray() else [])]
        wanted = [kind for kind in kinds if plan.wants(f"{kind} ({engine})")]
        plain = determinism.plain_results(plan.folder, engine) if wanted else {}
        for kind in wanted:
            check = determinism.check_cluster if kind == determinism.CLUSTER else determinism.check_ways
            yield _determinism_row(f"{kind} ({engine})", check(kind, plan.folder, engine, plain, most))
    for name in (name for name in REPEATED if plan.wants(f"{name} (again)")):
        tally = determinism.repeat_job(name, max(1, round(3 * plan.scale)), plan.folder / name)
        yield _determinism_row(f"{name} (again)", tally)
    for format, times in determinism.ENCODED.items():
        name = f"{format} (encoders)"
        if plan.wants(name):
            yield _determinism_row(name, determinism.repeat_encodings(format, round(times * plan.scale)))


def _determinism_row(name: str, tally: DeterminismTally) -> Row:
    observed: dict[str, int | float] = {"files": tally.files, "equal": tally.equal}
    if tally.retiled:
        observed["on other tiles"] = tally.retiled
    if tally.retiled or not tally.is_exact:
        observed["largest difference, levels"] = tally.levels
    return Row(name, tally.ways, observed, tally.findings)


DISKS = {
    "many small pictures": 24,
    "video": 6,
    "merge": 6,
    "download": 8,
    "conversion": 6,
    "evaluation": 8,
    "training": 8,
}
"""Number of sizes of the disk at scale 1, by job."""

FAULTY = ("many small pictures", "download", "video")
"""Jobs under limits and with failing calls."""


def run_scarcity(plan: Plan) -> Iterator[Row]:
    """Run commands that get too little, or whose files change. Needs Linux, root for disks, and strace for calls."""
    import confined
    import scarcity
    from scarcity import Tally

    def on_disks(folder: Path, tally: Tally) -> None:
        for name, count in DISKS.items():
            scarcity.fill_disks(name, max(1, round(count * plan.scale)), folder / name, tally)

    def under_limits(folder: Path, tally: Tally) -> None:
        for name in FAULTY:
            scarcity.limit(name, list(scarcity.LIMITS)[:: round(1 / plan.scale)], folder / name, tally)

    def with_faults(folder: Path, tally: Tally) -> None:
        for name in FAULTY:
            scarcity.fail_calls(name, scarcity.FAULTS[:: round(1 / plan.scale)], folder / name, tally)

    kinds: dict[str, Callable[[Path, Tally], None]] = {
        "full disks": on_disks,
        "limits of the system": under_limits,
        "failing calls of the system": with_faults,
        "read-only places": scarcity.read_only_places,
        "odd names": scarcity.odd_names,
        "changing inputs": lambda folder, tally: scarcity.changing_inputs(round(36 * plan.scale), folder, tally),
        "wrong clocks": scarcity.clocks,
        "users without a home": confined.users_without_a_home,
        "control groups with little memory": confined.small_groups,
        "several processes": lambda folder, tally: scarcity.several_processes(round(8 * plan.scale), folder, tally),
    }
    for name, starve in kinds.items():
        if plan.wants(name):
            tally = Tally()
            (plan.folder / name).mkdir()
            starve(plan.folder / name, tally)
            yield Row(name, tally.cases, dict(tally.ends), tally.findings)


def run_hostile(plan: Plan) -> Iterator[Row]:
    """Open everything that an attacker would send, in processes with limits, under an audit of what Python does."""
    from hostile import KINDS, open_in_worker

    for name in (name for name in KINDS if plan.wants(name)):
        tally = open_in_worker(name, plan.folder / name)
        most = {"slowest s": round(tally.slowest, 2), "most MiB": tally.largest >> 20}
        yield Row(name, tally.cases, {**tally.outcomes, **most}, tally.findings)


def run_soak(plan: Plan) -> Iterator[Row]:
    """Watch a process over 20,000 small pictures, and processes over mixed pictures for two hours each, at scale 1."""
    from soak import SOAKS, soak_small

    name, every = "small pictures in one run", 10 * min(1.0, plan.scale)
    if plan.wants(name):
        yield _soak_row(name, soak_small(max(30, round(20_000 * plan.scale)), plan.folder / "small", every))
    for index, (name, soak) in enumerate(SOAKS.items()):
        if plan.wants(name):
            yield _soak_row(name, soak(7200 * plan.scale, plan.folder / f"{index}", every))


def _soak_row(name: str, course: Soak) -> Row:
    facts = course.facts()
    return Row(name, course.statuses.total(), facts, course.findings)


LAW_CASES = {"flips and turns under `--ensemble`": 60, "round trips of lossless formats": 600}
"""Number of pictures of a law at scale 1, where it is another than 150: some run 16 times, some run no network."""


def run_laws(plan: Plan) -> Iterator[Row]:
    """Check the laws over pictures of up to 300x300: 150 pictures for most laws at scale 1."""
    from laws import LAWS, check

    for name in (name for name in LAWS if plan.wants(name)):
        findings: list[str] = []
        examples = max(1, round(LAW_CASES.get(name, 150) * plan.scale))
        try:
            tally = check(name, examples, longest=300)
        except Exception as error:  # noqa: BLE001 - whatever a law raises is the finding
            words = " ".join([str(error), *getattr(error, "__notes__", [])]).split()
            findings = [f"{type(error).__name__}: {' '.join(words)}"[:400]]
            yield Row(name, examples, {}, findings)
            continue
        yield Row(name, tally.cases, {**tally.formats, "most pixels": tally.largest, **tally.observed}, findings)


CHECKS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "files": run_files,
    "parsers": run_parsers,
    "coverage": run_coverage,
    "hostile": run_hostile,
    "kills": run_kills,
    "signals": run_signals,
    "power": run_power,
    "scarcity": run_scarcity,
    "soak": run_soak,
    "laws": run_laws,
    "determinism": run_determinism,
}
"""Checks by name; `checks.toml` says what each check promises."""


def main(arguments: Sequence[str]) -> None:
    """Run the checks that are named, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", nargs="*", metavar="CHECK")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases; below 1 nothing is recorded")
    parser.add_argument("--record", action="store_true", help="record the result of a run of fewer cases too")
    parser.add_argument(
        "--rows", default="", help="run only the rows with this text in their names, and keep the others"
    )
    given = parser.parse_args(arguments)
    if not given.check:
        records.PAGE.write_text(records.page(records.load()), encoding="utf-8")
    for name in given.check:
        _run(name, given.scale, given.rows, given.record or given.scale >= 1)


def _run(name: str, scale: float, rows: str, recorded: bool) -> None:
    """Run a check and record what was done, also of a check that is interrupted; old rows stay until they run again."""
    _build_native()
    done: list[Row] = []
    start = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="dsclora-robustness-") as folder:
            os.environ |= {f"DSCLORA_{part}_DIR": f"{folder}/own/{part}" for part in ("CONFIG", "STATE", "CACHE")}
            for row in CHECKS[name](Plan(scale, Path(folder), rows)):
                done.append(row)
                print(f"{name}: {row.name}: {row.cases} {dict(row.outcomes)}", *row.findings, sep="\n    ", flush=True)
    finally:
        if recorded and done:
            records.save(Record(name, done, time.monotonic() - start), merge=bool(rows))


def _build_native() -> None:
    """Compile the native engine next to its sources, as an editable install does; no check may leave the engine out."""
    from native_build import is_current

    from dsclora_cli.inference.native.library import LIBRARY
    from hatch_build import compile_library

    if not is_current(LIBRARY) and (problem := compile_library(LIBRARY.parent, LIBRARY)):
        print(f"the checks run without the native engine: {problem}", file=sys.stderr)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main(sys.argv[1:])
