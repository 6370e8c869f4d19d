"""How an image is scored: which metrics, on which channels, without which border.

Learned metrics from pyiqa, an optional package, by its names: lpips, dists, ...
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.metrics import SSIM_WINDOW, crop_border, psnr, psnr_y, ssim, ssim_y
from dsclora_cli.inference.device import resolve_device

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


def open_metrics(names: Sequence[str], device: str) -> dict[str, Metric]:
    """The metrics by name, on a device; pyiqa fetches their networks and is imported only if there is a name.

    Each maps two `(H, W, 3)` uint8 images, the result and the truth, to a number; those without a reference ignore
    the truth. Raises UsageError for a name that pyiqa does not know, and where the package is missing.
    """
    if not names:
        return {}
    try:
        pyiqa = importlib.import_module("pyiqa")
    except ImportError as error:
        raise UsageError(f"--metric {names[0]} needs pyiqa: {error}", 'pip install "dsclora[metrics]"') from error
    known = pyiqa.list_models()
    for name in names:
        if name not in known:
            raise UsageError(f"pyiqa has no metric {name!r}", f"it has {', '.join(known)}")
    runs_on = resolve_device(device)
    return {name: _metric(pyiqa.create_metric(name, device=runs_on), runs_on) for name in names}


def _metric(network: Any, device: torch.device) -> Metric:  # noqa: ANN401 - pyiqa is not typed
    def score(result: Image, truth: Image) -> float:
        pictures = [_tensor(result, device)]
        if network.metric_mode == "FR":
            pictures.append(_tensor(truth, device))
        with torch.inference_mode():
            return float(network(*pictures))

    return score


def _tensor(image: Image, device: torch.device) -> torch.Tensor:
    """`(H, W, 3)` uint8 -> `(1, 3, H, W)` float32 in [0, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(image)).to(device, torch.float32) / 255
    return values.permute(2, 0, 1)[None]
