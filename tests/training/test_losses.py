"""Losses against HR, computed by hand."""

import math

import pytest
import torch

from dsclora_cli.recipe import LossOptions, option_fields
from dsclora_cli.training.losses import PIXEL_LOSSES, amplitude_l1, spectral_l1


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


def test_amplitudes_ignore_where_detail_is_within_a_block_and_count_where_it_is_missing() -> None:
    waves = torch.rand(2, 3, 16, 16)
    moved = torch.cat([waves[..., :8].roll(3, dims=3), waves[..., 8:].roll(5, dims=3)], dim=3)

    assert amplitude_l1(moved, waves, 8).item() == pytest.approx(0, abs=1e-6)
    assert (moved - waves).abs().mean() > 0.1
    soft = waves.mean(3, keepdim=True).expand_as(waves)
    assert amplitude_l1(soft, waves, 8) > 0.05
    # Detail in the wrong block: equal amplitudes of the whole patch, other amplitudes of each block.
    swapped = waves.roll(8, dims=3)
    assert amplitude_l1(swapped, waves, 0).item() == pytest.approx(0, abs=1e-6)
    assert amplitude_l1(swapped, waves, 8) > 0.05


def test_amplitudes_of_a_cosine() -> None:
    """As above: a * 8 / 2 in one bin that rfft2 keeps, for each of the four blocks."""
    wave = 0.5 * torch.cos(2 * torch.pi * 2 * torch.arange(16) / 8).expand(1, 1, 19, 16)
    nothing = torch.zeros_like(wave)

    assert amplitude_l1(wave, nothing, 8).item() == pytest.approx(0.5 * 4 / (8 * 5), rel=1e-5)
    assert amplitude_l1(wave, nothing, 99).item() == amplitude_l1(wave, nothing, 0).item()


def test_amplitudes_of_equal_float16_pictures_have_a_finite_gradient() -> None:
    output = torch.rand(1, 3, 8, 8).half().requires_grad_()
    amplitude_l1(output, output.detach() + 0.0, 8).backward()
    assert output.grad is not None and output.grad.isfinite().all()
    flat = torch.zeros(1, 3, 8, 8, requires_grad=True)
    amplitude_l1(flat, torch.rand(1, 3, 8, 8), 8).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()
