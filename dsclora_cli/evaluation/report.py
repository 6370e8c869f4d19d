"""Result types and callbacks of an evaluation, without torch and NumPy.

The fields of `EvalReport` are the keys of `dsclora eval --json`. `evaluate` (evaluate.py) fills the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dsclora_cli.callbacks import Callbacks

if TYPE_CHECKING:
    from dsclora_cli.evaluation.cost import Cost
    from dsclora_cli.evaluation.protocol import Protocol
    from dsclora_cli.evaluation.statistics import Claim, Comparison

HR = "HR"
"""Name of the row with the scores of the HR images themselves, by metrics without a reference."""


class EvalCallbacks(Callbacks):
    """Callbacks of an evaluation. Every method here does nothing; override the methods of interest."""

    def on_unpack(self, name: str, done: int, total: int) -> None:
        """Receive the progress, in bytes, of unpacking a set that was fetched for the first time."""

    def on_sets(self, images: int) -> None:
        """Receive the number of images of all sets, when all sets are open."""

    def on_image(self, benchmark: str, image: str) -> None:
        """Receive the names of a set and of an image, just before every candidate is scored on the image."""

    def on_cost(self) -> None:
        """Receive a call when all images are scored, just before time and memory of the models are measured."""


@dataclass(frozen=True)
class RowInfo:
    """Description of a row: a model and how the model ran."""

    name: str

    weights_sha256: str | None = None
    """sha256 of the weights file in hex; of an adapted model both hashes, `base/adapter`. None for the baseline."""

    device: str | None = None
    """Device of the network, for example `cpu` or `cuda:0`. None for the baseline."""

    dtype: str | None = None
    """Floating-point type of the network. None for the baseline."""

    ensemble: bool = False
    """Whether each result is the mean over 8 flips and transposes."""

    tile: int | None = None
    """Edge of a tile in LR pixels as requested: 0 is the whole image, None means that free memory decided."""

    engine: str | None = None
    """Inference engine: `native`, `torch` or `openvino`. None for the baseline."""

    notes: tuple[str, ...] = ()
    """Sentences about the choice of the weights."""

    cost: Cost | None = None
    """Size, time and memory of the network, when requested. An ensemble is not measured."""


@dataclass(frozen=True)
class RowScores:
    """Scores of one row on one set."""

    name: str

    mean: Mapping[str, float]
    """Mean of each metric over the images with a finite score; infinity where no score is finite."""

    infinite: Mapping[str, int]
    """Number of images with an infinite score, by metric; metrics without infinite scores are absent."""

    images: Mapping[str, Mapping[str, float]]
    """Scores by image name, then by metric."""

    claims: tuple[Claim, ...] = ()
    """Published scores of the model next to the measured scores."""


@dataclass(frozen=True)
class Worst:
    """An image on which a row gains least over the baseline, or loses most."""

    row: str
    image: str

    gain: float
    """Score of the row minus score of the baseline, in dB of the protocol's first metric."""


@dataclass(frozen=True)
class SetReport:
    """Result of one benchmark set."""

    name: str

    images: int
    """Number of images."""

    fingerprint: str
    """Hash of all HR images, see docs/datasets.md."""

    verdict: Literal["verified", "unknown copy"]
    """Whether the HR images are the original pictures of the set."""

    warning: str | None
    """Sentence about a known fault of the copy, None without one."""

    rows: tuple[RowScores, ...]
    """The baseline, then the models in the order of the request."""

    comparisons: tuple[Comparison, ...] = ()
    """Each further model against the first model, by the first metric of the protocol and by NIQE if requested."""

    worst: tuple[Worst, ...] = ()
    """Images with the least gain, as many for each model as requested."""

    hr: RowScores | None = None
    """Scores of the HR images themselves; None unless a metric without a reference is requested."""


@dataclass(frozen=True)
class EvalReport:
    """Result of an evaluation."""

    scale: int
    protocol: Protocol

    metrics: tuple[str, ...]
    """Metrics of the protocol, followed by the extra metrics."""

    rows: tuple[RowInfo, ...]
    """Description of every row, in the order of the rows of each set."""

    sets: tuple[SetReport, ...]

    versions: Mapping[str, str]
    """Versions of this program, of Python and of the packages that compute scores."""

    jpeg: int | None = None
    """JPEG quality that LR images were saved with before upscaling, None for clean LR."""
