"""Draw HR pictures of text, boxes, lines, bars and windows in pure colors, to train on besides photographs.

    python examples/research/draw_graphics.py DIR [--count 132] [--seed 0]

A network that is trained on photographs alone may turn text and graphics into noise: see docs/training.md. The drawn
pictures are their own teacher's pictures: `--links DIR` puts a link to each into a folder of `--teacher-images`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

from folders import put_link
from PIL import Image, ImageDraw, ImageFont

SIDE = 480
GRID = 12  # a multiple of x2, x3 and x4: an edge on the grid is also sharp in LR
Color = tuple[int, int, int]


def main(folder: Path, count: int, seed: int, links: list[Path]) -> None:
    """Draw `count` pictures of SIDE x SIDE pixels, each kind in turn, and link each from the folders of `links`."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = list(KINDS.values())
    for index in range(count):
        path = folder / f"drawn_{index:04d}.png"
        save_linked(draw_picture(random.Random(f"{seed} {index}"), kinds[index % len(kinds)]), path, links)


def save_linked(picture: Image.Image, path: Path, links: list[Path]) -> None:
    """Save a picture, and link the picture from each folder of `links`."""
    picture.save(path)
    for place in links:
        put_link(place / path.name, path)


def draw_picture(rng: random.Random, kind: Callable[[random.Random, Image.Image], None]) -> Image.Image:
    """Draw a picture of one kind; half of the pictures are drawn twice as large and reduced, for soft edges."""
    soft = rng.random() < 0.5
    picture = Image.new("RGB", (SIDE, SIDE), color_of(rng))
    kind(rng, picture)
    if soft and kind is not draw_cells:
        large = Image.new("RGB", (2 * SIDE, 2 * SIDE), picture.getpixel((0, 0)))
        kind(rng, large)
        picture = large.reduce(2)
    return picture


def draw_text(rng: random.Random, picture: Image.Image) -> None:
    """Fill the picture with lines of words, of one to three sizes and colors."""
    draw, top = ImageDraw.Draw(picture), 0
    back = picture.getpixel((0, 0))
    while top < picture.height:
        size = rng.choice([12, 16, 20, 24, 32, 40, 48, 64, 96])
        font, ink = font_of(rng, size), ink_on(rng, back)
        for _ in range(rng.randint(1, 4)):
            draw.text((rng.randint(-8, 24), top), " ".join(word_of(rng) for _ in range(14)), fill=ink, font=font)
            top += round(size * rng.uniform(1.0, 1.6))


def draw_boxes(rng: random.Random, picture: Image.Image) -> None:
    """Draw filled and empty boxes; half of the pictures have every edge on the grid."""
    draw, step = ImageDraw.Draw(picture), rng.choice([1, GRID])
    for _ in range(rng.randint(15, 80)):
        left, top = (step * rng.randrange(picture.width // step) for _ in range(2))
        width, height = (step * max(1, rng.randint(2, 140) // step) for _ in range(2))
        filled = rng.random() < 0.8
        box = (left, top, left + width - 1, top + height - 1)
        draw.rectangle(
            box, fill=color_of(rng) if filled else None, outline=color_of(rng), width=rng.choice([1, 4, step])
        )


def draw_lines(rng: random.Random, picture: Image.Image) -> None:
    """Draw lines, circles, arcs and polygons, like a drawing or a chart."""
    draw, span = ImageDraw.Draw(picture), picture.width
    for _ in range(rng.randint(20, 70)):
        points = [(rng.randint(0, span), rng.randint(0, span)) for _ in range(rng.randint(2, 5))]
        color, width, kind = color_of(rng), rng.choice([1, 2, 4, 8, 12]), rng.randrange(4)
        if kind == 0:
            draw.line(points, fill=color, width=width)
        elif kind == 1:
            draw.polygon(points, fill=color)
        else:
            (x, y), radius = points[0], rng.randint(4, 100)
            box = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(box, fill=color if kind == 2 else None, outline=color, width=width)


def draw_bars(rng: random.Random, picture: Image.Image) -> None:
    """Cover bands of the picture with color bars, stripes, checks or ramps, like a test picture."""
    draw, top = ImageDraw.Draw(picture), 0
    while top < picture.height:
        height, cell = GRID * rng.randint(2, 12), rng.choice([2, 3, 4, 6, 8, 12, 24, 48])
        colors = [color_of(rng) for _ in range(rng.choice([2, 2, 8]))]
        ramp, checks = rng.random() < 0.2, rng.random() < 0.4
        for left in range(0, picture.width, cell):
            part = left / picture.width
            color = mixed(colors[0], colors[1], part) if ramp else colors[left // cell % len(colors)]
            draw.rectangle((left, top, left + cell - 1, top + height - 1), fill=color)
            for row in range(top, top + height, 2 * cell) if checks and not ramp else ():
                other = colors[(left // cell + 1) % len(colors)]
                draw.rectangle((left, row, left + cell - 1, row + cell - 1), fill=other)
        top += height


def draw_cells(rng: random.Random, picture: Image.Image) -> None:
    """Fill the picture with cells of one random color each, from the width of a pixel of LR upwards."""
    size = rng.choice([3, 4, 6, 8, 12, 24])
    side = -(-picture.width // size)
    if rng.random() < 0.5:
        data = bytes(rng.choice([0, 255]) for _ in range(3 * side * side))
    else:
        data = rng.randbytes(3 * side * side)
    cells = Image.frombytes("RGB", (side, side), data).resize((side * size,) * 2, Image.Resampling.NEAREST)
    picture.paste(cells, (0, 0))


def draw_windows(rng: random.Random, picture: Image.Image) -> None:
    """Draw windows with a title, lines of text and buttons, like a picture of a screen."""
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randint(2, 5)):
        left, top = rng.randint(-20, picture.width - 100), rng.randint(-20, picture.height - 100)
        right, bottom = left + rng.randint(120, 380), top + rng.randint(100, 320)
        back = rng.choice([(255, 255, 255), (0, 0, 0), (240, 240, 240), (30, 30, 30), color_of(rng)])
        draw.rectangle((left, top, right, bottom), fill=back, outline=ink_on(rng, back))
        title = color_of(rng)
        draw.rectangle((left, top, right, top + 24), fill=title)
        size = rng.choice([12, 14, 16, 20, 28])
        draw.text((left + 6, top + 4), word_of(rng), fill=ink_on(rng, title), font=font_of(rng, 16))
        font, ink = font_of(rng, size), ink_on(rng, back)
        for line in range(top + 30, bottom - size - 4, round(size * 1.3)):
            text = " ".join(word_of(rng) for _ in range(8))
            while draw.textlength(text, font=font) > right - left - 12 and text:
                text = text[:-1]
            draw.text((left + 6, line), text, fill=ink, font=font)


def color_of(rng: random.Random) -> Color:
    """Choose black or white, a pure color, or any color."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice([(0, 0, 0), (255, 255, 255)])
    if kind < 0.75:
        return rng.choice([0, 255]), rng.choice([0, 255]), rng.choice([0, 255])
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def ink_on(rng: random.Random, back: Color) -> Color:
    """Choose a color that differs from the background."""
    inverse = tuple(255 if value < 128 else 0 for value in back)
    color = color_of(rng)
    return color if rng.random() < 0.5 and max(abs(a - b) for a, b in zip(color, back, strict=True)) > 60 else inverse


def mixed(first: Color, second: Color, part: float) -> Color:
    """Mix two colors; `part` from 0, the first, to 1, the second."""
    return tuple(round(a + (b - a) * part) for a, b in zip(first, second, strict=True))


def word_of(rng: random.Random) -> str:
    """Make a word of one to nine letters, digits and signs."""
    letters = "abcdefghijklmnopqrstuvwxyz" * 3 + "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;!?&%$()-+=/@#"
    return "".join(rng.choice(letters) for _ in range(rng.randint(1, 9)))


def font_of(rng: random.Random, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Choose DejaVu in a few styles where the machine has them, else Pillow's own font."""
    name = rng.choice(["DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSansMono", "DejaVuSerif-Italic", ""])
    try:
        return ImageFont.truetype(f"{name}.ttf", size) if name else ImageFont.load_default(size)
    except OSError:
        return ImageFont.load_default(size)


KINDS = {
    "text": draw_text,
    "boxes": draw_boxes,
    "lines": draw_lines,
    "bars": draw_bars,
    "cells": draw_cells,
    "windows": draw_windows,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=132, help="number of pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--links", type=Path, action="append", default=[], help="a folder of --teacher-images")
    options = parser.parse_args()
    main(options.folder, options.count, options.seed, options.links)
