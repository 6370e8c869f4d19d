"""Textures that repeat: no seam where the result meets itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.config import EngineOptions, ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.upscaling.batch import upscale_files
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.picture import PictureUpscaler
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


def test_the_plan_counts_the_margin() -> None:
    """A texture is upscaled with what continues at its edges: more tiles, and more memory."""
    job = JobPlanner.for_arrays(replace(OPTIONS, size=SizeOptions(scale=2))).plan_array(texture(60, 60, 3))
    tiled = replace(OPTIONS, engine=EngineOptions(tile=64))
    wrapped, plain = (PictureUpscaler(replace(tiled, wrap=wrap)).plan(job, streamed=True) for wrap in (True, False))
    assert (plain.tiles, plain.tile) == (1, 0) and (wrapped.tiles, wrapped.tile) == (4, 64)
    assert wrapped.memory_bytes > plain.memory_bytes


def test_the_margin_follows_from_the_halos_of_the_passes() -> None:
    planner = JobPlanner.for_arrays(replace(OPTIONS, size=SizeOptions(scale=2)))
    upscaler = PictureUpscaler(OPTIONS)
    job = planner.plan_array(texture(60, 60, 3))
    halo = upscaler.plan(job, streamed=True).engine.descriptor.halo
    assert upscaler.margin(job) == halo
    twice = replace(job, size=replace(job.size, passes=(2, 2), factor=4.0), weights=job.weights * 2)
    assert upscaler.margin(twice) == halo + -(-halo // 2)
    # The reduction from x4 to x3.5 looks a little further, and two pixels become seven whole ones.
    reduced = replace(twice, size=replace(twice.size, factor=3.5))
    assert upscaler.margin(reduced) % 2 == 0 and 0 < upscaler.margin(reduced) - upscaler.margin(twice) <= 4
