"""Whether a copy of a benchmark set is the true one, and the known ways in which copies are wrong."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.datasets.benchmarks import BenchmarkSet, read_rgb
from dsclora_cli.imaging.metrics import luma

FINGERPRINTS = {
    "Set5": "492d09575298560f5e202a58eadbea23e459fe339605cd43b214125e45def152",
    "Set14": "20c469f95a403ec61449c24d52a086853c6570212b829d30039eaf54988b66cb",
    "BSD100": "242c3a3db394d79f039a5f450ce892dee8970a80af6796227c21992a9594bb61",
    "Urban100": "4bc1f94262e85feed3b3ac10ce0b7a1388508f6e692c9e985edcf431effd0d94",
    "Manga109": "45f880d236d1abd77330b08fc0bf68a593d451dbf5f569a459c65e038dfdbe1e",
}
"""Of the true copies, HR uncropped."""

_CENTRE = 512
_HALF_SIZE_EDGE = 700
# Bands of frequency, 1 being Nyquist's, and how many dB the second may lie below the first. Measured: at most 21.0 and
# 25.5 in the 119 pictures of Set5, Set14 and BSD100; above one of the bounds in 466 of 468 enlarged copies of them.
_ENLARGED = (((0.25, 0.4), (0.7, 2.0), 22.0), ((0.1, 0.2), (0.4, 2.0), 27.0))


@dataclass(frozen=True)
class Identity:
    """What is known of a copy. A set that is not in the table, and a cropped copy of one that is, are unknown."""

    fingerprint: str
    verdict: Literal["verified", "unknown copy"]
    warning: str | None


def identify(benchmark: BenchmarkSet) -> Identity:
    """Compare the set's uncropped HR pictures with the true copy of its name. Raises ImageError as `read_rgb` does."""
    digests, edges, enlarged = [], [], 0
    for pair in benchmark.pairs:
        rgb = read_rgb(pair.hr)
        digests.append(picture_digest(rgb))
        edges.append(max(rgb.shape))
        enlarged += looks_enlarged(rgb)
    found = fingerprint(digests)
    if found == FINGERPRINTS.get(benchmark.name):
        return Identity(found, "verified", None)
    return Identity(found, "unknown copy", _warning(benchmark.name, edges, enlarged))


def picture_digest(rgb: NDArray[np.uint8]) -> str:
    """The sha256, in hex, of a picture `(H, W, 3)` uint8: of its size as text, then its bytes."""
    height, width = rgb.shape[:2]
    return hashlib.sha256(f"{width}x{height}:".encode() + rgb.tobytes()).hexdigest()


def fingerprint(digests: Sequence[str]) -> str:
    """Of a set, from the digests of its HR pictures in any order: names and lossless containers do not matter."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def looks_enlarged(rgb: NDArray[np.uint8]) -> bool:
    """Whether the picture's centre lacks the high frequencies that a photograph, unlike an enlarged LR, has.

    `(H, W, 3)` uint8. Bicubic, bilinear and Lanczos enlargements are noticed, pixel replication is not.
    """
    height, width = rgb.shape[:2]
    top, left = max(0, height - _CENTRE) // 2, max(0, width - _CENTRE) // 2
    plane = luma(rgb[top : top + _CENTRE, left : left + _CENTRE])
    height, width = plane.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    power = np.abs(np.fft.rfft2((plane - plane.mean()) * window)) ** 2 + 1  # far above float rounding, below 8-bit's
    frequency = 2 * np.maximum(np.abs(np.fft.fftfreq(height))[:, None], np.fft.rfftfreq(width))

    def mean(band: tuple[float, float]) -> float:
        inside = power[(frequency >= band[0]) & (frequency < band[1])]
        return float(inside.mean()) if inside.size else 0.0

    return any(mean(high) * 10 ** (decibels / 10) < mean(middle) for middle, high, decibels in _ENLARGED)


def _warning(name: str, edges: Sequence[int], enlarged: int) -> str | None:
    count = len(edges)
    if enlarged > count / 2:
        return f"{enlarged} of {count} HR pictures look like enlarged LR: scores on them are far too high"
    if name == "Urban100" and statistics.median(edges) < _HALF_SIZE_EDGE:
        return f"the HR pictures are half as large as the true ones: their median long edge is {_edge(edges)} pixels"
    return None


def _edge(edges: Sequence[int]) -> int:
    return round(statistics.median(edges))
