"""NIQE equals BasicSR's `calculate_niqe` (basicsr 1.4.2, border 0), from which all expected numbers come."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.imaging.niqe import niqe
from dsclora_cli.imaging.resize import matlab_bicubic

PHOTO = Path(__file__).parents[2] / "examples" / "photo.png"
# With numbers of the authors' code in MATLAB R2021a for baboon, as BasicSR prints it: 5.72957338.
MEASURED = {
    "Set5/HR/baby.png": 3.26549,
    "Set5/HR/bird.png": 4.36208,
    "Set5/HR/head.png": 8.35049,
    "Set14/HR/baboon.png": 5.72957,
    "Set14/HR/comic.png": 4.13884,
    "Set14/HR/ppt3.png": 5.44766,
}


@pytest.fixture
def grain() -> np.ndarray:
    """An enlarged photograph with grain, `(480, 720, 3)`."""
    noise = np.random.default_rng(0).normal(0, 8, (480, 720, 3))
    return np.clip(np.rint(_large() + noise), 0, 255).astype(np.uint8)


def _large() -> np.ndarray:
    return matlab_bicubic(np.array(Image.open(PHOTO).convert("RGB")), 480, 720)


def test_made_pictures_have_the_scores_of_basicsr(grain: np.ndarray) -> None:
    assert niqe(_large()) == pytest.approx(7.704694, abs=1e-3)
    assert niqe(grain) == pytest.approx(9.206317, abs=1e-3)
    assert niqe(matlab_bicubic(grain, 200, 300)) == pytest.approx(5.023265, abs=1e-3)


def test_flat_areas_count_as_in_basicsr(grain: np.ndarray) -> None:
    grain[:, :300] = 200  # without rounding to float32 the score is 0.1 to 0.3 off
    assert niqe(grain) == pytest.approx(15.403674, abs=1e-3)


@pytest.mark.parametrize("name", MEASURED)
def test_benchmark_pictures_have_the_scores_of_basicsr(shared: Path, name: str) -> None:
    picture = np.array(Image.open(shared / "data/benchmarks" / name).convert("RGB"))
    assert niqe(picture) == pytest.approx(MEASURED[name], abs=1e-3)


def test_pixels_beyond_the_last_whole_block_do_not_count(grain: np.ndarray) -> None:
    assert niqe(grain[:200, :300]) == niqe(grain[:192, :288])


@pytest.mark.parametrize("shape", [(95, 400), (96, 191), (1, 1)])
def test_fewer_than_two_blocks_have_no_score(grain: np.ndarray, shape: tuple[int, int]) -> None:
    assert niqe(grain[: shape[0], : shape[1]]) == math.inf
    assert math.isfinite(niqe(grain[:96, :192])) and math.isfinite(niqe(grain[:192, :96]))


@pytest.mark.filterwarnings("error")
def test_a_picture_without_contrast_has_no_score() -> None:
    assert niqe(np.full((400, 400, 3), 77, np.uint8)) == math.inf
