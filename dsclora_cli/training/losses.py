"""Losses between pictures: L1, L2, Charbonnier, a log-MSE loss for PSNR, and losses between spectra.

All take float tensors `(N, 3, H, W)` in about [0, 1], and return a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from dsclora_cli.recipe import LossOptions


@dataclass(frozen=True)
class ReconstructionLoss:
    """The distance to HR that a recipe asks for."""

    options: LossOptions

    def __call__(self, output: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms for two tensors `(N, 3, sH, sW)`: `pixel`, and `fft` unless its weight is 0."""
        terms = {"pixel": PIXEL_LOSSES[self.options.loss](output, hr)}
        if self.options.fft:
            terms["fft"] = self.options.fft * spectral_l1(output, hr)
        return terms


PixelLoss = Callable[[Tensor, Tensor], Tensor]
"""Compute the mean distance between two tensors of equal shape `(N, 3, H, W)`, as a scalar."""

_CHARBONNIER_EPS = 1e-3
_MIN_MSE = 1e-4  # the mean squared error of a PSNR of 40 dB
_MIN_ENERGY = 1e-6  # mean square of a band; the rounding of the teacher's pictures to 8 bits is no detail
_BAND = 4
"""Edge of a frequency band of `band_l1`, in frequencies."""


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean of `sqrt(d^2 + 0.001^2)`, an L1 loss that is smooth at zero (LapSRN, arXiv 1704.03915).

    Both tensors are `(N, 3, H, W)`, float.
    """
    return torch.sqrt((output - target) ** 2 + _CHARBONNIER_EPS**2).mean()


def log_mse(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean over a batch `(N, 3, H, W)` of the logarithm of a picture's mean squared error.

    PSNR is averaged over pictures in the same way: halving the error counts the same for every picture, however large
    the error is (PSNRLoss of NAFNet, arXiv 2204.04676). Below the error of 40 dB the loss hardly falls any more.
    """
    return torch.log((output - target).square().mean((1, 2, 3)) + _MIN_MSE).mean()


PIXEL_LOSSES: dict[str, PixelLoss] = {"l1": F.l1_loss, "l2": F.mse_loss, "charbonnier": charbonnier, "psnr": log_mse}
"""The losses that a recipe can name."""


def spectral_l1(output: Tensor, target: Tensor) -> Tensor:
    """Return the mean absolute difference of the orthonormal 2-D spectra of two tensors `(N, 3, H, W)`.

    Real and imaginary parts count separately.
    """
    # CUDA has the FFT of float16 only for sides that are powers of two, CPUs not at all.
    difference = torch.fft.rfft2((output - target).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def band_l1(output: Tensor, target: Tensor, block: int) -> Tensor:
    """Return the mean absolute difference of log amplitudes of two tensors `(N, 3, H, W)`, by block and frequency band.

    The amplitude of a band says how much detail a block holds in a few neighboring frequencies, not where the detail
    is. A network cannot know where the teacher puts fine detail, and under a loss on pixels alone returns the mean of
    all places, which is soft; with the amplitudes the network returns as much detail as the teacher. Small blocks keep
    detail out of flat areas. Single frequencies would not do: in a texture the amplitude of a single frequency is
    random, so the best guess is too small. Rings of frequencies would let a grid of dots pass for texture.

    Args:
        output: The network's output.
        target: The teacher's output.
        block: Edge of the blocks in pixels, 2 or more; 0 for the whole patch. Neighboring blocks overlap by half.
    """
    height, width = output.shape[2:]
    edges = (min(block, height), min(block, width)) if block else (height, width)
    window, bands = (each.to(output.device) for each in _window_and_bands(*edges))
    first, second = (_log_amplitudes(each.float(), window, bands) for each in (output, target))
    return F.l1_loss(first, second)


def _log_amplitudes(picture: Tensor, window: Tensor, bands: Tensor) -> Tensor:
    """Return the logarithm of the amplitude of each band `(N, C, rows, columns, bands)` for `(N, C, H, W)`."""
    height, width = window.shape
    blocks = picture.unfold(2, height, max(1, height // 2)).unfold(3, width, max(1, width // 2))
    # Without its mean: the window would spread the mean over the lowest bands.
    blocks = blocks - blocks.mean((-2, -1), keepdim=True)
    power = torch.fft.rfft2(blocks * window, norm="ortho").abs().square()
    return 0.5 * torch.log(power.flatten(-2) @ bands + _MIN_ENERGY)


@cache
def _window_and_bands(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return a Hann window `(height, width)` of mean energy 1, and the share of each frequency in each band.

    The second tensor is `(height * (width // 2 + 1), bands)`: power of an orthonormal `rfft2` times shares is the mean
    square of the detail per pixel. The mean of a block belongs to no band.
    """
    window = torch.outer(torch.hann_window(height), torch.hann_window(width)).sqrt()
    window = window / window.square().mean().sqrt().clamp(min=1e-6)
    columns = width // 2 + 1
    rows = (torch.fft.fftfreq(height, 1 / height).round().long() + height // 2) // _BAND
    of_band = rows[:, None] * (columns // _BAND + 1) + torch.arange(columns) // _BAND
    share = torch.ones(height, columns) / (height * width)
    share[:, 1 : (width + 1) // 2] *= 2  # rfft2 leaves out the negative frequencies
    share[0, 0] = 0
    found, band = of_band.unique(return_inverse=True)
    return window, F.one_hot(band.flatten(), len(found)).float() * share.flatten()[:, None]
