"""Protocols: metrics, channels and border for scoring an image.

Extra metrics come on top of a protocol: NIQE, and metrics of the package pyiqa (optional): lpips, dists, ...
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.metrics import SSIM_WINDOW, Plane, crop_border, luma, psnr, ssim
from dsclora_cli.imaging.niqe import niqe
from dsclora_cli.inference.device import resolve_device
from dsclora_cli.names import NIQE

Image = NDArray[np.uint8]
"""`(H, W, 3)` uint8 RGB."""

Metric = Callable[[Image, Image], float]
"""Return the score of a result, given the result and the HR image."""

_FIDELITY: Mapping[str, Callable[[Image | Plane, Image | Plane], float]] = {
    "psnr_y": psnr,
    "ssim_y": ssim,
    "psnr_rgb": psnr,
    "ssim_rgb": ssim,
}
"""Formula of each metric of a protocol; metrics with the ending `_y` compare luma."""


@dataclass(frozen=True)
class Protocol:
    """How a paper or a challenge scores images."""

    name: str

    border: int
    """HR pixels on each side that are not scored."""

    metrics: tuple[str, ...]
    """Metrics in the order of the report; comparisons use the first metric."""

    def check_size(self, path: Path, size: tuple[int, int], scale: int) -> None:
        """Raise ImageError where too few pixels of an HR picture of this width and height remain inside the border."""
        # HR is cropped to a multiple of the scale before the border is.
        needed = math.ceil((2 * self.border + SSIM_WINDOW) / scale) * scale
        if min(size) < needed:
            problem = f"{path} has {size[0]} x {size[1]} pixels, too few to score at x{scale}"
            raise ImageError(problem, f"remove it, or give a picture of at least {needed} pixels on each side")


def protocol_of(name: str, scale: int) -> Protocol:
    """Return a protocol by name: `paper` (PSNR and SSIM on Y and on RGB, border = scale) or `ntire` (PSNR on RGB).

    Raises UsageError for another name.
    """
    protocols = {
        "paper": Protocol("paper", scale, tuple(_FIDELITY)),
        "ntire": Protocol("ntire", 4, ("psnr_rgb",)),
    }
    if name not in protocols:
        raise UsageError(f"no protocol is called {name!r}", f"choose {' or '.join(protocols)}")
    return protocols[name]


class Scorer:
    """Computes the metrics of a protocol and NIQE inside the border, and metrics of pyiqa on the whole image."""

    def __init__(self, protocol: Protocol, extra: Mapping[str, Metric]) -> None:
        self._border = protocol.border
        self._fidelity = {name: _FIDELITY[name] for name in protocol.metrics}
        self._extra = extra
        self.metrics = (*self._fidelity, *extra)
        self.no_reference = tuple(name for name in extra if name == NIQE)
        """Metrics that score HR itself as well: without a reference, HR shows what a good score is."""
        self.pyiqa_version = getattr(sys.modules.get("pyiqa"), "__version__", None) if set(extra) - {NIQE} else None
        """Version of the package that computes the extra metrics but NIQE; None where no such metric is asked for."""

    def __call__(self, result: Image, truth: Image) -> dict[str, float]:
        """Return the score of a result by metric.

        Args:
            result: upscaled image, `(H, W, 3)` uint8.
            truth: HR image, `(H, W, 3)` uint8, of a size that `Protocol.check_size` allows.
        """
        # Metrics of pyiqa see the whole image: their authors define no border.
        colors = crop_border(result, self._border), crop_border(truth, self._border)
        lumas = luma(colors[0]), luma(colors[1])
        scores = {
            metric: formula(*(lumas if metric.endswith("_y") else colors)) for metric, formula in self._fidelity.items()
        }
        return scores | {metric: score(result, truth) for metric, score in self._extra.items()}

    def score_hr(self, truth: Image) -> dict[str, float]:
        """Return the score of an HR image `(H, W, 3)` uint8, by metric without a reference."""
        return {metric: self._extra[metric](truth, truth) for metric in self.no_reference}


def open_metrics(names: Sequence[str], device: str, border: int) -> dict[str, Metric]:
    """Return extra metrics by name, in the given order.

    Args:
        names: `niqe`, which is part of this program, and metrics of pyiqa, which may download networks.
        device: device for the metrics of pyiqa.
        border: HR pixels on each side that NIQE does not see; metrics of pyiqa see the whole image.

    Raises:
        UsageError: a name is unknown, or pyiqa is missing.
    """
    theirs = _open_pyiqa([name for name in names if name != NIQE], device)
    return {name: theirs.get(name, lambda result, _: niqe(crop_border(result, border))) for name in names}


def _open_pyiqa(names: Sequence[str], device: str) -> dict[str, Metric]:
    """Return metrics of pyiqa by name; a metric without a reference ignores the HR image. Raises UsageError."""
    if not names:
        return {}
    # Imported by name and only on request: pyiqa is optional, not typed, and takes seconds to import.
    try:
        pyiqa = importlib.import_module("pyiqa")
    except ImportError as error:
        raise UsageError(f"--metric {names[0]} needs pyiqa: {error}", 'pip install "dsclora[metrics]"') from error
    known = pyiqa.list_models()
    for name in names:
        if name not in known:
            raise UsageError(f"pyiqa has no metric {name!r}", f"choose one of {', '.join(known)}")
    runs_on = resolve_device(device)
    return {name: _pyiqa_metric(pyiqa.create_metric(name, device=runs_on), runs_on) for name in names}


def _pyiqa_metric(network: Any, device: torch.device) -> Metric:  # noqa: ANN401 - pyiqa is not typed
    def score(result: Image, truth: Image) -> float:
        # "FR" is full reference: the metric compares with the HR image.
        images = (result, truth) if network.metric_mode == "FR" else (result,)
        with torch.inference_mode():
            return float(network(*(_tensor(image, device) for image in images)))

    return score


def _tensor(image: Image, device: torch.device) -> torch.Tensor:
    """Return `(H, W, 3)` uint8 as `(1, 3, H, W)` float32 in [0, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(image)).to(device, torch.float32) / 255
    return values.permute(2, 0, 1)[None]
