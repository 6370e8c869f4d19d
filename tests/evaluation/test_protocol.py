"""Protocols, the rule for means, and the extra metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.evaluation.protocol import Scorer, protocol_of
from dsclora_cli.evaluation.statistics import finite_mean
from dsclora_cli.imaging.metrics import crop_border, luma, psnr, psnr_y, ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 256, (40, 36, 3), np.uint8)
    return (truth + rng.normal(0, 9, truth.shape)).clip(0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_paper_protocol_scores_y_and_rgb_inside_a_border_of_the_scale(pair, scale: int) -> None:
    scorer = Scorer(protocol_of("paper", scale), {})
    inside = [crop_border(image, scale) for image in pair]
    assert scorer(*pair, "a") == {
        "psnr_y": psnr_y(*pair, scale),
        "ssim_y": ssim(*map(luma, inside)),
        "psnr_rgb": psnr(*inside),
        "ssim_rgb": ssim(*inside),
    }
    assert scorer.metrics == ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")


@pytest.mark.parametrize("scale", [2, 4])
def test_the_ntire_protocol_scores_rgb_inside_a_border_of_four(pair, scale: int) -> None:
    assert Scorer(protocol_of("ntire", scale), {})(*pair, "a") == {"psnr_rgb": psnr(*[crop_border(i, 4) for i in pair])}


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(UsageError, match=r"no protocol is called 'y' \(choose paper or ntire\)"):
        protocol_of("y", 4)


def test_extra_metrics_score_the_whole_image(pair) -> None:
    scorer = Scorer(protocol_of("ntire", 4), {"mean": lambda result, truth: float(result.mean() - truth.mean())})
    scores = scorer(*pair, "a")
    assert list(scores) == ["psnr_rgb", "mean"] == list(scorer.metrics)
    assert scores["mean"] == pair[0].mean() - pair[1].mean()


def test_an_image_too_small_for_ssim_is_an_error_that_names_it() -> None:
    tiny = np.zeros((40, 18, 3), np.uint8)
    with pytest.raises(ImageError, match=r"icon: 18x40 pixels are too few to score \(19 on each side are needed\)"):
        Scorer(protocol_of("paper", 4), {})(tiny, tiny, "icon")


def test_the_mean_leaves_out_infinite_scores() -> None:
    assert finite_mean([30.0, math.inf, 32.0]) == 31.0
    assert finite_mean([math.inf, math.inf]) == math.inf
