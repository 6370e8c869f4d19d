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
from dsclora_cli.errors import DscloraError

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


def box_of(text: str) -> list[int]:
    """Return left, top, right and bottom of a box. Raises ArgumentTypeError for a text that is none."""
    try:
        left, top, right, bottom = (int(edge) for edge in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LEFT,TOP,RIGHT,BOTTOM in whole pixels") from None
    if not (0 <= left < right and 0 <= top < bottom):
        raise argparse.ArgumentTypeError(f"{text!r} holds no pixels: LEFT < RIGHT and TOP < BOTTOM are needed")
    return [left, top, right, bottom]


def sharpness_of(text: str) -> float:
    """Return a sharpness. Raises ArgumentTypeError for a number that is none."""
    if not 0 <= (sharpness := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a sharpness from 0 to 1")
    return sharpness


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--box", type=box_of, metavar="LEFT,TOP,RIGHT,BOTTOM")
    parser.add_argument("--sharp", type=sharpness_of, nargs="+", metavar="0..1")
    options = parser.parse_args(arguments)
    if options.target.suffix.lower() not in Image.registered_extensions():
        raise SystemExit(f"{options.target} has the name of no picture format: name a .png")
    try:
        photo = Image.open(options.photo).convert("RGB")
    except OSError as error:
        raise SystemExit(f"{options.photo} cannot be read: {error.strerror or 'no picture'}") from error
    box = options.box or (0, 0, *photo.size)
    if box[2] > photo.width or box[3] > photo.height:
        raise SystemExit(f"--box reaches beyond the {photo.width} x {photo.height} pixels of {options.photo}")
    try:
        # The networks see the whole photograph, as in use.
        pictures = sharpened(photo, options.sharp) if options.sharp else before_and_after(photo)
    except DscloraError as error:  # its text names the problem and the next step
        raise SystemExit(str(error)) from error
    scale = pictures[0].width // photo.width
    try:
        side_by_side(pictures, [scale * edge for edge in box]).save(options.target)
    except OSError as error:
        raise SystemExit(f"{options.target} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    main()
