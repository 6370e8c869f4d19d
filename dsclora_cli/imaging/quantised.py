"""How strongly a JPEG was compressed, from the quantisation tables that it carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""The luminance table of ITU-T T.81, Annex K.1, which the IJG's library scales by quality."""


def jpeg_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """The IJG quality, 1 to 100, whose luminance table is nearest to the file's; None for a file without tables.

    Tables of other encoders (cameras, Photoshop) are no scaled Annex K: for them it is the quality of like strength.
    """
    if 0 not in tables or len(tables[0]) != len(_LUMINANCE):
        return None
    # Sorted, as decoders differ in whether they undo the zigzag; a 0 is damage that the decoder will speak of.
    table = np.sort(np.maximum(tables[0], 1.0))
    distances = [float(np.abs(np.log(table / np.sort(_scaled(quality)))).sum()) for quality in range(1, 101)]
    return 1 + int(np.argmin(distances))


def _scaled(quality: int) -> NDArray[np.float64]:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled: NDArray[np.float64] = np.clip((np.array(_LUMINANCE) * percent + 50) // 100, 1, 255).astype(np.float64)
    return scaled
