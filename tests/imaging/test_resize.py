"""MATLAB's bicubic, compared with the official LR files, and on other shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.imaging.resize import downscale, halve_plane, matlab_bicubic


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), [("Set5", 2), ("Set5", 3), ("Set5", 4), ("Set14", 2), ("Set14", 4)])
def test_equals_every_official_lr_file(shared: Path, name: str, scale: int) -> None:
    folder = shared / "data/benchmarks" / name
    files = sorted((folder / f"LR_bicubic/X{scale}").iterdir())
    assert len(files) == {"Set5": 5, "Set14": 14}[name]
    for file in files:
        hr = np.array(Image.open(folder / "HR" / f"{file.stem.removesuffix(f'x{scale}')}.png").convert("RGB"))
        lr = np.array(Image.open(file).convert("RGB"))
        np.testing.assert_array_equal(downscale(hr, scale), lr, err_msg=file.name)


def test_gray_equals_rgb_of_three_equal_channels() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (37, 23), dtype=np.uint8)
    rgb = matlab_bicubic(np.repeat(gray[:, :, None], 3, axis=2), 11, 40)
    np.testing.assert_array_equal(matlab_bicubic(gray, 11, 40), rgb[:, :, 0])


def test_flat_pictures_stay_flat_and_an_equal_size_changes_nothing() -> None:
    flat = np.full((9, 7, 3), 137, np.uint8)
    assert (matlab_bicubic(flat, 4, 20) == 137).all()
    noise = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(matlab_bicubic(noise, 6, 5), noise)


def test_downscale_crops_to_a_multiple_first() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (13, 18, 3), dtype=np.uint8)
    np.testing.assert_array_equal(downscale(noise, 4), downscale(noise[:12, :16], 4))


def test_half_of_a_plane_of_floats_is_not_rounded() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (11, 14), np.uint8)
    half = halve_plane(picture.astype(np.float64))
    assert half.shape == (6, 7)
    assert np.abs(np.clip(half, 0, 255) - matlab_bicubic(picture, 6, 7)).max() <= 1  # rounded once for each axis
    assert not np.array_equal(half, np.rint(half))
    assert np.array_equal(halve_plane(half * 2), halve_plane(half) * 2)
    assert np.abs(halve_plane(np.full((4, 6), 37.0)) - 37).max() < 1e-12
