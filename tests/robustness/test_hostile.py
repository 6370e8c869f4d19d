"""Hostile files of every kind: refused or left out, and nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import KINDS, open_in_worker

LEAST = {
    "weights": 150,
    "archives": 150,
    "archives behind zip://": 200,
    "catalogues": 60,
    "caches": 60,
    "pictures": 60,
    "hubs": 50,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_refused_and_nothing_runs(kind: str, tmp_path: Path) -> None:
    tally = open_in_worker(kind, tmp_path / kind)
    assert tally.findings == []
    assert tally.cases >= LEAST[kind] and tally.outcomes["refused"] + tally.outcomes["left out"] > tally.cases // 2
