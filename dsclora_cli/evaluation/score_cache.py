"""Cache of the scores of single images: an interrupted evaluation resumes from small JSON files.

Scores are found again under an equal `ScoreKey` only. Files are written atomically.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from dsclora_cli.evaluation.report import HR, RowInfo
from dsclora_cli.names import BASELINE
from dsclora_cli.paths import atomic_write, read_small, state_dir

SCORES_VERSION = 2
"""Version of the arithmetic behind kept scores and saved images, and of the cache files.

Raise the number with every change of code that may change a score or a pixel: reading of pictures, resampling, JPEG
degradation, tiling, engines, rounding, color conversion, metrics. All images are then scored again. Leave the
number alone when names, messages, options or tables change.
"""


@dataclass(frozen=True)
class PixelKey:
    """Everything that decides the pixels of a result."""

    lr: str
    """Digest of the LR image."""

    scale: int

    weights: str
    """sha256 of the weights, or the name of the baseline."""

    engine: str | None
    device: str | None
    """Kind of device, `cpu`, `cuda` or `mps`: GPUs of one kind share scores."""

    dtype: str | None
    ensemble: bool

    tile: int | None
    """Tile size as requested. Tiles chosen from free memory share a key: tile sizes differ by rounding errors only."""

    openvino_version: str | None = None
    """None for the other engines."""

    torch_version: str = str(torch.__version__)
    numpy_version: str = np.__version__
    version: int = SCORES_VERSION


@dataclass(frozen=True)
class ScoreKey:
    """Everything that decides the scores of an image."""

    pixels: PixelKey

    hr: str
    """Digest of the HR image, after cropping to a multiple of the scale."""

    border: int
    """HR pixels on each side that are not scored."""

    metrics: tuple[str, ...]

    pyiqa_version: str | None = None
    """None without a metric of pyiqa."""


def pixel_key(row: RowInfo, lr: str, scale: int) -> PixelKey:
    """Return the key of the result of a row for the LR image with the digest `lr`."""
    return PixelKey(
        lr=lr,
        scale=scale,
        weights=row.weights_sha256 or BASELINE,
        engine=row.engine,
        device=row.device and row.device.partition(":")[0],
        dtype=row.dtype,
        ensemble=row.ensemble,
        tile=row.tile,
        openvino_version=_openvino_version() if row.engine == "openvino" else None,
    )


@cache
def _openvino_version() -> str:
    """Return the version, which is read from a file once: every image of a row has a key."""
    return version("openvino")


def hr_key(hr: str, scale: int) -> PixelKey:
    """Return the key of an HR image itself, with the digest `hr`: no network decides the pixels."""
    return replace(pixel_key(RowInfo(HR), hr, scale), weights=HR)


def score_folder() -> Path:
    """Return the folder that scores are kept in."""
    return state_dir() / "eval"


def load_scores(key: ScoreKey) -> dict[str, float] | None:
    """Return the scores by metric under a key, or None where none are kept or the file is damaged."""
    file, plain_key = _cache_file(key)
    try:
        # The key in the file is compared as well as the name of the file: a copied or damaged file must not pass.
        record = json.loads(read_small(file))
        if record["key"] != plain_key:
            return None
        return {str(metric): float(score) for metric, score in record["scores"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def save_scores(key: ScoreKey, scores: Mapping[str, float]) -> None:
    """Keep the scores of an image by metric. Raises OSError."""
    file, plain_key = _cache_file(key)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps({"key": plain_key, "scores": scores}), encoding="utf-8")


def _cache_file(key: ScoreKey) -> tuple[Path, object]:
    """Return the file for a key, and the key as JSON gives a key back: JSON turns tuples into lists."""
    # Sorted, so that the order of the fields does not matter for the hash.
    text = json.dumps(asdict(key), sort_keys=True)
    return score_folder() / f"{hashlib.sha256(text.encode()).hexdigest()}.json", json.loads(text)
