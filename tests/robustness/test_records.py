"""docs/reliability.md is what the records give, and no finding stays open without a word."""

from __future__ import annotations

from records import PAGE, RESULTS, TEXTS, load, page


def test_the_page_is_made_of_the_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(load()), "run: python tests/robustness/run.py"


def test_records_are_small_and_of_known_checks() -> None:
    records = load()
    assert records and {record.check for record in records} <= set(TEXTS)
    assert sum(path.stat().st_size for path in RESULTS.iterdir()) < 100_000
