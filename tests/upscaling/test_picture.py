"""Frames pass the network: alpha, gray, depth, chains of passes, floats beyond [0, 1]."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsclora_cli.config import EngineOptions, ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import OutOfMemory, UsageError
from dsclora_cli.imaging.types import Frame, Pixels
from dsclora_cli.inference.torch_cpu import TorchCpuEngine
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.part import upscale_part
from dsclora_cli.upscaling.picture import PictureUpscaler

EMBEDDED = UpscaleOptions(model=ModelOptions(offline=True), engine=EngineOptions(device="cpu"))
PHOTO = Path(__file__).parents[2] / "examples" / "photo.png"


@pytest.fixture(scope="module")
def photo() -> Pixels:
    return np.array(Image.open(PHOTO).convert("RGB"))[40:100, 100:180]


def upscale(pixels: Pixels, options: UpscaleOptions = EMBEDDED) -> tuple[Pixels, tuple[str, ...]]:
    upscaler = PictureUpscaler(options)
    plan = upscaler.plan(JobPlanner.for_arrays(options).plan_array(pixels), streamed=False)
    shares: list[float] = []
    warnings: list[str] = []
    frame = upscaler.upscale(Frame(pixels, 40.0), plan, shares.append, warnings.append)
    _ = frame.pixels  # read all bands
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    assert frame.duration_ms == 40.0
    assert frame.pixels.shape == (plan.job.size.height, plan.job.size.width, pixels.shape[2])
    assert frame.pixels.dtype == pixels.dtype
    return frame.pixels, tuple(warnings)


def test_an_upscaled_photo_reduced_again_equals_the_photo(photo: Pixels) -> None:
    result, warnings = upscale(photo)
    assert result.shape == (240, 320, 3) and warnings == ()
    back = np.asarray(Image.fromarray(result).resize((80, 60), Image.Resampling.BICUBIC))
    assert np.abs(back.astype(int) - photo).mean() < 2


def test_sixteen_bits_agree_with_eight_and_have_more_levels(photo: Pixels) -> None:
    eight, _ = upscale(photo)
    sixteen, _ = upscale(photo.astype(np.uint16) * 257)
    assert np.abs(sixteen / 257 - eight).max() <= 0.51
    assert len(np.unique(sixteen)) > 2000


def test_gray_equals_the_mean_of_three_equal_channels(photo: Pixels) -> None:
    gray = photo[:, :, 1:2]
    result, _ = upscale(gray)
    rgb, _ = upscale(np.repeat(gray, 3, axis=2))
    assert np.abs(result[:, :, 0] - rgb.mean(axis=2)).max() <= 1


def test_a_constant_alpha_does_not_pass_the_network(photo: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    run = TorchCpuEngine.__call__
    monkeypatch.setattr(TorchCpuEngine, "__call__", lambda self, tile: (calls.append(1), run(self, tile))[1])
    opaque, _ = upscale(photo)
    before = len(calls)
    result, _ = upscale(np.dstack([photo, np.full((60, 80), 255, np.uint8)]))
    assert len(calls) == 2 * before
    np.testing.assert_array_equal(result[:, :, :3], opaque)
    assert (result[:, :, 3] == 255).all()


@pytest.mark.parametrize("background", [0, 255])
def test_no_fringe_when_composited(photo: Pixels, background: int) -> None:
    """A cut-out whose hidden pixels hold the worst color, over black and white, against the opaque original."""
    rows, columns = np.mgrid[:60, :80]
    visible = ((rows - 30) ** 2 + (columns - 40) ** 2 < 22**2).astype(np.uint8)
    hidden = np.where(visible[:, :, None] == 1, photo, np.array([255, 0, 255], np.uint8))
    cut, _ = upscale(np.dstack([hidden, visible * 255]))
    opaque, _ = upscale(photo)
    alpha = cut[:, :, 3:] / 255.0
    over = cut[:, :, :3] * alpha + background * (1 - alpha)
    ideal = opaque * alpha + background * (1 - alpha)
    assert np.abs(over - ideal).mean() < 0.5
    edge = ((alpha > 0.02) & (alpha < 0.98)).repeat(3, axis=2)
    assert np.abs(over - ideal)[edge].mean() < 8


def test_floats_beyond_one_keep_their_range(photo: Pixels) -> None:
    _, silent = upscale((photo / 255).astype(np.float32))
    stretched, warnings = upscale((photo / 255 * 1000 - 200).astype(np.float32))
    assert stretched.min() < -50 and stretched.max() > 400
    assert warnings and "rescaled" in warnings[0]
    assert not silent  # floats inside [0, 1] are not rescaled


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_of_color_and_alpha_have_ranges_of_their_own(photo: Pixels, channels: int) -> None:
    color = (photo[:, :, :channels] / 255).astype(np.float32)
    rows, columns = np.mgrid[:60, :80]
    mask = ((rows - 30) ** 2 + (columns - 40) ** 2 < 22**2).astype(np.float32)
    plain, silent = upscale(np.dstack([color, mask]))
    bright, warnings = upscale(np.dstack([color * 5 - 1, mask]))
    assert silent == () and len(warnings) == 1 and warnings[0].startswith("values from -")
    np.testing.assert_array_equal(bright[:, :, -1], plain[:, :, -1])
    assert (plain[:, :, -1].min(), plain[:, :, -1].max()) == (0, 1)
    # Alpha up to 255, as some programs write, changes no color.
    scaled, warnings = upscale(np.dstack([color, mask * 255]))
    assert warnings == ("alpha values from 0 to 255 were rescaled to [0, 1] and back",)
    np.testing.assert_array_equal(scaled[:, :, :-1], plain[:, :, :-1])
    np.testing.assert_allclose(scaled[:, :, -1], plain[:, :, -1] * 255, atol=0.01)
    # A hidden color decides about nothing.
    color[0, 0] = 1000
    hidden, silent = upscale(np.dstack([color, mask]))
    assert silent == () and hidden[:, :, :-1].max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("factor", [4, 2.5])
def test_an_area_of_equal_alpha_gets_no_rim(dtype: type, factor: float) -> None:
    pixels = np.zeros((40, 50, 2), dtype)
    white = 1 if dtype is np.float32 else np.iinfo(dtype).max
    pixels[..., 1] = white // 4 if dtype is not np.float32 else 0.25
    pixels[10:30, 12:40, 1] = white * 3 // 4 if dtype is not np.float32 else 0.75
    pixels[5, 2:40, 1] = white  # a line, which is no area
    result, _ = upscale(pixels, replace(EMBEDDED, size=SizeOptions(scale=factor)))
    alpha = result[..., 1] / white
    below = alpha[round(9 * factor) :]
    assert below.min() >= 0.245 and below.max() <= 0.755
    assert below.max() - below.min() > 0.48
    assert alpha[: round(8 * factor)].max() > 0.9


def test_areas_hold_in_a_part_of_the_picture_as_in_the_whole() -> None:
    pixels = np.zeros((40, 50, 2), np.uint8)
    pixels[10:30, 12:40, 1] = 128
    options = replace(EMBEDDED, size=SizeOptions(scale=2.5))
    whole, _ = upscale(pixels, options)
    job = JobPlanner.for_arrays(options).plan_array(pixels)
    part, _, _ = upscale_part(PictureUpscaler(options), job, pixels, (9, 7, 11, 15))
    assert np.abs(part.astype(int) - whole[18 : 18 + 38, 23 : 23 + 28]).max() <= 1


@pytest.mark.parametrize(("factor", "shape"), [(1.5, (90, 120)), (2, (120, 160)), (5, (300, 400))])
def test_any_factor_is_native_passes_and_one_reduction(photo: Pixels, factor: float, shape: tuple[int, int]) -> None:
    result, _ = upscale(photo, replace(EMBEDDED, size=SizeOptions(scale=factor)))
    assert result.shape[:2] == shape
    back = np.asarray(Image.fromarray(result).resize((80, 60), Image.Resampling.BICUBIC))
    assert np.abs(back.astype(int) - photo).mean() < 2


def test_a_page_of_another_size_grows_by_the_same_factor(photo: Pixels) -> None:
    options = replace(EMBEDDED, size=SizeOptions(width=160))
    upscaler = PictureUpscaler(options)
    plan = upscaler.plan(JobPlanner.for_arrays(options).plan_array(photo), streamed=False)
    frame = upscaler.upscale(Frame(photo[:31, :45]), plan)
    assert frame.pixels.shape == (62, 90, 3)


def test_a_plan_holds_tiles_memory_and_engine(photo: Pixels) -> None:
    model = ModelOptions("dsclora-x4")
    options = replace(EMBEDDED, model=model, engine=EngineOptions(device="cpu", tile=32), size=SizeOptions(scale=8))
    job = JobPlanner.for_arrays(options).plan_array(photo)
    plan = PictureUpscaler(options).plan(job, streamed=False)
    assert (job.result.width, job.result.height, job.size.passes, plan.tile) == (640, 480, (4, 4), 32)
    assert plan.tiles == 3 * 2 + 10 * 8
    assert plan.memory_bytes > 640 * 480 * 4 * 3
    assert (job.model, plan.engine.device, plan.engine.dtype) == ("dsclora-x4", "cpu", "float32")
    assert len(job.key.weights_sha256) == 64


def test_released_student_by_file_equals_the_golden(shared: Path) -> None:
    weights = ModelOptions(weights=shared / "weights/team23_DSCF.pth")
    golden = np.load(shared / "golden/zebra_64x64.npz")
    result, _ = upscale(golden["lr"], replace(EMBEDDED, model=weights))
    expected = np.rint(np.clip(golden["sr"], 0, 1) * 255)
    assert np.abs(result - expected).max() <= 1
    assert (result != expected).mean() < 1e-4


def test_out_of_memory_with_a_fixed_tile_names_a_fitting_tile(photo: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: TorchCpuEngine, tile: Pixels) -> Pixels:
        raise OutOfMemory("a tile of 80x60 does not fit the memory of cpu")

    monkeypatch.setattr(TorchCpuEngine, "__call__", refuse)
    with pytest.raises(OutOfMemory, match=r"--tile \d+ would fit"):
        upscale(photo, replace(EMBEDDED, engine=EngineOptions(device="cpu", tile=80, engine="torch")))


def test_a_missing_device_is_refused_before_weights_are_loaded() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(UsageError, match="CUDA"):
        PictureUpscaler(replace(EMBEDDED, engine=EngineOptions(device="cuda")))


def test_weights_of_another_scale_reach_the_size_by_two_passes(photo: Pixels, tmp_path: Path) -> None:
    from dsclora_cli.weights.checkpoint import save_network

    torch.manual_seed(0)
    path = tmp_path / "x3.safetensors"
    save_network(SPAN(SpanConfig(channels=4, blocks=1, scale=3)), path, training="")
    options = replace(EMBEDDED, model=ModelOptions(weights=path), size=SizeOptions(scale=4))
    result, _ = upscale(photo, options)
    assert result.shape == (240, 320, 3)
