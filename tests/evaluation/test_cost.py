"""Time and memory of models whose cost is known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from dsclora_cli.config import ModelOptions
from dsclora_cli.evaluation import cost as cost_module
from dsclora_cli.evaluation.cost import MAX_TIMED_IMAGES, TimedModel, measure, timed_indices
from dsclora_cli.weights.resolve import find_weights

EMBEDDED = find_weights(ModelOptions("dsclora-x4"), 4).path
HELD_BYTES = 200_000_000


class Clock:
    """A clock that models set forward, so that measured times are exact."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(cost_module, "perf_counter", clock)
    return clock


class FakeModel:
    """Takes 1 ms for each row of the LR, times `slowness`, and 200 MB for an image of 50 rows."""

    def __init__(self, slowness: int, clock: Clock, calls: list[tuple[int, int]]) -> None:
        self._slowness, self._clock, self._calls = slowness, clock, calls

    def __call__(self, lr: np.ndarray) -> np.ndarray:
        self._calls.append((self._slowness, lr.shape[0]))
        self._clock.seconds += 0.001 * lr.shape[0] * self._slowness
        if lr.shape[0] == 50:
            held = np.ones(HELD_BYTES, np.uint8)
            time.sleep(0.05)  # long enough for the thread that polls memory
            del held
        return np.zeros((lr.shape[0] * 4, lr.shape[1] * 4, 3), np.uint8)


def test_times_are_medians_and_memory_is_measured_on_the_largest_image(clock: Clock) -> None:
    images = [np.zeros((side, 25, 3), np.uint8) for side in (10, 50, 20)]
    (cost,) = measure([TimedModel(EMBEDDED, "cpu", FakeModel(1, clock, []))], images)
    assert (cost.images, cost.size.parameters) == (3, 130_828)
    assert cost.image_ms == pytest.approx(20)
    assert cost.megapixel_ms == pytest.approx(10 / (40 * 100 / 1e6))
    assert cost.peak_bytes > HELD_BYTES


def test_models_take_turns(clock: Clock) -> None:
    calls: list[tuple[int, int]] = []
    models = [TimedModel(EMBEDDED, "cpu", FakeModel(slowness, clock, calls)) for slowness in (1, 3)]
    fast, slow = measure(models, [np.zeros((side, 25, 3), np.uint8) for side in (10, 20)])
    assert calls == [(1, 20), (3, 20), (1, 10), (3, 10), (1, 20), (3, 20)]
    assert slow.image_ms == pytest.approx(3 * fast.image_ms)


@pytest.mark.parametrize("count", [1, 3, MAX_TIMED_IMAGES])
def test_every_image_of_a_small_set_is_timed(count: int) -> None:
    assert timed_indices(count) == list(range(count))


def test_large_sets_are_timed_at_even_intervals() -> None:
    assert timed_indices(100) == list(range(0, 100, 5))
    assert len(set(timed_indices(109))) == MAX_TIMED_IMAGES
