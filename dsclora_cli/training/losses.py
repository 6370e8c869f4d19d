"""Losses between pictures: L1, L2, Charbonnier, a log-MSE loss for PSNR, and L1 losses between spectra.

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


def amplitude_l1(output: Tensor, target: Tensor, block: int) -> Tensor:
    """Return the mean absolute difference of the amplitude spectra of two tensors `(N, 3, H, W)`, block by block.

    Amplitudes say how much detail of each frequency a block holds, not where the detail is. A network cannot know where
    the teacher puts fine detail, and under a loss on pixels alone returns the mean of all places, which is soft; with
    the amplitudes the network returns as much detail as the teacher. Small blocks keep detail out of flat areas.

    Args:
        output: The network's output.
        target: The teacher's output.
        block: Edge of the blocks in pixels; 0 for the whole patch. Pixels after the last whole block are left out.
    """
    height, width = output.shape[2:]
    edges = (min(block, height), min(block, width)) if block else (height, width)
    first, second = (torch.fft.rfft2(_blocks(each.float(), edges), norm="ortho").abs() for each in (output, target))
    return F.l1_loss(first, second)


def _blocks(picture: Tensor, edges: tuple[int, int]) -> Tensor:
    """Cut `(N, C, H, W)` into blocks of `edges` (h, w); return `(N, C, rows, columns, h, w)`."""
    return picture.unfold(2, edges[0], edges[0]).unfold(3, edges[1], edges[1])
