"""docs/reliability.md is what the records give, and every record is small and of a known check."""

from __future__ import annotations

import pytest
from environments import row_of
from records import PAGE, RESULTS, TEXTS, load, page


def test_the_page_is_made_of_the_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(load()), "run: python tests/robustness/run.py"


def test_records_are_small_and_of_known_checks() -> None:
    records = load()
    assert records and {record.check for record in records} <= set(TEXTS)
    assert sum(path.stat().st_size for path in RESULTS.iterdir()) < 100_000


def test_a_run_of_the_fast_tests_is_a_row() -> None:
    log = "FAILED tests/a.py::test_b - no\n== 1 failed, 20 passed, 3 skipped in 61.50s (0:01:01) ==\n"
    row = row_of("lowest versions", log)
    assert row.cases == 24 and list(row.findings) == ["tests/a.py::test_b"]
    assert (row.outcomes["passed"], row.outcomes["seconds"]) == (20, 62) and "torch" in row.outcomes
    row = row_of("lowest versions", log, "== 1 passed in 1.50s ==")
    assert row.outcomes["passed when run again"] == 1 and list(row.findings) == []


def test_a_run_that_did_not_end_is_no_row() -> None:
    with pytest.raises(ValueError, match="did not come to its end"):
        row_of("lowest versions", "....... [ 70%]")
