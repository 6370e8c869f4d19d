"""Time and memory of work whose cost is known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dsclora_cli.config import ModelOptions
from dsclora_cli.evaluation.cost import MOST_IMAGES, Work, measure, spread
from dsclora_cli.weights.resolve import find_weights

EMBEDDED = find_weights(ModelOptions("dsclora-x4"), 4).path


class Sleeper:
    """Takes 1 ms for each row of the LR, times `slowness`, and 200 MB for the largest."""

    def __init__(self, slowness: int, seen: list[tuple[int, int]]) -> None:
        self._slowness, self._seen = slowness, seen

    def __call__(self, lr: np.ndarray) -> np.ndarray:
        self._seen.append((self._slowness, lr.shape[0]))
        held = np.ones(200_000_000, np.uint8) if lr.shape[0] == 50 else None
        time.sleep(0.001 * lr.shape[0] * self._slowness)
        del held
        return np.zeros((lr.shape[0] * 4, lr.shape[1] * 4, 3), np.uint8)


def test_times_are_medians_and_memory_is_that_of_the_largest() -> None:
    images = [np.zeros((side, 25, 3), np.uint8) for side in (10, 50, 20)]
    (cost,) = measure([Work(EMBEDDED, "cpu", Sleeper(1, []))], images)
    assert (cost.images, cost.size.parameters) == (3, 130_828)
    assert 20 <= cost.image_ms < 50
    assert cost.megapixel_ms == pytest.approx(10 / (40 * 100 / 1e6), rel=0.5)
    assert cost.peak_bytes > 200_000_000


def test_networks_take_turns() -> None:
    seen: list[tuple[int, int]] = []
    works = [Work(EMBEDDED, "cpu", Sleeper(slowness, seen)) for slowness in (1, 3)]
    fast, slow = measure(works, [np.zeros((side, 25, 3), np.uint8) for side in (10, 20)])
    assert seen == [(1, 20), (3, 20), (1, 10), (3, 10), (1, 20), (3, 20)]
    assert slow.image_ms > 2 * fast.image_ms


@pytest.mark.parametrize(("count", "indices"), [(1, [0]), (3, [0, 1, 2]), (MOST_IMAGES, list(range(MOST_IMAGES)))])
def test_small_sets_are_timed_whole(count: int, indices: list[int]) -> None:
    assert spread(count) == indices


def test_of_large_sets_an_even_share_is_timed() -> None:
    assert spread(100) == list(range(0, 100, 5))
    assert len(set(spread(109))) == MOST_IMAGES
