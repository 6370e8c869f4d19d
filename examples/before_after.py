"""Show part of a photograph enlarged by bicubic interpolation (left) and by dsclora (right).

    python examples/before_after.py examples/photo.png docs/before-after.png --box 130,78,240,160
    python examples/before_after.py examples/photo.png docs/sharp.png --box 140,108,204,160 --sharp 0 0.5 1

The box is left, top, right, bottom in pixels of the photograph; the default is the whole photograph. `--sharp` shows
`dsclora-x4-photo` with each sharpness instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dsclora_cli import Upscaler
from dsclora_cli.config import ModelOptions, UpscaleOptions

GAP = 8  # pixels between the enlargements


def before_and_after(photo: Image.Image) -> list[Image.Image]:
    """Return the photograph enlarged by bicubic interpolation and by the network that `auto` chooses."""
    large = Upscaler()(photo)
    return [photo.resize(large.size, Image.Resampling.BICUBIC), large]


def sharpened(photo: Image.Image, strengths: Sequence[float]) -> list[Image.Image]:
    """Return the photograph enlarged with each sharpness."""
    models = (ModelOptions("dsclora-x4-photo", sharp=strength) for strength in strengths)
    return [Upscaler(options=UpscaleOptions(model=model))(photo) for model in models]


def side_by_side(pictures: Sequence[Image.Image], box: Sequence[int]) -> Image.Image:
    """Return the box of pictures of equal size, next to each other."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    # White shows in the gaps between the pictures.
    sheet = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture.crop((left, top, right, bottom)), (index * (width + GAP), 0))
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--box", type=lambda text: [int(edge) for edge in text.split(",")])
    parser.add_argument("--sharp", type=float, nargs="+")
    options = parser.parse_args(arguments)
    photo = Image.open(options.photo).convert("RGB")
    # The networks see the whole photograph, as in use.
    pictures = sharpened(photo, options.sharp) if options.sharp else before_and_after(photo)
    scale = pictures[0].width // photo.width
    box = [scale * edge for edge in options.box or (0, 0, *photo.size)]
    side_by_side(pictures, box).save(options.target)


if __name__ == "__main__":
    main()
