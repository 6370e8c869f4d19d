"""Render pages of text, pictures of one kind, for docs/adapt.md.

python examples/make_pages.py FOLDER COUNT SEED
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIDE = 384

# The words of an earlier version of this script. Other words would make other pages than those of docs/adapt.md.
TEXT = r'''
"""Render pages of text, pictures of one kind, for docs/adapt.md. python examples/make_pages.py FOLDER COUNT SEED
""" from __future__ import annotations import random import sys from pathlib import Path from PIL import Image,
ImageDraw, ImageFont SIDE = 384 WORDS =
Path(__file__).with_name("make_pages.py").read_text(encoding="utf-8").split() def page(chance: random.Random) ->
Image.Image: """Return a gray-level page, filled with words in one size, dark on light.""" paper, ink =
chance.randint(215, 255), chance.randint(0, 70) size = chance.randint(14, 22) picture = Image.new("RGB", (SIDE,
SIDE), (paper,) * 3) draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size) for top in
range(-chance.randint(0, size), SIDE, round(size * 1.4)): line = " ".join(chance.choices(WORDS, k=60))
draw.text((-chance.randint(0, 40), top), line, fill=(ink,) * 3, font=font) return picture def main(folder: Path,
count: int, seed: int) -> None: """Write PNGs.""" folder.mkdir() chance = random.Random(seed) for number in
range(count): page(chance).save(folder / f"{number:03}.png") if __name__ == "__main__": main(Path(sys.argv[1]),
int(sys.argv[2]), int(sys.argv[3]))
'''


def page(chance: random.Random) -> Image.Image:
    """Return a gray-level page, filled with words in one size, dark on light."""
    paper, ink = chance.randint(215, 255), chance.randint(0, 70)
    size = chance.randint(14, 22)
    picture = Image.new("RGB", (SIDE, SIDE), (paper,) * 3)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for top in range(-chance.randint(0, size), SIDE, round(size * 1.4)):
        line = " ".join(chance.choices(TEXT.split(), k=60))
        draw.text((-chance.randint(0, 40), top), line, fill=(ink,) * 3, font=font)
    return picture


def main(arguments: Sequence[str] | None = None) -> None:
    """Write PNGs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder to make")
    parser.add_argument("count", type=int, metavar="COUNT", help="number of pages")
    parser.add_argument("seed", type=int, metavar="SEED", help="another number makes other pages")
    options = parser.parse_args(arguments)
    chance = random.Random(options.seed)
    try:
        options.folder.mkdir()
        for number in range(options.count):
            page(chance).save(options.folder / f"{number:03}.png")
    except OSError as error:
        raise SystemExit(f"{error.filename} cannot be written: {error.strerror} (name a folder to make)") from error


if __name__ == "__main__":
    main()
