"""What the user of a picture should know of how it was upscaled."""

from __future__ import annotations

import numpy as np

from dsclora_cli.imaging.ranges import ValueRange
from dsclora_cli.runtime.descriptor import Descriptor


def caveats(values: ValueRange, rescued: int, tiles: int, descriptor: Descriptor) -> tuple[str, ...]:
    """Sentences on a picture of these values, given how many tiles there were and were run again, by which network."""
    sentences = []
    if rescued:
        sentences.append(f"{rescued} tiles had no usable float16 answer and were run again in float32")
    if tiles > 1 and not descriptor.exact_tiles:
        sentences.append(
            f"{descriptor.arch} looks at the whole picture, so {tiles} tiles are not exactly what it would make of it"
            " (--tile 0 takes it whole, if memory allows)"
        )
    if values.dtype == np.float32 and (values.low, values.high) != (0.0, 1.0):
        sentences.append(f"values from {values.low:g} to {values.high:g} were rescaled to [0, 1] and back")
    return tuple(sentences)
