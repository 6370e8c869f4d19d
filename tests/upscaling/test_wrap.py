"""Textures that repeat: no seam where the result meets itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.config import ModelOptions, UpscaleOptions
from dsclora_cli.upscaling.batch import upscale_files
from dsclora_cli.upscaling.upscaler import Upscaler

OPTIONS = UpscaleOptions(model=ModelOptions("dsclora-x2"), wrap=True)


def texture(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    noise = np.random.default_rng(5).random((height // 4 + 1, width // 4 + 1, channels))
    pixels = np.repeat(np.repeat(noise, 4, axis=0), 4, axis=1)[:height, :width]
    return (pixels * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize(("channels", "dtype"), [(3, np.uint8), (4, np.uint8), (1, np.uint16)])
@pytest.mark.parametrize("factor", [2, 3.5])
def test_a_picture_shifted_by_half_gives_the_result_shifted_by_half(channels: int, dtype: type, factor: float) -> None:
    upscaler = Upscaler(scale=factor, options=replace(OPTIONS, model=ModelOptions()))
    pixels = texture(24, 32, channels, dtype)
    upscaled = upscaler(pixels)
    shifted = upscaler(np.roll(pixels, (12, 16), axis=(0, 1)))
    moved = np.roll(upscaled, (round(12 * factor), round(16 * factor)), axis=(0, 1))
    # Tiles start at other places, so floats differ in the last digits.
    assert np.abs(shifted.astype(int) - moved).max() <= np.iinfo(dtype).max // 255
    assert upscaled.shape == (24 * factor, 32 * factor, channels)


def test_without_the_option_there_is_a_seam() -> None:
    pixels = texture(24, 32, 3)
    seen = [Upscaler("dsclora-x2", scale=2, options=replace(OPTIONS, wrap=wrap))(pixels) for wrap in (True, False)]
    assert np.abs(seen[0].astype(int) - seen[1])[:, :4].max() > 8
    assert np.array_equal(seen[0].shape, seen[1].shape)


def test_small_textures_repeat_often() -> None:
    pixels = texture(3, 5, 3)
    assert Upscaler("dsclora-x2", scale=2, options=OPTIONS)(pixels).shape == (6, 10, 3)


def test_the_setting_belongs_to_the_result(tmp_path) -> None:
    Image.fromarray(texture(24, 32, 3)).save(tmp_path / "a.png")
    options = replace(OPTIONS, size=replace(OPTIONS.size, scale=2.0))
    assert [each.status for each in upscale_files([tmp_path / "a.png"], options)] == ["done"]
    assert [each.status for each in upscale_files([tmp_path / "a.png"], options)] == ["skipped"]
    assert [each.status for each in upscale_files([tmp_path / "a.png"], replace(options, wrap=False))] == ["kept"]
