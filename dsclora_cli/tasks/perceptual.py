"""Learned metrics from pyiqa, an optional package, by its names: lpips, dists, ..."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dsclora_cli.errors import UsageError
from dsclora_cli.runtime.device import resolve_device
from dsclora_cli.tasks.scores import Image, Metric


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
