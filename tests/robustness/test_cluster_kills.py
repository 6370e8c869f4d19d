"""Run the short form of kills on a Ray cluster; `run.py kills` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_kills import DRIVER, WORKER, kill
from clusters import require_ray

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("victim", "cases"), [(DRIVER, 3), (WORKER, 2)])
def test_a_killed_process_leaves_whole_results_and_the_rest_follows(victim: str, cases: int, tmp_path: Path) -> None:
    require_ray()
    tally = kill(victim, cases, tmp_path)
    assert tally.findings == [] and tally.cases == cases
