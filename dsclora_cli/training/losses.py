"""Losses between pictures: L1, L2, Charbonnier, a log-MSE loss for PSNR, and losses between spectra.

All take float tensors `(N, 3, H, W)` in about [0, 1], and return a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
_MIN_AMPLITUDE = 2e-3  # half of an 8-bit level: the rounding of the teacher's pictures is no detail
_WINDOWS = (8, 32)
"""Edges of the windows of `detail_l1`, in pixels."""


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


def detail_l1(output: Tensor, target: Tensor, area: int) -> Tensor:
    """Return the mean absolute difference of log amplitudes of two tensors `(N, 3, H, W)`, by area and frequency.

    The mean amplitude of a frequency in an area says how much detail the area holds, not where the detail is. A network
    cannot know where the teacher puts fine detail, and under a loss on pixels alone returns the mean of all places,
    which is soft; with the amplitudes the network returns as much detail as the teacher. Small areas keep detail out
    of flat parts. The amplitudes are those of overlapping windows of two sizes: in a large window a few bright dots
    pass for texture, because a dot has all frequencies; in small windows a grid of dots does.

    Args:
        output: The network's output.
        target: The teacher's output.
        area: Edge of the areas in pixels; 0 for the whole patch. Neighboring areas overlap by half.
    """
    terms = []
    for size in _WINDOWS:
        first, second = (_log_amplitudes(each.float(), size, area) for each in (output, target))
        terms.append(F.l1_loss(first, second))
    return torch.stack(terms).mean()


def _log_amplitudes(picture: Tensor, size: int, area: int) -> Tensor:
    """Return the log of the mean amplitude of each frequency in each area, `(N, C * frequencies, rows, columns)`."""
    height, width = (min(size, edge) for edge in picture.shape[2:])
    window = torch.outer(*(torch.hann_window(edge, device=picture.device) for edge in (height, width)))
    step = size // 2
    blocks = picture.unfold(2, height, step).unfold(3, width, step)
    # Without its mean: the window would spread the mean over the lowest frequencies.
    blocks = (blocks - blocks.mean((-2, -1), keepdim=True)) * window
    amplitudes = torch.fft.rfft2(blocks, norm="ortho").abs().flatten(-2).movedim(-1, 2).flatten(1, 2)
    rows, columns = amplitudes.shape[2:]
    # A single large window says nothing about the mean amplitude, so the windows reach at least over four steps.
    across = max(4, area // step - 1) if area else max(rows, columns)
    kernel = min(across, rows), min(across, columns)
    means = F.avg_pool2d(amplitudes, kernel, [max(1, edge // 2) for edge in kernel])
    return torch.log(means + _MIN_AMPLITUDE)
