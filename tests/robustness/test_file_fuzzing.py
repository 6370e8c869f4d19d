"""The short form of the fuzzing of files; `run.py files` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_fuzzing import OPTIONS, fuzz, mutated_files


@pytest.mark.slow
def test_mutated_files_have_a_right_account_each(tmp_path: Path) -> None:
    tally = fuzz(range(1000, 1000 + len(OPTIONS)), 20, tmp_path)
    assert tally.findings == []
    assert tally.files == 20 * len(OPTIONS) and tally.outcomes["image-unreadable"] > 20 and tally.outcomes["done"] > 20


def test_equal_numbers_give_equal_files() -> None:
    first, second = dict(mutated_files(7, 9)), dict(mutated_files(7, 9))
    assert first == second != dict(mutated_files(8, 9))
