"""Scores on held-out pictures: whole pictures, upscaled in tiles and scored as `dsclora eval` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dsclora_cli.datasets.patches import HeldOut
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.inference.tiling import TileOptions, upscale_array
from dsclora_cli.inference.torch_cpu import open_torch_engine
from dsclora_cli.models.network import Network

_TILE = 256
_MOST_DB = 100.0
"""Highest PSNR of a picture that counts: one level of error in 110,000 pixels. Equal pictures have an infinite PSNR."""


@dataclass(frozen=True)
class Sample:
    """A held-out picture and its score; all pictures are `(H, W, 3)`, uint8."""

    name: str
    psnr_y: float
    """PSNR-Y of `sr` against `hr` in dB, without a border of `scale` pixels."""
    lr: NDArray[np.uint8]
    sr: NDArray[np.uint8]
    """The network's output for `lr`, of the size of `hr`."""
    hr: NDArray[np.uint8]


def validate(network: Network, held_out: HeldOut, device: torch.device) -> list[Sample]:
    """Upscale and score every held-out picture that is not flat, in float32.

    Args:
        network: A network in merged form; validation moves the network to `device`.
        held_out: The pictures.
        device: Where to compute.
    """
    engine = open_torch_engine(network, network.config.descriptor, device, torch.float32)
    samples = []
    for name, lr, hr in held_out.load():
        result = upscale_array(lr, engine, TileOptions(_TILE, may_halve=True)).astype(np.uint8, copy=False)
        samples.append(Sample(name, psnr_y(result, hr, network.config.scale), lr, result, hr))
    return samples


def mean_psnr(samples: Sequence[Sample]) -> float:
    """Return the mean PSNR-Y of pictures in dB, where a picture counts at most 100 dB, so that the mean is finite."""
    return sum(min(sample.psnr_y, _MOST_DB) for sample in samples) / len(samples)
