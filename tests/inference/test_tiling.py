"""Upscaling by tiles equals upscaling the whole picture; with a halo that is one pixel too small, it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.errors import OutOfMemory
from dsclora_cli.imaging.types import Pixels
from dsclora_cli.inference.engine import Descriptor, Engine, Ensemble, UnitPixels
from dsclora_cli.inference.tiling import (
    ArraySource,
    BandSource,
    Tile,
    TileOptions,
    full_range,
    plan_bands,
    upscale_array,
    upscale_bands,
    value_range,
)
from dsclora_cli.inference.torch_cpu import TorchCpuEngine
from dsclora_cli.models.span import SPAN, SpanConfig


class Raw:
    """A value range that passes the float64 result of the network through unchanged."""

    dtype = np.dtype(np.float64)

    def to_unit(self, pixels: UnitPixels, dtype: object = None) -> UnitPixels:
        return pixels

    def from_unit(self, values: UnitPixels) -> UnitPixels:
        return values


def engine(scale: int = 2, blocks: int = 2, halo_less: int = 0, dtype: torch.dtype = torch.float64) -> TorchCpuEngine:
    torch.manual_seed(scale)
    network = SPAN(SpanConfig(channels=4, blocks=blocks, scale=scale))
    descriptor = network.config.descriptor
    return TorchCpuEngine(network, replace(descriptor, halo=descriptor.halo - halo_less), dtype)


def upscale(engine: Engine, image: NDArray[np.float64], tile: int) -> NDArray[np.float64]:
    return np.concatenate(list(upscale_bands(ArraySource(image), engine, Raw(), TileOptions(tile))))  # type: ignore[arg-type]


@pytest.mark.slow
@settings(max_examples=25)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(2, 4), st.integers(0, 2**31))
def test_tiled_equals_whole_in_float64(height: int, width: int, tile: int, scale: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width, 3))
    network = engine(scale)
    np.testing.assert_allclose(upscale(network, image, tile), upscale(network, image, 0), rtol=0, atol=1e-12)


def test_a_halo_that_is_one_pixel_too_small_changes_the_result() -> None:
    image = np.random.default_rng(0).random((60, 64, 3))
    narrow = engine(halo_less=1)
    assert np.abs(upscale(narrow, image, 20) - upscale(narrow, image, 0)).max() > 1e-12


@pytest.mark.slow
def test_tiles_of_the_released_student_equal_the_whole_photograph(shared: Path) -> None:
    network = SPAN(SpanConfig())
    network.load_state_dict(torch.load(shared / "weights/team23_DSCF.pth", weights_only=True))
    path = shared / "data/benchmarks/Set5/LR_bicubic/X4/womanx4.png"
    image = np.array(Image.open(path).convert("RGB"))
    answers = {}
    for dtype in (torch.float64, torch.float32):
        runner = TorchCpuEngine(network.double(), network.config.descriptor, dtype)
        for tile in (0, 24):
            answers[dtype, tile] = upscale_pixels(runner, image, tile)
    np.testing.assert_array_equal(answers[torch.float64, 24], answers[torch.float64, 0])
    difference = answers[torch.float32, 24].astype(int) - answers[torch.float32, 0]
    assert np.abs(difference).max() <= 1


def upscale_pixels(engine: Engine, image: Pixels, tile: int, may_halve: bool = False) -> Pixels:
    return upscale_array(image, engine, TileOptions(tile, may_halve))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_becomes_a_larger_array_of_the_same_dtype(dtype: type, channels: int) -> None:
    noise = np.random.default_rng(5).random((21, 30, channels))
    image = (noise if dtype == np.float32 else noise * np.iinfo(dtype).max).astype(dtype)
    network = engine(scale=3)
    whole, tiled = upscale_pixels(network, image, 0), upscale_pixels(network, image, 8)
    assert whole.shape == (63, 90, channels) and whole.dtype == dtype
    np.testing.assert_array_equal(tiled, whole)


def test_gray_is_the_mean_of_its_three_equal_channels() -> None:
    gray = np.random.default_rng(3).integers(0, 256, (12, 9, 1), dtype=np.uint8)
    network = engine(dtype=torch.float32)
    rgb = network(np.repeat(gray, 3, axis=2).astype(np.float32) / 255)
    expected = np.rint(np.clip(rgb.mean(axis=2, keepdims=True), 0, 1) * 255)
    assert np.abs(upscale_pixels(network, gray, 0).astype(int) - expected).max() <= 1


def test_ensemble_is_the_mean_of_eight_runs_and_its_tiles_are_exact() -> None:
    image = np.random.default_rng(4).random((31, 26, 3))
    one = engine()
    eight = Ensemble(one)
    flipped = eight(np.ascontiguousarray(image[::-1]))[::-1]
    np.testing.assert_allclose(flipped, eight(image), rtol=0, atol=1e-12)
    assert np.abs(eight(image) - one(image)).max() > 1e-6
    np.testing.assert_allclose(upscale(eight, image, 12), upscale(eight, image, 0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 3), (7, 1, 3)])
def test_the_ensemble_gives_the_engine_no_negative_strides(shape: tuple[int, int, int]) -> None:
    """PyTorch refuses such arrays, also along a side of one pixel, where NumPy calls the array contiguous."""
    tile = np.random.default_rng(5).random(shape)
    assert Ensemble(engine())(tile).shape == (shape[0] * 2, shape[1] * 2, 3)


class Cramped:
    """An engine that repeats pixels, and runs out of memory for tiles of more than `room` pixels, halo included."""

    device, dtype, fp16_fallbacks = "cpu", "float32", 0

    def __init__(self, room: int) -> None:
        self.descriptor = Descriptor("span", scale=2, halo=3, floats_per_pixel=10)
        self.room = room
        self.done: list[tuple[int, int]] = []

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        height, width = tile.shape[:2]
        if height * width > self.room:
            raise OutOfMemory(f"a tile of {width}x{height} does not fit the memory of cpu")
        self.done.append((height, width))
        return tile.repeat(2, axis=0).repeat(2, axis=1)


def test_out_of_memory_halves_the_tile_and_resumes_from_that_tile() -> None:
    image = np.random.default_rng(5).integers(0, 256, (150, 170, 3), dtype=np.uint8)
    network = Cramped(room=60 * 60)
    result = upscale_pixels(network, image, 100, may_halve=True)
    np.testing.assert_array_equal(result, image.repeat(2, axis=0).repeat(2, axis=1))
    cores = sum(1 for height, width in network.done if height * width <= 60 * 60)
    assert cores == len(network.done)


def test_tiles_of_a_picture_have_one_shape() -> None:
    image = np.random.default_rng(6).integers(0, 256, (151, 173, 3), dtype=np.uint8)
    network = Cramped(room=10**6)
    result = upscale_pixels(network, image, 40)
    np.testing.assert_array_equal(result, image.repeat(2, axis=0).repeat(2, axis=1))
    assert len(network.done) == 4 * 5
    assert set(network.done) == {(38 + 2 * 3, 36 + 2 * 3)}


@pytest.mark.parametrize("bands", [1, 4, 151])
def test_a_picture_read_in_bands_gives_the_same_result_and_is_never_held_whole(bands: int) -> None:
    image = np.random.default_rng(7).integers(0, 256, (151, 90, 3), dtype=np.uint8)
    source = BandSource(image.shape, iter(np.array_split(image, bands)))
    parts = []
    for part in upscale_bands(source, Cramped(room=10**6), value_range(image), TileOptions(20)):
        parts.append(part)
        assert sum(map(len, source._held)) <= 20 + 2 * 3 + 2 * -(-151 // bands)
    np.testing.assert_array_equal(np.concatenate(parts), image.repeat(2, axis=0).repeat(2, axis=1))


def test_an_engine_that_returns_nothing_gets_smaller_tiles() -> None:
    class Empty(Cramped):
        def __call__(self, tile: UnitPixels) -> UnitPixels:
            too_large = tile.shape[0] * tile.shape[1] > self.room
            return np.empty((0, 0, 3), np.float32) if too_large else super().__call__(tile)

    image = np.random.default_rng(5).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    result = upscale_pixels(Empty(room=40 * 40), image, 64, may_halve=True)
    np.testing.assert_array_equal(result, image.repeat(2, axis=0).repeat(2, axis=1))
    with pytest.raises(OutOfMemory, match="the engine returned no picture for a tile of 64x64"):
        upscale_pixels(Empty(room=40 * 40), image[:64, :64], 0)


def test_out_of_memory_in_the_source_does_not_halve_the_tile() -> None:
    def bands():
        yield np.zeros((20, 60, 3), np.uint8)
        raise OutOfMemory("in the pass before")

    source = BandSource((60, 60, 3), bands())
    with pytest.raises(OutOfMemory, match="in the pass before"):
        list(upscale_bands(source, Cramped(10**6), full_range(np.dtype(np.uint8)), TileOptions(20, may_halve=True)))


def test_an_explicit_tile_is_never_overridden() -> None:
    with pytest.raises(OutOfMemory, match="does not fit"):
        upscale_pixels(Cramped(room=50), np.zeros((40, 40, 3), np.uint8), 32)


def test_the_smallest_tile_is_not_halved_again() -> None:
    with pytest.raises(OutOfMemory):
        upscale_pixels(Cramped(room=1), np.zeros((40, 40, 3), np.uint8), 32, may_halve=True)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(3, 130))
def test_cores_cover_every_pixel_once_and_have_equal_widths(height: int, width: int, tile: int) -> None:
    covered = np.zeros((height, width), int)
    bands = plan_bands(height, width, tile)
    for band in bands:
        for core in band:
            assert core.edge <= tile
            covered[core.top : core.bottom, core.left : core.right] += 1
    assert (covered == 1).all()
    widths = [core.right - core.left for core in bands[0]]
    assert len(set(widths[:-1])) <= 1 and widths[-1] <= widths[0]


def test_a_width_just_above_the_edge_is_cut_into_two_equal_tiles() -> None:
    assert [core.right - core.left for core in plan_bands(10, 260, 256)[0]] == [130, 130]


def test_whole_picture_is_one_tile() -> None:
    assert plan_bands(70, 90, 0) == [[Tile(0, 70, 0, 90)]]


class Windows:
    """An engine that adds to every pixel the mean of its window of 4x4, as networks with windows of attention do."""

    name, device, dtype, fp16_fallbacks = "torch", "cpu", "float64", 0

    def __init__(self, multiple: int) -> None:
        self.descriptor = Descriptor("windows", scale=1, halo=3, floats_per_pixel=6, multiple=multiple)

    def __call__(self, tile: UnitPixels) -> UnitPixels:
        height, width = tile.shape[:2]
        padded = np.pad(tile, ((0, -height % 4), (0, -width % 4), (0, 0)), mode="edge")
        means = padded.reshape(padded.shape[0] // 4, 4, -1, 4, 3).mean((1, 3))
        return tile + means.repeat(4, 0).repeat(4, 1)[:height, :width]


@settings(max_examples=50)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 20), st.integers(0, 2**31))
def test_tiles_on_the_grid_of_the_windows_equal_the_whole(height: int, width: int, tile: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width, 3))
    whole = upscale(Windows(4), image, 0)
    np.testing.assert_allclose(upscale(Windows(4), image, tile), whole, rtol=0, atol=1e-12)


def test_tiles_off_the_grid_differ() -> None:
    image = np.random.default_rng(0).random((50, 50, 3))
    assert np.abs(upscale(Windows(1), image, 18) - upscale(Windows(1), image, 0)).max() > 0.01
