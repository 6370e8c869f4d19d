"""Means, comparisons and worst images, from the scores of all rows."""

from __future__ import annotations

import math

from evaluations import STATED

from dsclora_cli.evaluation.protocol import protocol_of
from dsclora_cli.evaluation.report import Worst
from dsclora_cli.evaluation.statistics import summarize, worst_images

PAPER = protocol_of("paper", 4)
SCORES = {
    "bicubic": {"a": {"psnr_y": 28.0}, "b": {"psnr_y": math.inf}, "c": {"psnr_y": 20.0}},
    "first": {"a": {"psnr_y": 30.0}, "b": {"psnr_y": math.inf}, "c": {"psnr_y": 19.0}},
    "second": {"a": {"psnr_y": 31.0}, "b": {"psnr_y": 50.0}, "c": {"psnr_y": 19.5}},
}
NO_ENTRIES = dict.fromkeys(SCORES)


def test_means_leave_out_infinite_scores_and_count_them() -> None:
    rows, _ = summarize("Set5", SCORES, PAPER, NO_ENTRIES)
    assert [(row.name, row.mean, row.infinite) for row in rows] == [
        ("bicubic", {"psnr_y": 24.0}, {"psnr_y": 1}),
        ("first", {"psnr_y": 24.5}, {"psnr_y": 1}),
        ("second", {"psnr_y": (31.0 + 50.0 + 19.5) / 3}, {}),
    ]


def test_models_are_compared_with_the_first_model_not_with_the_baseline() -> None:
    _, (comparison,) = summarize("Set5", SCORES, PAPER, NO_ENTRIES)
    assert (comparison.row, comparison.against, comparison.metric) == ("second", "first", "psnr_y")
    assert (comparison.wins, comparison.losses, comparison.infinite) == (2, 1, 1)
    one = {name: SCORES[name] for name in ("bicubic", "first")}
    assert summarize("Set5", one, PAPER, NO_ENTRIES)[1] == ()


def test_published_scores_are_compared_under_the_paper_protocol_only() -> None:
    entries = {**NO_ENTRIES, "first": STATED}
    rows, _ = summarize("Set14", SCORES, PAPER, entries)
    assert [len(row.claims) for row in rows] == [0, 1, 0]
    assert rows[1].claims[0].differs
    rgb = {name: {"a": {"psnr_rgb": 30.0}} for name in SCORES}
    rows, _ = summarize("Set5", rgb, protocol_of("ntire", 2), entries)
    assert [len(row.claims) for row in rows] == [0, 0, 0]


def test_the_worst_images_have_the_least_gain_over_the_baseline() -> None:
    assert worst_images(SCORES, "psnr_y", 1) == (Worst("first", "c", -1.0), Worst("second", "b", -math.inf))
    assert worst_images(SCORES, "psnr_y", 2)[:2] == (Worst("first", "c", -1.0), Worst("first", "b", 0.0))
    assert len(worst_images(SCORES, "psnr_y", 99)) == 6
    assert worst_images(SCORES, "psnr_y", 0) == ()
