"""Scores that the catalog states, next to measured scores."""

from __future__ import annotations

import pytest
from evaluations import ENTRY, STATED

from dsclora_cli.evaluation.statistics import compare_published


def test_each_stated_score_of_the_set_is_compared() -> None:
    claims = compare_published(STATED, "set5", {"psnr_y": 31.75, "ssim_y": 0.8891, "psnr_rgb": 29.85})
    assert [(each.kind, each.metric, each.differs) for each in claims] == [
        ("published", "psnr_y", True),
        ("published", "ssim_y", False),
        ("reference", "psnr_rgb", False),
    ]
    assert claims[0].difference == pytest.approx(0.05)


@pytest.mark.parametrize(("measured", "differs"), [(31.71, False), (31.69, False), (31.7101, True), (31.6899, True)])
def test_more_than_a_hundredth_of_a_decibel_is_marked(measured: float, differs: bool) -> None:
    (claim,) = compare_published(STATED, "Set5", {"psnr_y": measured})
    assert claim.differs is differs


def test_without_a_stated_or_a_measured_score_there_is_no_claim() -> None:
    assert compare_published(STATED, "Urban100", {"psnr_y": 26.0}) == ()
    assert compare_published(STATED, "Set5", {"lpips": 0.1}) == ()
    assert compare_published(ENTRY, "Set5", {"psnr_y": 31.0}) == ()
