"""Hostile files of every kind: refused or left out, and nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile import KINDS, open_all

LEAST = {"weights": 150, "archives": 60, "catalogues": 30, "caches": 60, "pictures": 60}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_refused_and_nothing_runs(kind: str, tmp_path: Path) -> None:
    tally = open_all(kind, tmp_path / kind)
    assert tally.findings == []
    assert tally.cases >= LEAST[kind] and tally.outcomes["refused"] + tally.outcomes["left out"] > tally.cases // 2
