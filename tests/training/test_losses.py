"""Losses against HR, computed by hand."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dsclora_cli.recipe import LossOptions, option_fields
from dsclora_cli.training.losses import PIXEL_LOSSES, detail_l1, spectral_l1


def test_every_loss_that_a_recipe_may_name_exists() -> None:
    (loss,) = (each for each in option_fields("loss") if each.name == "loss")

    assert set(loss.choices) == set(PIXEL_LOSSES)
    assert LossOptions().loss in PIXEL_LOSSES


@pytest.mark.parametrize(("name", "distance"), [("l1", 0.25), ("l2", 0.0625), ("charbonnier", 0.250002)])
def test_losses_of_a_constant_shift(name: str, distance: float) -> None:
    target = torch.rand(2, 3, 5, 7)

    assert PIXEL_LOSSES[name](target + 0.25, target).item() == pytest.approx(distance, rel=1e-5)


def test_charbonnier_is_smooth_at_zero() -> None:
    target = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    output = target.clone().requires_grad_()
    PIXEL_LOSSES["charbonnier"](output, target).backward()

    assert torch.equal(output.grad, torch.zeros_like(target))  # type: ignore[arg-type]
    nearby = (target + 0.001 * torch.randn_like(target)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: PIXEL_LOSSES["charbonnier"](x, target), (nearby,))


def test_the_psnr_loss_averages_logarithms_over_pictures() -> None:
    """To halve the error of a picture counts the same for every picture, however large the error is."""
    target = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    shifts = torch.tensor([0.5, 0.2], dtype=torch.float64).view(2, 1, 1, 1)
    losses = [
        PIXEL_LOSSES["psnr"](target + shifts * torch.tensor(halved).view(2, 1, 1, 1), target).item()
        for halved in ([1.0, 1.0], [0.5, 1.0], [1.0, 0.5])
    ]

    assert losses[0] == pytest.approx((math.log(0.25 + 1e-4) + math.log(0.04 + 1e-4)) / 2)
    assert losses[0] - losses[1] == pytest.approx(math.log(2), rel=0.02)
    assert losses[0] - losses[2] == pytest.approx(math.log(2), rel=0.02)
    assert PIXEL_LOSSES["psnr"](target, target).item() == pytest.approx(math.log(1e-4))


def test_a_cosine_changes_a_single_bin_of_the_spectrum() -> None:
    """A cosine of amplitude a over 8 x 8 pixels gives a * 8 / 2 in two bins, and rfft2 keeps one of the two."""
    wave = 0.5 * torch.cos(2 * torch.pi * 2 * torch.arange(8) / 8).expand(1, 1, 8, 8)

    assert spectral_l1(wave, torch.zeros(1, 1, 8, 8)).item() == pytest.approx(0.5 * 4 / (8 * 5 * 2), rel=1e-5)


def test_spectra_of_float16_are_compared_in_float32() -> None:
    output = torch.rand(1, 3, 8, 8).half().requires_grad_()
    distance = spectral_l1(output, torch.rand(1, 3, 8, 8))
    distance.backward()

    assert distance.dtype == torch.float32
    assert output.grad is not None and output.grad.abs().sum() > 0


def test_detail_may_be_anywhere_in_an_area_but_not_missing() -> None:
    texture = 0.5 + 0.2 * torch.randn(2, 3, 64, 64)
    moved = texture.roll((1, 2), dims=(2, 3))

    assert (moved - texture).abs().mean() > 0.2
    assert detail_l1(moved, texture, 32) < 0.15
    assert detail_l1(0.5 + (texture - 0.5) / 2, texture, 32).item() == pytest.approx(math.log(2), rel=0.05)
    # Detail in the wrong half: as much detail in the whole patch, but not in each area.
    half = torch.cat([texture[..., :32], torch.full((2, 3, 64, 32), 0.5)], dim=3)
    assert detail_l1(half.roll(32, dims=3), half, 0) < 0.3
    assert detail_l1(half.roll(32, dims=3), half, 16) > 1
    assert detail_l1(texture, texture, 16) == 0


def test_rounding_is_no_detail() -> None:
    flat = torch.full((1, 3, 32, 32), 0.5)
    rounded = flat + (torch.rand(flat.shape) - 0.5) / 255
    assert detail_l1(rounded, flat, 16) < 0.2
    assert detail_l1(flat + torch.randn(flat.shape) * 0.1, flat, 16) > 2


@pytest.mark.parametrize("step", [32, 4])
def test_dots_do_not_pass_for_texture(step: int) -> None:
    """Dots with the energy of a texture: the spectrum of far dots is full, and near dots fill every window."""
    texture = 0.5 + 0.05 * torch.randn(1, 3, 64, 64)
    dots = torch.full((1, 3, 64, 64), 0.5)
    dots[..., 1::step, 1::step] += 0.05 * step
    assert (dots - 0.5).square().mean().item() == pytest.approx((texture - 0.5).square().mean().item(), rel=0.05)
    assert detail_l1(dots, texture, 32) > 10 * detail_l1(texture.roll((3, 5), dims=(2, 3)), texture, 32)


@pytest.mark.parametrize(("height", "width", "area"), [(68, 40, 16), (16, 24, 0), (5, 9, 99)])
def test_detail_equals_sums_over_windows(height: int, width: int, area: int) -> None:
    first, second = torch.rand(2, 1, 3, height, width)
    distances = []
    for size in (8, 32):
        logs = [log_amplitudes(picture[0].numpy(), size, area) for picture in (first, second)]
        distances.append(np.abs(logs[0] - logs[1]).mean())
    assert detail_l1(first, second, area).item() == pytest.approx(np.mean(distances), rel=1e-4)


def log_amplitudes(picture: NDArray[np.float32], size: int, area: int) -> NDArray[np.float64]:
    """Return the log of the mean amplitude of each area and frequency of `(3, H, W)`, with windows of `size` pixels."""
    height, width = (min(size, edge) for edge in picture.shape[1:])
    step = size // 2
    window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(edge) / edge) for edge in (height, width)))
    rows, columns = ((edge - one) // step + 1 for edge, one in zip(picture.shape[1:], (height, width), strict=True))
    amplitudes = np.zeros((rows, columns, 3, height, width // 2 + 1))
    for row, column in np.ndindex(rows, columns):
        piece = picture[:, row * step : row * step + height, column * step : column * step + width]
        spectrum = np.fft.fft2((piece - piece.mean((1, 2), keepdims=True)) * window)
        amplitudes[row, column] = np.abs(spectrum[..., : width // 2 + 1]) / np.sqrt(height * width)
    windows = max(4, area // step - 1) if area else max(rows, columns)
    down, across = min(windows, rows), min(windows, columns)
    means = [
        amplitudes[top : top + down, left : left + across].mean((0, 1))
        for top in range(0, rows - down + 1, max(1, down // 2))
        for left in range(0, columns - across + 1, max(1, across // 2))
    ]
    return np.log(np.array(means) + 2e-3)


def test_detail_of_equal_float16_pictures_has_a_finite_gradient() -> None:
    output = torch.rand(1, 3, 8, 8).half().requires_grad_()
    detail_l1(output, output.detach() + 0.0, 8).backward()
    assert output.grad is not None and output.grad.isfinite().all()
    flat = torch.zeros(1, 3, 8, 8, requires_grad=True)
    detail_l1(flat, torch.rand(1, 3, 8, 8), 8).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()
