"""Scores on held-out pictures: whole, in tiles, as `dsclora eval` scores."""

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


@dataclass(frozen=True)
class Sample:
    """One held-out picture: name, PSNR-Y in dB, LR, what the network made of it, and HR, all `(H, W, 3)` uint8."""

    name: str
    psnr_y: float
    lr: NDArray[np.uint8]
    sr: NDArray[np.uint8]
    hr: NDArray[np.uint8]


def validate(network: Network, held_out: HeldOut, device: torch.device) -> list[Sample]:
    """Upscale every held-out picture in float32; `network` is in merged form and is moved to `device`."""
    engine = open_torch_engine(network, network.config.descriptor, device, torch.float32)
    samples = []
    for name, lr, hr in held_out.pictures():
        result = upscale_array(lr, engine, TileOptions(_TILE, may_halve=True)).astype(np.uint8, copy=False)
        samples.append(Sample(name, psnr_y(result, hr, network.config.scale), lr, result, hr))
    return samples


def mean_psnr(samples: Sequence[Sample]) -> float:
    """The mean PSNR-Y of pictures in dB."""
    return sum(sample.psnr_y for sample in samples) / len(samples)
