"""Recorded results of the long forms, and the page `docs/reliability.md` that is made of them.

A record is a small JSON file in `results/`. `python tests/robustness/run.py` without a name writes the page again.
"""

from __future__ import annotations

import json
import platform
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


@dataclass
class Row:
    """One line of the table: a kind of case, with counts."""

    name: str
    cases: int
    outcomes: Mapping[str, int | float | str] = field(default_factory=dict)
    """What was observed, by name."""

    findings: Sequence[str] = ()
    """One line for everything that was wrong in the recorded run; empty where all was right."""


@dataclass
class Record:
    """Results of one check."""

    check: str
    """Name of the check, as `run.py` takes the name."""

    rows: Sequence[Row]

    seconds: float

    day: str = ""
    machine: str = ""


def save(record: Record, merge: bool = False) -> None:
    """Write a record with day and machine, and the page; with `merge`, only rows of the same name change."""
    before = next((old for old in load() if old.check == record.check), None) if merge else None
    if before:
        new = {row.name: row for row in record.rows}
        kept = [new.pop(row.name, row) for row in before.rows]
        record.rows = [*kept, *new.values()]
        record.seconds += before.seconds
    record.day = datetime.now(UTC).date().isoformat()
    record.machine = f"{platform.machine()}, Python {platform.python_version()}"
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(asdict(record), indent=1, ensure_ascii=False)
    (RESULTS / f"{record.check}.json").write_text(text + "\n", encoding="utf-8")
    PAGE.write_text(page(load()), encoding="utf-8")


def load() -> list[Record]:
    """Return all records, in the order of the page."""
    found = []
    for path in RESULTS.glob("*.json"):
        fields = json.loads(path.read_text(encoding="utf-8"))
        found.append(Record(**{**fields, "rows": [Row(**row) for row in fields["rows"]]}))
    return sorted(found, key=lambda record: list(TEXTS).index(record.check))


TEXTS: dict[str, dict[str, Any]] = tomllib.loads((Path(__file__).parent / "checks.toml").read_text(encoding="utf-8"))
"""Title, promise and mended faults of each check, in the order of the page."""


def page(records: Sequence[Record]) -> str:
    """Return `docs/reliability.md`."""
    return "\n".join([*_head(records), *(line for record in records for line in _section(record)), ""])


def _head(records: Sequence[Record]) -> Iterator[str]:
    yield from (
        "# Reliability",
        "",
        "Counts of what was tried against dsclora, and of what was found. A script writes this page from recorded",
        "results in `tests/robustness/results`; nobody types a number:",
        "",
        "```",
        "python tests/robustness/run.py            # write this page again",
        "python tests/robustness/run.py CHECK      # run a check in its long form, record the result, write this page",
        "```",
        "",
        "Short forms of all checks run with the other slow tests (`pytest -m slow tests/robustness`).",
        "[Security](security.md) says what is promised.",
        "",
        "The same input, settings and machine give the same bytes, for any order and number of inputs, threads,",
        "shards, processes and workers of a Ray cluster: [Same bytes](#same-bytes). A training run on",
        "a CPU gives the same weights whether or not the run was stopped and resumed. The same bytes are not",
        "promised for another engine, device, number type or version of a library, nor for training on a GPU or",
        "with another number of threads. Another tile size, also one that little memory leads to, may change a",
        "value by one level of 255, because the halo of a tile is shorter than the reach of the network.",
        "With `--engine torch`, another number of threads may change a value by a level too, because PyTorch adds",
        "in another order; the native engine gives the same bytes.",
        "",
        "| check | cases | findings in the recorded run | faults found before and mended | seconds | day |",
        "| --- | --- | --- | --- | --- | --- |",
    )
    for record in records:
        cases, wrong = sum(row.cases for row in record.rows), sum(len(row.findings) for row in record.rows)
        title, fixed = TEXTS[record.check]["title"], len(TEXTS[record.check].get("fixed", ()))
        link = f"[{title}](#{title.lower().replace(',', '').replace(' ', '-')})"
        yield f"| {link} | {cases:,} | {wrong} | {fixed} | {record.seconds:,.0f} | {record.day} |"
    yield ""


def _section(record: Record) -> Iterator[str]:
    texts = TEXTS[record.check]
    command = texts.get("command", f"`python tests/robustness/run.py {record.check}`") + f", {record.machine}."
    yield from (f"## {texts['title']}", "", *textwrap.wrap(texts["promise"].strip(), 120), "", command, "")
    yield from ("| kind | cases | observed | findings |", "| --- | --- | --- | --- |")
    for row in record.rows:
        observed = ", ".join(f"{name} {_number(value)}" for name, value in row.outcomes.items())
        yield f"| {row.name} | {row.cases:,} | {observed} | {len(row.findings)} |"
    yield ""
    if notes := texts.get("notes"):
        yield from (*notes.strip().splitlines(), "")
    findings = [f"- open: {row.name}: {finding}" for row in record.rows for finding in row.findings]
    yield from ([*findings, ""] if findings else [])
    if fixed := texts.get("fixed"):
        yield from ("Found by this check, and mended, each with a test:", "", *(f"- {fault}" for fault in fixed), "")


def _number(value: float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if isinstance(value, float) else value
