"""Numbers and lines for people."""

from __future__ import annotations

import pytest

from dsclora_cli.cli.ui import amount, duration, failure, sides


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (535137, "535 kB"), (999_999, "1 MB"), (2.5e9, "2.5 GB")]
)
def test_amounts(size: float, text: str) -> None:
    assert amount(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (90, "2 min"), (3725, "1 h 2 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes() -> None:
    assert sides((640, 480)) == "640x480"


def test_a_failure_names_its_file_once() -> None:
    assert failure("a.png", "a.png: is empty", "") == "a.png: is empty"
    assert failure("a.png", "too small", "ask for less") == "a.png: too small (ask for less)"
