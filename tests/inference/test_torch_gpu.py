"""The engine for GPUs, tested on a CPU: conversions, order, batches, float32 fallbacks, and out-of-memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import NETWORKS, made
from torch import Tensor, nn

from dsclora_cli.errors import DscloraError, OutOfMemory
from dsclora_cli.imaging.types import Pixels
from dsclora_cli.inference import torch_gpu
from dsclora_cli.inference.engine import Descriptor, Engine, StreamingEngine
from dsclora_cli.inference.tiling import ArraySource, TileOptions, upscale_bands, value_range
from dsclora_cli.inference.torch_cpu import TorchCpuEngine
from dsclora_cli.inference.torch_gpu import BatchRunner, PendingArrays, TorchGpuEngine

CPU = torch.device("cpu")
DOUBLER = Descriptor("double", scale=2, halo=3, floats_per_pixel=12)


class Double(nn.Module):
    """A network that repeats every pixel; in float16 it returns `half_answer`, and it takes at most `room` values."""

    def __init__(self, half_answer: float | None = None, room: int = 10**9) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.half_answer, self.room = half_answer, room
        self.batches: list[tuple[int, ...]] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Double:
        other = Double(self.half_answer, self.room)
        other.one.data = self.one.data.clone()
        other.batches = self.batches
        return other

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(tuple(x.shape))
        if x.numel() > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        y = (x * self.one).repeat_interleave(2, 2).repeat_interleave(2, 3)
        if self.half_answer is not None and x.dtype is torch.float16:
            y = torch.full_like(y, self.half_answer)
        return y


def doubled(pixels: Pixels) -> Pixels:
    return pixels.repeat(2, 0).repeat(2, 1)


def streamed(network: nn.Module, dtype: torch.dtype = torch.float32) -> TorchGpuEngine:
    return TorchGpuEngine(network, DOUBLER, CPU, dtype)


def upscale(engine: Engine, pixels: Pixels, tile: int, may_halve: bool = False) -> Pixels:
    run = TileOptions(tile, may_halve)
    return np.concatenate(list(upscale_bands(ArraySource(pixels), engine, value_range(pixels), run)))


def photo(*shape: int, dtype: type = np.uint8) -> NDArray[Any]:
    noise = np.random.default_rng(0)
    return (
        noise.random(shape, np.float32) if dtype is np.float32 else noise.integers(0, np.iinfo(dtype).max, shape, dtype)
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_every_dtype_and_range_keep_their_values(dtype: type, channels: int) -> None:
    pixels = photo(31, 45, channels, dtype=dtype)
    if dtype is np.float32:
        pixels = pixels * 8 - 2
    result = upscale(streamed(Double()), pixels, 20)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, doubled(pixels), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_results_equal_those_of_the_cpu_engine(name: str) -> None:
    network = made(name)
    descriptor = network.config.descriptor
    pixels, unit = photo(40, 52, 3), photo(20, 24, 3, dtype=np.float32)
    streams, plain = (
        TorchGpuEngine(network, descriptor, CPU, torch.float32),
        TorchCpuEngine(network, descriptor, torch.float32),
    )
    assert isinstance(streams, StreamingEngine) and not isinstance(plain, StreamingEngine)
    np.testing.assert_allclose(streams(unit), plain(unit), atol=1e-5)
    difference = upscale(streams, pixels, 24).astype(int) - upscale(plain, pixels, 24)
    assert np.abs(difference).max() <= 1


def test_only_started_tiles_are_clamped_to_black_and_white() -> None:
    network = Double()
    network.one.data.fill_(2.0)
    unit = photo(4, 5, 3, dtype=np.float32)
    np.testing.assert_allclose(streamed(network)(unit), doubled(unit) * 2, rtol=1e-6)
    answer = streamed(network).start(unit, 0.0, 1.0)()
    np.testing.assert_allclose(answer, doubled(unit * 2).clip(0, 1), rtol=1e-6)


def test_tiles_of_one_shape_run_as_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_gpu, "_BATCH", 4 * 26 * 26)
    network = Double()
    engine = streamed(network)
    engine.pixels_in_flight = 8 * 26 * 26
    pixels = photo(60, 100, 3)
    np.testing.assert_array_equal(upscale(engine, pixels, 20), doubled(pixels))
    assert [shape[0] for shape in network.batches] == [4, 4, 4, 3]


def test_results_may_be_read_in_any_order() -> None:
    engine = streamed(Double())
    tiles = [photo(8, 8, 3), 255 - photo(8, 8, 3), photo(8, 9, 3), photo(8, 8, 1)]
    answers = [engine.start(tile, 0, 255) for tile in tiles]
    for place in (2, 0, 3, 1):
        np.testing.assert_array_equal(answers[place](), doubled(tiles[place]))


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), 0.0])
def test_an_unusable_half_precision_tile_is_run_again_in_float32(answer: float) -> None:
    engine = streamed(Double(answer), torch.float16)
    pixels = photo(40, 40, 3)
    np.testing.assert_array_equal(upscale(engine, pixels, 20), doubled(pixels))
    assert engine.fp16_fallbacks == 4


def test_a_good_half_precision_tile_is_kept() -> None:
    engine = streamed(Double(), torch.float16)
    for pixels in (photo(9, 8, 3), np.zeros((3, 3, 3), np.uint8)):
        np.testing.assert_array_equal(upscale(engine, pixels, 0), doubled(pixels))
    assert engine.fp16_fallbacks == 0 and engine.dtype == "float16"


def test_nan_in_float32_is_an_error() -> None:
    network = Double()
    network.one.data.fill_(float("nan"))
    for dtype in (torch.float32, torch.float16):
        with pytest.raises(DscloraError, match="NaN or infinity in float32"):
            upscale(streamed(network, dtype), photo(4, 5, 3), 0)


def test_float32_is_never_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    inside: list[bool] = []
    network = made("span without norm")
    network.register_forward_hook(lambda *_: inside.append(torch.backends.cudnn.allow_tf32))
    streamed(network)(photo(4, 5, 3, dtype=np.float32))
    assert inside == [False] and torch.backends.cudnn.allow_tf32


def test_a_batch_that_does_not_fit_is_run_tile_by_tile() -> None:
    network = Double(room=3 * 26 * 26)
    pixels = photo(60, 100, 3)
    np.testing.assert_array_equal(upscale(streamed(network), pixels, 20), doubled(pixels))
    assert {shape[0] for shape in network.batches[2:]} == {1}


def test_a_tile_that_does_not_fit_is_halved_or_an_error() -> None:
    pixels = photo(60, 100, 3)
    engine = streamed(Double(room=3 * 24 * 24))
    np.testing.assert_array_equal(upscale(engine, pixels, 50, may_halve=True), doubled(pixels))
    with pytest.raises(OutOfMemory, match="a tile of 56x36 does not fit the memory of cpu"):
        upscale(engine, pixels, 50)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_networks_get_maps_in_the_layout_of_the_device(
    layout: torch.memory_format, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, seen = Double(), list[bool]()
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=layout)))
    monkeypatch.setattr(torch_gpu, "_placed", lambda network, device, dtype: network)
    monkeypatch.setattr(torch_gpu, "_layout", lambda device: layout)
    pixels = photo(20, 30, channels)
    np.testing.assert_array_equal(upscale(streamed(network), pixels, 0), doubled(pixels))
    assert seen == [True]


def test_only_mps_has_contiguous_maps() -> None:
    layouts = [torch_gpu._layout(torch.device(name)) for name in ("mps", "cuda", "cpu")]
    assert layouts == [torch.contiguous_format, torch.channels_last, torch.channels_last]


def test_other_errors_are_raised_unchanged() -> None:
    class Broken(BatchRunner):
        def run(self, *_: object, **__: object) -> PendingArrays:
            raise RuntimeError("CUDA error: an illegal access")

    engine = streamed(Double())
    engine._runner = Broken(CPU)
    with pytest.raises(RuntimeError, match="an illegal access"):
        engine(photo(4, 5, 3, dtype=np.float32))
