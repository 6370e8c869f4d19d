"""The short form of the long runs; `run.py soak` is the long form."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from soak import SOAKS, WARM_UP_RUNS, Sample, Soak, fill_mixed, soak_small

_OF_HOURS = "memory grows"
_PACE = "pictures in a processor second"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="counts open descriptors")


@pytest.mark.slow
def test_many_small_pictures_in_one_run(tmp_path: Path) -> None:
    course = soak_small(300, tmp_path, every=0.5)
    facts = course.facts()
    assert course.findings == [], facts
    assert course.statuses == {"done": 300} and facts["minutes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOAKS)
def test_mixed_pictures_in_one_process(name: str, tmp_path: Path) -> None:
    if "watched" in name:
        pytest.importorskip("watchfiles")
    course = SOAKS[name](45, tmp_path / "soak", every=1)
    facts = course.facts()
    # In a minute, memory and pace follow the sizes of the pictures: up and down by 600 MB. The long form judges both.
    assert [each for each in course.findings if not each.startswith(_OF_HOURS) and _PACE not in each] == [], facts
    assert course.statuses["done"] >= 20 and course.statuses["failed"] and facts["minutes"]


def _course(hours: float, memory: float = 0, descriptors: float = 0, pace: float = 1) -> Soak:
    """A course of two hours in which values grow in an hour by so much."""
    samples = [
        Sample(
            second, second / 2, 10**8 + int(memory * second / 3600), 9 + int(descriptors * second / 3600), 4, pictures
        )
        for second in range(0, round(hours * 3600), 10)
        for pictures in [second if second < hours * 1800 else round(hours * 1800 + pace * (second - hours * 1800))]
    ]
    return Soak(samples, warm_up=WARM_UP_RUNS)


@pytest.mark.parametrize(
    ("course", "finding"),
    [
        (_course(2), ""),
        (_course(2, memory=15 * 2**20), ""),
        (_course(2, memory=25 * 2**20), "memory grows by 25.0 MiB in an hour"),
        (_course(2, descriptors=5), "descriptors grow by"),
        (_course(2, pace=0.4), "pictures in a processor second at first, 0.8 at the end"),
        # Less than two warm-ups show gross faults only.
        (_course(0.2, memory=100 * 2**20), ""),
        (_course(0.2, memory=4 * 2**40), "memory grows by"),
        (_course(0.005), "only 1 samples after the warm-up"),
    ],
)
def test_limits_of_a_course(course: Soak, finding: str) -> None:
    facts = course.facts()
    assert len(course.findings) == bool(finding) and finding in "".join(course.findings)
    assert bool(facts) == ("samples" not in finding)


def test_equal_numbers_give_equal_files(tmp_path: Path) -> None:
    names = [fill_mixed(tmp_path / place, 3) for place in "ab"]
    assert sorted(names[0]) == sorted(names[1]) and len(names[0]) == 29
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names[0])
