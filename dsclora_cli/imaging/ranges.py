"""Between a file's pixel values and the network's [0, 1]: the only place that scales, clamps and rounds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from dsclora_cli.imaging.picture import Pixels
from dsclora_cli.runtime.engine import Values

_ROWS = 32  # that stay in the caches from one step to the next


@dataclass(frozen=True)
class ValueRange:
    """The values that mean black and white in a picture: 0 and the largest integer, or two floats."""

    low: float
    high: float
    dtype: np.dtype[np.uint8 | np.uint16 | np.float32]

    def to_unit(self, pixels: Pixels, dtype: DTypeLike = np.float32) -> Values:
        """Pixels of any depth -> floats, `low` and `high` becoming 0 and 1; same shape."""
        values: Values = pixels.astype(dtype)
        if self.low:
            values -= self.low
        values *= 1.0 / (self.high - self.low)
        return values

    def from_unit(self, values: Values) -> Pixels:
        """The inverse of `to_unit`: clamped to the range, integers rounded to the nearest; same shape."""
        pixels: Pixels = np.empty(values.shape, self.dtype)
        for top in range(0, len(values), _ROWS):
            scaled = np.clip(values[top : top + _ROWS], 0.0, 1.0)
            scaled *= self.high - self.low
            if self.low:
                scaled += self.low
            pixels[top : top + _ROWS] = np.rint(scaled, out=scaled) if self.dtype.kind == "u" else scaled
        return pixels


def value_range(pixels: Pixels) -> ValueRange:
    """The range of a picture. Floats in [0, 1] have that range; others have their own extremes, so nothing is lost."""
    if pixels.dtype.kind == "u":
        return full_range(pixels.dtype)
    low, high = min(0.0, float(pixels.min())), max(1.0, float(pixels.max()))
    return ValueRange(low, high, pixels.dtype)


def full_range(dtype: np.dtype[Any]) -> ValueRange:
    """The range of every picture of integers."""
    return ValueRange(0.0, 255.0 if dtype == np.uint8 else 65535.0, dtype)
