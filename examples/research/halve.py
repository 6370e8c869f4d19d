"""Make small versions of photographs to train on beside them, as benchmark pictures are small: MATLAB's bicubic.

    python examples/research/halve.py PHOTOS HALVED

Each is halved, one of more than 1.2 megapixels also divided by three; what is then below 192 pixels a side is left out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dsclora_cli.imaging.resize import downscale

LARGE = 1_200_000
LEAST = 192


def main(photos: Path, halved: Path) -> None:
    """Write PNGs."""
    halved.mkdir(exist_ok=True)
    for path in sorted(photos.iterdir()):
        picture = np.array(Image.open(path).convert("RGB"))
        height, width = picture.shape[:2]
        for factor in (2, 3) if height * width > LARGE else (2,):
            if min(height, width) // factor >= LEAST:
                Image.fromarray(downscale(picture, factor)).save(halved / f"{path.stem}_d{factor}.png")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
