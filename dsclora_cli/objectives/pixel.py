"""Distances between pictures: L1, L2, Charbonnier, and L1 between spectra."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two tensors of one shape to their mean distance, a scalar."""

_CHARBONNIER = 1e-3


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Mean of `sqrt(d^2 + 0.001^2)`: an L1 that is smooth at zero (LapSRN, arXiv 1704.03915)."""
    return torch.sqrt((output - target) ** 2 + _CHARBONNIER**2).mean()


DISTANCES: dict[str, Distance] = {"l1": F.l1_loss, "l2": F.mse_loss, "charbonnier": charbonnier}


def spectral(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the orthonormal 2-D spectra of `(N, 3, H, W)`, real and imaginary parts apart."""
    difference = torch.fft.rfft2((output - target).float(), norm="ortho")
    return torch.view_as_real(difference).abs().mean()
