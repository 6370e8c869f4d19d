"""Vary photographs as pictures in the world vary: sharpened, grainy, saved as JPEG. Makes training data for adapters.

    python examples/research/vary.py PHOTOS... VARIED

Each picture gives one version: an unsharp mask of random radius and amount, grain of random strength and, for half of
the pictures, JPEG of quality 80 to 97. The random numbers depend only on the picture's name.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from zlib import crc32

import numpy as np
from folders import pictures_in
from PIL import Image, ImageFilter

RADIUS = (0.5, 1.5)
"""Radius of the unsharp mask in HR pixels."""
AMOUNT = (0, 150)
"""Amount of the unsharp mask in percent."""
GRAIN = (0.0, 6.0)
"""Standard deviation of the grain in 8-bit levels; all channels of a pixel get the same value."""
QUALITY = (80, 97)
"""Quality of the JPEGs."""


def vary(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return an RGB picture sharpened, with grain and, for half of the pictures, saved as JPEG."""
    mask = ImageFilter.UnsharpMask(random.uniform(*RADIUS), int(random.uniform(*AMOUNT)), threshold=0)
    values = np.asarray(picture.filter(mask), np.float64)
    values = values + random.normal(0, random.uniform(*GRAIN), values.shape[:2])[..., None]
    varied = Image.fromarray(np.uint8(values.round().clip(0, 255)))
    if random.random() < 0.5:
        return varied
    saved = io.BytesIO()
    varied.save(saved, "JPEG", quality=int(random.integers(*QUALITY, endpoint=True)))
    return Image.open(saved)


def main(folders: list[Path], varied: Path) -> None:
    """Write a PNG for each picture."""
    varied.mkdir(exist_ok=True)
    for path in pictures_in(*folders):
        picture = vary(Image.open(path).convert("RGB"), np.random.default_rng(crc32(path.stem.encode())))
        picture.save(varied / f"{path.stem}_v.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTOS")
    parser.add_argument("varied", type=Path, metavar="VARIED")
    options = parser.parse_args()
    main(options.photos, options.varied)
