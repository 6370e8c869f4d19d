"""Make small versions of training photographs with MATLAB's bicubic, because benchmark pictures are small.

    python examples/research/halve.py PHOTOS HALVED

Every photograph is halved; a photograph above 1.2 megapixels is also divided by three. Results below 192 pixels a side,
too small for a patch at x4, are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from folders import pictures_in
from PIL import Image

from dsclora_cli.imaging.resize import downscale

LARGE = 1_200_000  # pixels
LEAST = 192  # pixels a side


def main(photos: Path, halved: Path) -> None:
    """Write a PNG for each photograph and factor."""
    halved.mkdir(exist_ok=True)
    for path in pictures_in(photos):
        picture = np.array(Image.open(path).convert("RGB"))
        height, width = picture.shape[:2]
        for factor in (2, 3) if height * width > LARGE else (2,):
            if min(height, width) // factor >= LEAST:
                Image.fromarray(downscale(picture, factor)).save(halved / f"{path.stem}_d{factor}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("halved", type=Path, metavar="HALVED")
    options = parser.parse_args()
    main(options.photos, options.halved)
