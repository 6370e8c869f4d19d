"""The native engine: the same results as PyTorch for any SPAN and any tile, and the same bytes for any threads."""

from __future__ import annotations

import gc
import platform
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.config import ModelOptions
from dsclora_cli.errors import DscloraError, OutOfMemory, UsageError
from dsclora_cli.inference.native.engine import NativeEngine
from dsclora_cli.inference.native.library import CPU_VARIABLE, load_library
from dsclora_cli.inference.native.weights import span_weights
from dsclora_cli.inference.tiling import TileOptions, ValueRange, upscale_array
from dsclora_cli.inference.torch_cpu import TorchCpuEngine
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights.checkpoint import tensors_of
from dsclora_cli.weights.resolve import find_weights, open_network

pytestmark = pytest.mark.usefixtures("native")

PHOTO = Path(__file__).parents[2] / "examples" / "photo.png"
BYTES = ValueRange(0.0, 255.0, np.dtype(np.uint8))


def native_engine(network: SPAN, threads: int = 1) -> NativeEngine:
    return NativeEngine(span_weights({name: tensor.numpy() for name, tensor in tensors_of(network).items()}), threads)


def torch_engine(network: SPAN, dtype: torch.dtype = torch.float32) -> TorchCpuEngine:
    return TorchCpuEngine(network, network.config.descriptor, dtype)


def random_span(seed: int, **sizes: object) -> SPAN:
    """Return a SPAN with random weights whose results stay near [0, 1], as in trained networks."""
    torch.manual_seed(seed)
    network = SPAN(SpanConfig(**sizes)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        network.upsampler[0].weight *= 0.01
        network.upsampler[0].bias.fill_(0.45)
    return network


@pytest.fixture(scope="module")
def student() -> SPAN:
    network = open_network(find_weights(ModelOptions("dsclora-x4"), 4))
    assert isinstance(network, SPAN)
    return network


SETS = ("neon",) if platform.machine() in {"arm64", "aarch64"} else ("avx512", "avx2")


@pytest.fixture(params=["", *SETS, "portable"])
def cpu(request: pytest.FixtureRequest, native: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set that this machine can run; an empty name leaves the choice to the library."""
    monkeypatch.setenv(CPU_VARIABLE, request.param)
    try:
        native_engine(random_span(0, channels=1, blocks=1, scale=2))
    except UsageError:
        pytest.skip(f"this machine cannot run {request.param}")
    return str(request.param)


@pytest.mark.slow
def test_an_engine_is_not_closed_at_exit(student: SPAN) -> None:
    """After two signals, the process ends while a thread is in the library."""
    before = set(weakref.finalize._registry)  # type: ignore[attr-defined]
    engine = native_engine(student)
    (finalizer,) = set(weakref.finalize._registry) - before  # type: ignore[attr-defined]
    assert not finalizer.atexit and finalizer.alive
    del engine
    gc.collect()
    assert not finalizer.alive


def photo(height: int, width: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(Image.open(PHOTO).convert("RGB"))[20 : 20 + height, 30 : 30 + width])


def filled(value: int, height: int = 21, width: int = 70) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


PICTURES = {
    "photo": lambda: photo(90, 130),
    "one pixel": lambda: photo(1, 1),
    "3x5": lambda: photo(3, 5),
    "not divisible by 4": lambda: photo(37, 83),
    "tall": lambda: photo(120, 2),
    "wide": lambda: photo(2, 200),
    "black": lambda: filled(0),
    "white": lambda: filled(255),
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (37, 70, 3), np.uint8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_within_one_level_of_pytorch(name: str, cpu: str, student: SPAN) -> None:
    pixels = PICTURES[name]()
    engine = native_engine(student)
    result = engine.start(pixels, 0.0, 255.0)()
    expected = torch_engine(student)(BYTES.to_unit(pixels))
    assert np.abs(result.astype(int) - BYTES.from_unit(expected)).max() <= 1
    floats = engine(BYTES.to_unit(pixels))
    # On noise the network amplifies rounding errors: only limited to [0, 1] a result means something.
    error = np.abs(floats - expected) if name != "noise" else np.abs(floats.clip(0, 1) - expected.clip(0, 1))
    assert error.max() < (1e-5 if name != "noise" else 1 / 255)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**20),
    channels=st.sampled_from([1, 2, 3, 5, 8, 13, 26, 28, 48, 52]),
    blocks=st.integers(1, 3),
    scale=st.integers(1, 8),
    norm=st.booleans(),
    height=st.integers(1, 40),
    width=st.integers(1, 140),
    threads=st.integers(1, 4),
)
def test_random_networks_equal_pytorch(
    seed: int, channels: int, blocks: int, scale: int, norm: bool, height: int, width: int, threads: int
) -> None:
    network = random_span(seed, channels=channels, blocks=blocks, scale=scale, norm=norm)
    tile = np.random.default_rng(seed).random((height, width, 3), np.float32)
    result = native_engine(network, threads)(tile)
    expected = torch_engine(network, torch.float64)(tile.astype(np.float64))
    assert result.shape == (height * scale, width * scale, 3)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.slow
def test_the_bytes_are_the_same_for_any_number_of_threads(student: SPAN, cpu: str) -> None:
    tile = photo(99, 133).astype(np.float32) / 255
    expected = native_engine(student)(tile)
    for threads in (2, 3, 7, 64):
        np.testing.assert_array_equal(native_engine(student, threads)(tile), expected)


def test_an_engine_gives_the_same_bytes_again_after_other_shapes(student: SPAN) -> None:
    engine = native_engine(student, 2)
    small, large = photo(9, 30), photo(80, 120)
    expected = [engine.start(pixels, 0.0, 255.0)() for pixels in (small, large)]
    for pixels, result in zip((large, small, large, small), (expected[1], expected[0]) * 2, strict=True):
        np.testing.assert_array_equal(engine.start(pixels, 0.0, 255.0)(), result)


def test_tiles_are_within_one_level_of_the_whole_picture(student: SPAN) -> None:
    pixels, engine = photo(100, 120), native_engine(student)
    whole = upscale_array(pixels, engine, TileOptions(0)).astype(int)
    for tile in (16, 34, 50, 64):
        tiled = upscale_array(pixels, engine, TileOptions(tile))
        assert np.abs(tiled - whole).max() <= 1
        assert (tiled != whole).mean() < 1e-4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_every_type_equal_the_conversion_outside(student: SPAN, dtype: type, channels: int) -> None:
    pixels = np.random.default_rng(1).random((30, 45, 3)).astype(np.float32) * 0.4 + photo(30, 45) / 510
    low, high = (0.0, float(np.iinfo(dtype).max)) if dtype is not np.float32 else (-0.5, 1.75)
    pixels = (pixels[..., :channels] * (high - low) + low).astype(dtype)
    values = ValueRange(low, high, np.dtype(dtype))
    result = native_engine(student).start(pixels, low, high)()
    unit = np.repeat(values.to_unit(pixels), 3 // channels, axis=2)
    expected = values.from_unit(torch_engine(student)(unit).reshape(120, 180, channels, -1).mean(axis=3))
    assert result.dtype == dtype and result.shape == (120, 180, channels)
    assert result.min() >= low and result.max() <= high
    assert np.abs(result.astype(np.float64) - expected).max() <= 1e-5 * (high - low) + (dtype is not np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_result_that_is_not_finite_is_an_error(student: SPAN, cpu: str, value: float) -> None:
    tile = photo(40, 70).astype(np.float32) / 255
    tile[20, 69, 1] = value
    engine = native_engine(student, 2)
    with pytest.raises(DscloraError, match="NaN or infinity"):
        engine(tile)
    with pytest.raises(DscloraError, match="NaN or infinity"):
        engine.start(tile, 0.0, 1.0)()
    tile[20, 69, 1] = 0.5
    assert np.isfinite(engine(tile)).all()


def test_a_tile_without_memory_is_out_of_memory(student: SPAN, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = native_engine(student)
    tile = photo(9, 8).astype(np.float32)
    monkeypatch.setattr(load_library(), "dsclora_native_upscale", lambda *arguments: 1)
    with pytest.raises(OutOfMemory, match="a tile of 8x9"):
        engine(tile)

    def refuse(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", refuse)
    with pytest.raises(OutOfMemory, match="a tile of 8x9"):
        engine(tile)


def test_a_network_without_memory_is_out_of_memory(student: SPAN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_library(), "dsclora_native_open", lambda *arguments: None)
    with pytest.raises(OutOfMemory, match="the network does not fit the memory"):
        native_engine(student)


def test_an_instruction_set_that_the_cpu_lacks_is_an_error(student: SPAN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CPU_VARIABLE, "avx4096")
    with pytest.raises(UsageError, match="DSCLORA_NATIVE_CPU=avx4096"):
        native_engine(student)


def test_the_engine_names_itself(student: SPAN, cpu: str) -> None:
    engine = native_engine(student)
    assert (engine.name, engine.device, engine.dtype, engine.fp16_fallbacks) == ("native", "cpu", "float32", 0)
    assert engine.cpu == cpu or not cpu
    # The library keeps a few bands of rows, where torch keeps whole feature maps.
    expected = student.config.descriptor
    assert engine.descriptor == replace(expected, floats_per_pixel=engine.descriptor.floats_per_pixel)
    assert engine.descriptor.floats_per_pixel < expected.floats_per_pixel / 2
