"""Mutated bytes for the parsers of this project: in this process, or guided by coverage with the package atheris."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from mutations import edit_text, mutate

if TYPE_CHECKING:
    from parsers import Parser

SLOW = 2.0
"""Seconds of processor time above which one input of a few kilobytes is a finding."""


@dataclass
class ParserTally:
    """Counts and findings of one parser."""

    inputs: int = 0
    refused: int = 0
    findings: dict[str, str] = field(default_factory=dict)
    """Kind and place of an exception to its last line and the input in hex; every place is reported once."""

    slowest: float = 0.0
    """Seconds of the slowest input."""

    processor: float = 0.0
    """Seconds of processor time of all inputs; a busy machine leaves a fuzzer with a part of the time."""

    def run(self, parser: Parser, data: bytes) -> None:
        """Parse one input, and note what was wrong."""
        self.inputs += 1
        start = time.process_time()
        try:
            parser.parse(data)
        except parser.allowed as error:
            self.refused += 1
            if hasattr(error, "hint") and "\n" in str(error):
                self.findings.setdefault("message of several lines", f"{error} {data[:200].hex()}")
        except Exception as error:  # noqa: BLE001 - every other exception is what the harness looks for
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} in {frame.filename.rpartition('/')[2]}:{frame.name}"
            self.findings.setdefault(place, f"{error!s:.200} {data[:400].hex()}")
        taken = time.process_time() - start
        self.slowest = max(self.slowest, taken)
        self.processor += taken
        if taken > SLOW:
            self.findings.setdefault("slow", f"{taken:.1f} s {data[:400].hex()}")


def fuzz_parser(name: str, inputs: int, seed: int = 0) -> ParserTally:
    """Run a number of mutated inputs through a parser; equal arguments give equal inputs."""
    from parsers import PARSERS  # not above: atheris has to instrument the import

    parser, random, tally = PARSERS[name], Random(f"{name} {seed}"), ParserTally()
    seeds = parser.seeds()
    for data in seeds:
        parser.parse(data) if not parser.allowed else tally.run(parser, data)
    for _ in range(inputs):
        data = random.choice(seeds)
        for _ in range(random.choice((1, 1, 2, 4))):
            text = parser.is_text and random.random() < 0.7
            data = edit_text(data, random) if text else mutate(data, random.choice(seeds), random)
        tally.run(parser, data)
    return tally


def fuzz_by_coverage(name: str, seconds: int, report: Path) -> ParserTally:
    """Fuzz a parser with atheris, in a process of its own, for a time; atheris is not a dependency of this package."""
    command = [sys.executable, __file__, name, str(seconds), str(report)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=seconds * 2 + 300, env=environment
    )
    if not report.exists():
        raise RuntimeError(f"atheris did not run: {done.stderr[-500:]}")
    tally = ParserTally(**json.loads(report.read_text(encoding="utf-8")))
    # libFuzzer ends with another code after a time-out, after too much memory, and after a crash of a C extension.
    if done.returncode != 0:
        tally.findings["end of the process"] = f"code {done.returncode}: {done.stderr[-300:]}"
    return tally


def _guided(name: str, seconds: int, report: str) -> None:
    """Run atheris, which ends the process, and write the tally as JSON to the path `report`."""
    import atheris

    with atheris.instrument_imports(include=["dsclora_cli"]):
        from parsers import PARSERS

    tally, parser, last = ParserTally(), PARSERS[name], [0.0]
    folder = Path(report).with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for index, data in enumerate(parser.seeds()):
        (folder / f"seed-{index}").write_bytes(data)

    def run(data: bytes) -> None:
        before = len(tally.findings)
        tally.run(parser, data)
        now = time.monotonic()
        # The process ends without returning, so the report is written again and again.
        if len(tally.findings) > before or now - last[0] > 1:
            last[0] = now
            Path(report).write_text(json.dumps(vars(tally)), encoding="utf-8")

    limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=3000", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={folder}/", str(folder)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    _guided(sys.argv[1], int(sys.argv[2]), sys.argv[3])
