"""The short form of kills and signals; `run.py kills` and `run.py signals` are the long forms."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from kills import disturb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent to one process on Windows"),
]


@pytest.mark.parametrize(("name", "cases"), [("many small pictures", 6), ("download", 4), ("merge", 2), ("video", 2)])
def test_a_killed_job_leaves_whole_results_and_ends_the_same_when_started_again(
    name: str, cases: int, tmp_path: Path
) -> None:
    tally = disturb(name, [(signal.SIGKILL,)], cases, tmp_path, seed=1)
    assert tally.findings == [] and tally.cases == cases


def test_signals_once_and_twice_end_a_job_cleanly(tmp_path: Path) -> None:
    series = [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM)]
    tally = disturb("many small pictures", series, 8, tmp_path, seed=1)
    assert tally.findings == [] and tally.cases == 8
