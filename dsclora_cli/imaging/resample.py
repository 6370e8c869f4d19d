"""The one resampling of results: from a native scale down to the size asked for."""

from __future__ import annotations

import numpy as np
from PIL import Image

from dsclora_cli.imaging.picture import Pixels


def reduce(pixels: Pixels, width: int, height: int) -> Pixels:
    """Reduce to `(height, width, C)` by an antialiased Lanczos filter, at the picture's own depth.

    Channels are resized one by one: an RGBA picture is not premultiplied on the way, its colour is already bled
    under transparent pixels. 16-bit and float channels are resized in float32.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    result = np.empty((height, width, pixels.shape[2]), pixels.dtype)
    for channel in range(pixels.shape[2]):
        plane = pixels[:, :, channel]
        image = Image.fromarray(np.ascontiguousarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32)))
        resized = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
        if pixels.dtype == np.uint16:
            resized = np.rint(np.clip(resized, 0, 65535))
        result[:, :, channel] = resized
    return result
