"""Distances between pictures: L1, L2, Charbonnier, the logarithm that PSNR takes, and L1 between spectra."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

PixelLoss = Callable[[Tensor, Tensor], Tensor]
"""Two tensors of one shape to their mean distance, a scalar."""

_CHARBONNIER = 1e-3
_SMALL_SQUARES = 1e-4


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Mean of `sqrt(d^2 + 0.001^2)`: an L1 that is smooth at zero (LapSRN, arXiv 1704.03915)."""
    return torch.sqrt((output - target) ** 2 + _CHARBONNIER**2).mean()


def log_mse(output: Tensor, target: Tensor) -> Tensor:
    """Mean over the pictures of a batch of the logarithm of their mean squared difference, as PSNR is averaged.

    So each counts by what share of its error goes, however large that is (PSNRLoss of NAFNet, arXiv 2204.04676). Errors
    below 40 dB's are not chased.
    """
    return torch.log((output - target).square().mean((1, 2, 3)) + _SMALL_SQUARES).mean()


PIXEL_LOSSES: dict[str, PixelLoss] = {"l1": F.l1_loss, "l2": F.mse_loss, "charbonnier": charbonnier, "psnr": log_mse}


def spectral(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the orthonormal 2-D spectra of `(N, 3, H, W)`, real and imaginary parts apart."""
    difference = torch.fft.rfft2((output - target).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()
