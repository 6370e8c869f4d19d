"""How an image is scored: which metrics, on which channels, without which border."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.metrics import SSIM_WINDOW, crop_border, psnr, psnr_y, ssim, ssim_y

Image = NDArray[np.uint8]
"""`(H, W, 3)` uint8 RGB."""

Metric = Callable[[Image, Image], float]
"""Result and truth to a number."""

_FIDELITY: Mapping[str, Metric] = {
    "psnr_y": partial(psnr_y, border=0),
    "ssim_y": partial(ssim_y, border=0),
    "psnr_rgb": psnr,
    "ssim_rgb": ssim,
}


@dataclass(frozen=True)
class Protocol:
    """Metrics in the order of the report, the first of which decides comparisons, and the border in HR pixels."""

    name: str
    border: int
    metrics: tuple[str, ...]


def protocol_of(name: str, scale: int) -> Protocol:
    """`paper`: PSNR and SSIM on Y and on RGB, border = scale. `ntire`: PSNR on RGB, border 4. Raises UsageError."""
    protocols = {
        "paper": Protocol("paper", scale, tuple(_FIDELITY)),
        "ntire": Protocol("ntire", 4, ("psnr_rgb",)),
    }
    if name not in protocols:
        raise UsageError(f"no protocol is called {name!r}", f"choose {' or '.join(protocols)}")
    return protocols[name]


class Scorer:
    """Scores images by one protocol; `extra` metrics, by name, see the whole image with its border."""

    def __init__(self, protocol: Protocol, extra: Mapping[str, Metric]) -> None:
        self._border = protocol.border
        self._fidelity = {name: _FIDELITY[name] for name in protocol.metrics}
        self._extra = extra

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of all scores, the protocol's first."""
        return (*self._fidelity, *self._extra)

    def __call__(self, result: Image, truth: Image, name: str) -> dict[str, float]:
        """The scores of an image called `name`. Raises ImageError where nothing would remain inside the border."""
        least = 2 * self._border + SSIM_WINDOW
        if min(truth.shape[:2]) < least:
            height, width = truth.shape[:2]
            raise ImageError(
                f"{name}: {width}x{height} pixels are too few to score", f"{least} on each side are needed"
            )
        crop = partial(crop_border, border=self._border)
        scores = {metric: score(crop(result), crop(truth)) for metric, score in self._fidelity.items()}
        return scores | {metric: score(result, truth) for metric, score in self._extra.items()}


def finite_mean(values: Sequence[float]) -> float:
    """The mean over the finite ones of at least one value, inf where there is none: PSNR is inf for equal images."""
    finite = [value for value in values if not math.isinf(value)]
    return math.fsum(finite) / len(finite) if finite else math.inf
