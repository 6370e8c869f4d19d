"""Protocols, the rule for means, and the extra metrics."""

from __future__ import annotations

import math
from pathlib import Path

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
    assert scorer(*pair) == {
        "psnr_y": psnr_y(*pair, scale),
        "ssim_y": ssim(*map(luma, inside)),
        "psnr_rgb": psnr(*inside),
        "ssim_rgb": ssim(*inside),
    }
    assert scorer.metrics == ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")


@pytest.mark.parametrize("scale", [2, 4])
def test_the_ntire_protocol_scores_rgb_inside_a_border_of_four(pair, scale: int) -> None:
    assert Scorer(protocol_of("ntire", scale), {})(*pair) == {"psnr_rgb": psnr(*[crop_border(i, 4) for i in pair])}


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(UsageError, match=r"no protocol is called 'y' \(choose paper or ntire\)"):
        protocol_of("y", 4)


def test_extra_metrics_score_the_whole_image(pair) -> None:
    scorer = Scorer(protocol_of("ntire", 4), {"mean": lambda result, truth: float(result.mean() - truth.mean())})
    scores = scorer(*pair)
    assert list(scores) == ["psnr_rgb", "mean"] == list(scorer.metrics)
    assert scores["mean"] == pair[0].mean() - pair[1].mean()


@pytest.mark.parametrize(("protocol", "scale", "needed"), [("paper", 4, 20), ("paper", 1, 13), ("ntire", 2, 20)])
def test_pictures_of_the_size_that_an_error_names_are_scored(protocol: str, scale: int, needed: int) -> None:
    chosen, icon = protocol_of(protocol, scale), Path("icon.png")
    message = rf"icon\.png has 40 x {needed - 1} pixels, too few to score at x{scale} \(.* at least {needed} pixels"
    with pytest.raises(ImageError, match=message):
        chosen.check_size(icon, (40, needed - 1), scale)
    chosen.check_size(icon, (needed, 40), scale)
    cropped = np.zeros((needed // scale * scale, 40, 3), np.uint8)
    assert set(Scorer(chosen, {})(cropped, cropped)) == set(chosen.metrics)


def test_the_mean_leaves_out_infinite_scores() -> None:
    assert finite_mean([30.0, math.inf, 32.0]) == 31.0
    assert finite_mean([math.inf, math.inf]) == math.inf
