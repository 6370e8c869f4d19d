"""Record a run of the fast tests in the environment that runs this script: `environments.py NAME LOG [LATER-LOG]`.

LOG is what pytest has written, and LATER-LOG what a later run of the tests that failed has written. The versions are
those of the environment.
"""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import records
from records import Record, Row

SHOWN = ("torch", "numpy", "pillow", "tifffile", "imagecodecs", "huggingface-hub", "openvino", "pillow-heif", "ray")
"""Packages whose versions stand in the row."""

_SUMMARY = re.compile(r"(\d+ (?:failed|passed|skipped|errors?|warnings?|deselected)\b.*) in ([\d.]+)s")
_FINDING = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


def row_of(name: str, log: str, later: str = "") -> Row:
    """Return the row of a run by the last line of pytest. Raises ValueError for a log without such a line."""
    counts, seconds = _count(log)
    observed: dict[str, int | float | str] = {**counts, "seconds": round(seconds)}
    if later:
        observed["passed when run again"] = _count(later)[0].get("passed", 0)
    for package in SHOWN:
        try:
            observed[package] = version(package)
        except PackageNotFoundError:
            continue
    title = f"{name}, Python {platform.python_version()}"
    return Row(title, sum(counts.values()), observed, _FINDING.findall(later or log))


def _count(log: str) -> tuple[dict[str, int], float]:
    """Return the number of tests by outcome, and the seconds."""
    summaries = _SUMMARY.findall(log)
    if not summaries:
        raise ValueError("pytest did not come to its end")
    ended, seconds = summaries[-1]
    counts = re.findall(r"(\d+) (failed|passed|skipped|errors?)", ended)
    return {kind: int(number) for number, kind in counts}, float(seconds)


if __name__ == "__main__":
    _row = row_of(sys.argv[1], *(Path(each).read_text(encoding="utf-8") for each in sys.argv[2:]))
    records.save(Record("supply", [_row], float(_row.outcomes["seconds"])), merge=True)
