"""Names that weight files, options and reports share: architectures, metrics and the baseline of scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class ArchitectureFacts:
    """An architecture that a network can be trained in."""

    title: str
    """Name for people."""

    channels: int
    """Channels of a network by default."""

    blocks: int
    """Blocks of a network by default; for RCAN the blocks of one group."""


@dataclass(frozen=True)
class MetricFacts:
    """A metric of `dsclora eval`."""

    title: str
    """Name for people."""

    unit: str = ""
    """Unit of the scores; empty for a metric without a unit."""


ARCHITECTURES: Mapping[str, ArchitectureFacts] = MappingProxyType(
    {
        "span": ArchitectureFacts("SPAN", 48, 6),
        "compact": ArchitectureFacts("Compact", 64, 16),
        "edsr": ArchitectureFacts("EDSR", 64, 16),
        "rcan": ArchitectureFacts("RCAN", 64, 20),
    }
)
"""Architectures by the names in weight files, in catalogs and in `--arch`; `weights.detect.KNOWN` has the networks."""

NIQE = "niqe"
"""Metric without a reference; a lower score is better."""

METRICS: Mapping[str, MetricFacts] = MappingProxyType(
    {
        "psnr_y": MetricFacts("PSNR-Y", "dB"),
        "ssim_y": MetricFacts("SSIM-Y"),
        "psnr_rgb": MetricFacts("PSNR-RGB", "dB"),
        "ssim_rgb": MetricFacts("SSIM-RGB"),
        NIQE: MetricFacts("NIQE"),
    }
)
"""Metrics by the keys in reports and in catalogs. Metrics of the package pyiqa have no title."""

BASELINE = "bicubic"
"""Name of the first row of every set in a report: the LR, upscaled by MATLAB's bicubic resampling."""


def metric_title(key: str) -> str:
    """Return the title of a metric; the key itself for a metric of the package pyiqa."""
    return METRICS[key].title if key in METRICS else key
