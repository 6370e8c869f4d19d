"""Show part of a photograph enlarged by bicubic interpolation (left) and by dsclora (right).

    python examples/before_after.py examples/photo.png docs/before-after.png --box 130,78,240,160

The box is left, top, right, bottom in pixels of the photograph; the default is the whole photograph.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dsclora_cli import Upscaler

GAP = 8  # pixels between the enlargements


def side_by_side(photo: Image.Image, box: Sequence[int]) -> Image.Image:
    """Return both enlargements of the box next to each other. The network sees the whole photograph, as in use."""
    large = Upscaler()(photo)
    scale = large.width // photo.width
    before = photo.resize(large.size, Image.Resampling.BICUBIC)
    left, top, right, bottom = (scale * edge for edge in box)
    # White shows in the gap between the enlargements.
    both = Image.new("RGB", (2 * (right - left) + GAP, bottom - top), "white")
    both.paste(before.crop((left, top, right, bottom)), (0, 0))
    both.paste(large.crop((left, top, right, bottom)), (right - left + GAP, 0))
    return both


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--box", type=lambda text: [int(edge) for edge in text.split(",")])
    options = parser.parse_args(arguments)
    photo = Image.open(options.photo).convert("RGB")
    side_by_side(photo, options.box or (0, 0, *photo.size)).save(options.target)


if __name__ == "__main__":
    main()
