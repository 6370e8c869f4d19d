"""Fingerprints of benchmark sets: whether a copy is the original, and the known faults of copies."""

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
"""Fingerprints of the original sets, with HR pictures not cropped."""

_CENTER = 512
"""Side in pixels of the central part of a picture in which `looks_enlarged` measures frequencies."""

_HALF_SIZE_EDGE = 700
"""Median long edge in pixels below which a copy of Urban100 has half the size; about 1024 in the original."""

# Each row: two frequency bands, 1.0 being the Nyquist frequency, and a bound in dB on how far the power in the second
# band may lie below the power in the first. Measured in the 119 pictures of Set5, Set14 and BSD100: at most 21.0 and
# 25.5 dB. Of 468 enlarged copies, 466 exceed a bound.
_ENLARGED = (((0.25, 0.4), (0.7, 2.0), 22.0), ((0.1, 0.2), (0.4, 2.0), 27.0))


@dataclass(frozen=True)
class Identity:
    """Result of comparing a copy of a set with the original."""

    fingerprint: str

    verdict: Literal["verified", "unknown copy"]
    """`unknown copy` also for a set without a known fingerprint, and for a cropped copy of a known set."""

    warning: str | None
    """Sentence about a known fault, None without one."""


def identify(benchmark: BenchmarkSet) -> Identity:
    """Compare the HR pictures of a set, not cropped, with the original of the same name.

    Raises ImageError for a picture that cannot be read, see `read_rgb`.
    """
    digests, long_edges, enlarged = [], [], 0
    for pair in benchmark.pairs:
        rgb = read_rgb(pair.hr, benchmark.max_pixels)
        digests.append(picture_digest(rgb))
        long_edges.append(max(rgb.shape))
        enlarged += looks_enlarged(rgb)
    found = fingerprint(digests)
    if found == FINGERPRINTS.get(benchmark.name):
        return Identity(found, "verified", None)
    return Identity(found, "unknown copy", _warning(benchmark.name, long_edges, enlarged))


def picture_digest(rgb: NDArray[np.uint8]) -> str:
    """Return the sha256, in hex, of `(H, W, 3)` uint8 pixels: of the text "WxH:", followed by the bytes."""
    height, width = rgb.shape[:2]
    return hashlib.sha256(f"{width}x{height}:".encode() + rgb.tobytes()).hexdigest()


def fingerprint(digests: Sequence[str]) -> str:
    """Return the fingerprint of a set from the digests of the HR pictures, in any order.

    File names and lossless file formats do not change the fingerprint.
    """
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def looks_enlarged(rgb: NDArray[np.uint8]) -> bool:
    """Return whether a picture, `(H, W, 3)` uint8, looks like an enlarged LR picture.

    The center of an enlarged picture lacks the high frequencies of a photograph. Bicubic, bilinear and Lanczos
    enlargement is noticed; pixel replication is not.
    """
    height, width = rgb.shape[:2]
    top, left = max(0, height - _CENTER) // 2, max(0, width - _CENTER) // 2
    plane = luma(rgb[top : top + _CENTER, left : left + _CENTER])
    height, width = plane.shape
    # The window fades to zero at the borders: the FFT is periodic and would see an edge there.
    window = np.hanning(height)[:, None] * np.hanning(width)
    # 1 is far above float rounding and far below 8-bit noise, and keeps flat pictures from looking enlarged.
    power = np.abs(np.fft.rfft2((plane - plane.mean()) * window)) ** 2 + 1
    frequency = 2 * np.maximum(np.abs(np.fft.fftfreq(height))[:, None], np.fft.rfftfreq(width))

    def mean_power(band: tuple[float, float]) -> float:
        inside = power[(frequency >= band[0]) & (frequency < band[1])]
        return float(inside.mean()) if inside.size else 0.0  # tiny pictures have empty bands

    return any(mean_power(high) * 10 ** (decibels / 10) < mean_power(low) for low, high, decibels in _ENLARGED)


def _warning(name: str, long_edges: Sequence[int], enlarged: int) -> str | None:
    """Return a sentence about a known fault of a copy, from the long edges and the number of enlarged pictures."""
    count = len(long_edges)
    if enlarged > count / 2:
        return f"{enlarged} of {count} HR pictures look like enlarged LR: scores on them are far too high"
    edge = statistics.median(long_edges)
    if name == "Urban100" and edge < _HALF_SIZE_EDGE:
        return f"the HR pictures have half the true size: their median long edge is {round(edge)} pixels"
    return None
