"""Make photographs differ as pictures of the world do: sharpened, grainy, once saved as JPEG. For adapters' data.

    python examples/research/vary.py PHOTOS... VARIED

Of each picture one version: an unsharp mask of a random radius and amount, grain of a random strength, and for half of
them JPEG of quality 80 to 97. What is drawn depends on the picture's name alone.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image, ImageFilter

RADIUS = (0.5, 1.5)
"""Of the unsharp mask, HR pixels."""
AMOUNT = (0, 150)
"""Of the unsharp mask, percent."""
GRAIN = (0.0, 6.0)
"""Standard deviation, grey levels of 255, one value for all channels of a pixel."""
QUALITY = (80, 97)


def vary(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """An RGB picture, sharpened, with grain, perhaps through JPEG."""
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
    """Write PNGs."""
    varied.mkdir(exist_ok=True)
    for path in sorted(path for folder in folders for path in folder.iterdir()):
        picture = vary(Image.open(path).convert("RGB"), np.random.default_rng(crc32(path.stem.encode())))
        picture.save(varied / f"{path.stem}_v.png")


if __name__ == "__main__":
    *photos, result = map(Path, sys.argv[1:])
    main(photos, result)
