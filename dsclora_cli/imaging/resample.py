"""The one resampling of results: from a native scale down to the size asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
from PIL import Image

from dsclora_cli.imaging.picture import Pixels

_REACH = 3  # of the Lanczos filter, in pixels of the result


def reduced(bands: Iterable[Pixels], rows: int, width: int, height: int) -> Iterator[Pixels]:
    """Reduce a picture of so many `rows` to `(height, width, C)` by an antialiased Lanczos filter, at its own depth.

    It comes and goes in bands, of which no more are held than the filter reaches. Channels are resized one by one: an
    RGBA picture is not premultiplied on the way, its colour is already bled under transparent pixels. 16-bit and float
    channels are resized in float32.
    """
    ratio = Fraction(rows, height)
    reach = _REACH * max(ratio, Fraction(1)) + 1
    held: Pixels | None = None
    top = done = 0
    for band in bands:
        held = band if held is None else np.concatenate([held, band])
        bottom = top + len(held)
        ready = height if bottom == rows else int((bottom - reach) / ratio)
        if ready > done:
            yield _resized(held, width, ready - done, (done * ratio - top, ready * ratio - top))
            done = ready
        needless = max(0, int(done * ratio - reach) - top)
        held, top = held[needless:], top + needless


def _resized(pixels: Pixels, width: int, height: int, rows: tuple[Fraction, Fraction]) -> Pixels:
    """The part of a picture between two rows, which may lie between pixels, as `(height, width, C)`."""
    result = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    box = 0.0, float(rows[0]), float(pixels.shape[1]), min(float(rows[1]), float(len(pixels)))
    for channel in range(pixels.shape[2]):
        plane = pixels[:, :, channel]
        image = Image.fromarray(np.ascontiguousarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32)))
        resized = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, box))
        if pixels.dtype == np.uint16:
            resized = np.rint(np.clip(resized, 0, 65535))
        result[:, :, channel] = resized
    return result
