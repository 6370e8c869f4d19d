"""Paired comparisons of two rows, checked against values from the normal distribution or by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dsclora_cli.evaluation.statistics import Comparison, compare_rows

NAMES = ("ours", "theirs")


def test_a_constant_gain_has_an_interval_of_no_width() -> None:
    result = compare_rows(NAMES, "psnr_y", [30.5, 31.5, 29.5], [30.0, 31.0, 29.0])
    assert result == Comparison("ours", "theirs", "psnr_y", 0.5, 0.5, 0.5, 3, 0, 0, 0)


def test_the_interval_is_that_of_the_normal_distribution_for_many_images() -> None:
    rng = np.random.default_rng(3)
    theirs = rng.normal(28, 4, 400)
    gains = rng.normal(0.02, 0.1, 400)
    result = compare_rows(NAMES, "psnr_y", list(theirs + gains), list(theirs))
    error = gains.std() / math.sqrt(400)
    assert result.difference == pytest.approx(gains.mean())
    assert result.low == pytest.approx(gains.mean() - 1.96 * error, abs=0.1 * error)
    assert result.high == pytest.approx(gains.mean() + 1.96 * error, abs=0.1 * error)
    assert (result.wins, result.losses, result.ties) == ((gains > 0).sum(), (gains < 0).sum(), 0)


def test_images_are_paired_before_the_interval_is_computed() -> None:
    theirs = [20.0, 25.0, 30.0, 35.0, 40.0]
    result = compare_rows(NAMES, "psnr_y", [value + 0.01 for value in theirs], theirs)
    assert 0.009 < result.low <= result.high < 0.011


def test_equal_scores_give_an_equal_interval() -> None:
    rows = list(np.random.default_rng(0).normal(30, 1, 20)), list(np.random.default_rng(1).normal(30, 1, 20))
    assert compare_rows(NAMES, "psnr_y", *rows) == compare_rows(NAMES, "psnr_y", *rows)


def test_infinite_scores_count_as_wins_but_not_in_the_mean() -> None:
    inf = math.inf
    result = compare_rows(NAMES, "psnr_y", [inf, inf, 31.0, 29.0], [30.0, inf, 30.0, 30.0])
    assert (result.wins, result.losses, result.ties, result.infinite) == (2, 1, 1, 2)
    assert result.difference == 0
    assert compare_rows(NAMES, "psnr_y", [inf], [inf]) == Comparison(*NAMES, "psnr_y", None, None, None, 0, 0, 1, 1)
