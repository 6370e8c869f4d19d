"""Scores on held-out pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from training import photographs, tiny_recipe

from dsclora_cli.datasets.patches import open_data
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.training.validation import mean_psnr, validate


def test_held_out_pictures_are_upscaled_whole_and_scored_as_eval_scores(tmp_path: Path) -> None:
    _, held_out = open_data(tiny_recipe(photographs(tmp_path / "photos")))
    torch.manual_seed(1)
    network = SPAN(SpanConfig(channels=4, blocks=1, scale=2)).eval()
    samples = validate(network, held_out, torch.device("cpu"))

    assert len(samples) == 2
    for sample, (name, lr, hr) in zip(samples, held_out.load(), strict=True):
        assert sample.name == name and np.array_equal(sample.lr, lr) and np.array_equal(sample.hr, hr)
        with torch.no_grad():
            output = network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0)
        expected = (output.clamp(0, 1) * 255).round().numpy()
        assert np.abs(sample.sr - expected).max() <= 1  # fused operations round differently
        assert sample.psnr_y == psnr_y(sample.sr, hr, 2)
    assert mean_psnr(samples) == pytest.approx(np.mean([sample.psnr_y for sample in samples]))
