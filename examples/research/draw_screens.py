"""Draw LR as screens show it, text of 8 to 20 pixels and graphics with hard edges, and make HR for it, to train on.

    python examples/research/draw_screens.py HR LR [--model dsclora-x4] [--count 500] [--seed 1] [--links DIR]
    dsclora distill --data HR --lr LR ...

No picture that is reduced by bicubic has such edges, not even a picture of text, so networks that are trained on
reduced pictures alone turn parts of screens into noise: see find_faults.py. HR is the mean of a model's answers for 8
flips and turns, or bicubic where a block is half a fault (15 levels) or more away. HR is corrected until its reduction
comes near to LR.

`--pair PHOTOS` adds the pictures of a folder and their LR by bicubic, because `--lr` takes one folder of each.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from draw_graphics import KINDS, color_of, draw_picture, font_of, ink_on, save_linked, word_of
from find_faults import FAULT, SIZES, worst_block
from folders import pictures_in, put_link
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from saved_pictures import open_model

from dsclora_cli.imaging.resize import downscale

SIDE = 64
"""Height and width of LR."""

BLACK, WHITE, YELLOW = (0, 0, 0), (255, 255, 255), (255, 255, 0)
PAIRS = [(BLACK, WHITE), (BLACK, WHITE), (WHITE, BLACK), (BLACK, YELLOW)]
"""Grounds and inks of the strongest contrast."""

CORRECTIONS = 8
"""Times that the difference between LR and the reduction of HR is added."""

Pixels = NDArray[np.uint8]
"""`(H, W, 3)` uint8."""
Values = NDArray[np.float64]
"""`(H, W, 3)` float64, 0 to 255, or differences."""


def draw_screen(rng: random.Random, index: int) -> Pixels:
    """Return LR: two of three pictures are lines of words, the others a piece of a drawn picture."""
    if index % 3:
        return draw_text(rng)
    kinds = [kind for name, kind in KINDS.items() if name != "cells"]
    picture = draw_picture(rng, kinds[index // 3 % len(kinds)])
    top, left = (rng.randrange(picture.width - SIDE) for _ in range(2))
    return np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)))


def draw_text(rng: random.Random) -> Pixels:
    """Return lines of words in one color on another, half of the pictures in `PAIRS`."""
    ground = color_of(rng)
    ground, ink = rng.choice(PAIRS) if rng.random() < 0.5 else (ground, ink_on(rng, ground))
    picture, top = Image.new("RGB", (SIDE, SIDE), ground), rng.randint(-4, 2)
    draw = ImageDraw.Draw(picture)
    while top < SIDE:
        size = rng.choice(SIZES)
        words = " ".join(word_of(rng) for _ in range(8))
        draw.text((rng.randint(-20, 6), top), words, fill=ink, font=font_of(rng, size))
        top += size + rng.randint(0, 5)
    return np.asarray(picture)


def enlarge(lr: Pixels, scale: int, upscale: Callable[[Pixels], Pixels]) -> Pixels:
    """Return HR whose reduction comes near to `lr`."""
    turned = [(k, flip) for k in range(4) for flip in (1, -1)]
    answers = [np.rot90(upscale(np.ascontiguousarray(np.rot90(lr, k)[:, ::flip]))[:, ::flip], -k) for k, flip in turned]
    hr = np.mean(answers, 0)
    if worst_block(lr, np.rint(hr).astype(np.uint8), scale) > FAULT / 2:
        hr = bicubic(lr.astype(float), scale)
    for _ in range(CORRECTIONS):
        away = lr.astype(float) - downscale(np.rint(hr).astype(np.uint8), scale)
        hr = np.clip(hr + bicubic(away, scale), 0, 255)
    return np.rint(hr).astype(np.uint8)


def bicubic(values: Values, scale: int) -> Values:
    """Enlarge with Pillow, channel by channel."""
    size = values.shape[1] * scale, values.shape[0] * scale
    channels = (Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(values, 2, 0))
    return np.stack([np.asarray(channel.resize(size, Image.Resampling.BICUBIC), float) for channel in channels], 2)


def add_pictures(hr: Path, lr: Path, scale: int, pictures: list[Path]) -> None:
    """Link each picture, and save the LR of the picture by bicubic."""
    for source in pictures:
        put_link(hr / source.name, source)
        picture = np.asarray(Image.open(source).convert("RGB"))
        height, width = (side // scale * scale for side in picture.shape[:2])
        reduced = downscale(np.ascontiguousarray(picture[:height, :width]), scale)
        Image.fromarray(reduced).save((lr / source.name).with_suffix(".png"))


def main(options: argparse.Namespace) -> None:
    """Draw screens, make HR with a model, and add the pictures of other folders."""
    pictures = pictures_in(*options.pair)  # before an hour of drawing
    for folder in (options.hr, options.lr):
        folder.mkdir(parents=True, exist_ok=True)
    scale, upscale = open_model(options.model)
    for index in range(options.count):
        drawn = draw_screen(random.Random(f"screen {options.seed} {index}"), index)
        name = f"screen{options.seed}_{index:04d}.png"
        Image.fromarray(drawn).save(options.lr / name)
        save_linked(Image.fromarray(enlarge(drawn, scale, upscale)), options.hr / name, options.links)
    add_pictures(options.hr, options.lr, scale, pictures)


def options_of(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hr", type=Path)
    parser.add_argument("lr", type=Path)
    parser.add_argument("--model", default="dsclora-x4", help="a file or a name of the catalogue, whose scale is taken")
    parser.add_argument("--count", type=int, default=500, help="number of pictures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pair", type=Path, action="append", default=[], help="a folder of HR to add with its LR")
    parser.add_argument("--links", type=Path, action="append", default=[], help="a folder of --teacher-images")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(options_of(sys.argv[1:]))
