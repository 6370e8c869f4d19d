"""Draw HR pictures of small text, 8 to 20 pixels high in LR, to train on besides photographs.

    python examples/research/draw_small_text.py DIR [--model dsclora-x4] [--count 300] [--seed 1] [--links DIR]

Networks turn letters of few pixels into noise, white ones on black most of all: see find_faults.py. Every third picture
is drawn in HR, so its LR has soft edges. The others are drawn in LR, as on a screen, and enlarged by a model (mean over
8 flips and turns), or by bicubic where the model has a fault; the result is corrected until its LR is what was drawn.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from draw_graphics import color_of, font_of, ink_on, save_linked, word_of
from find_faults import FAULT, worst_block
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from saved_pictures import open_model

from dsclora_cli.imaging.resize import downscale

WIDTH, HEIGHT = 96, 64
"""Size of the LR."""

SIZES = (8, 9, 10, 11, 12, 13, 14, 16, 20)
"""Heights of the text in pixels of LR."""

BLACK, WHITE, YELLOW = (0, 0, 0), (255, 255, 255), (255, 255, 0)
PAIRS = [(BLACK, WHITE), (BLACK, WHITE), (WHITE, BLACK), (BLACK, YELLOW)]
"""Grounds and inks of the strongest contrast."""

CORRECTIONS = 12
"""Times that the difference between LR and the drawn picture is added."""

Pixels = NDArray[np.uint8]
"""`(H, W, 3)` uint8."""
Values = NDArray[np.float64]
"""`(H, W, 3)` float64, 0 to 255, or differences."""


def draw_text(rng: random.Random, zoom: int) -> Pixels:
    """Return lines of words in one color on another, half of them in `PAIRS`; `zoom` 1 draws LR, the scale draws HR."""
    ground = color_of(rng)
    ground, ink = rng.choice(PAIRS) if rng.random() < 0.5 else (ground, ink_on(rng, ground))
    picture = Image.new("RGB", (WIDTH * zoom, HEIGHT * zoom), ground)
    draw, top = ImageDraw.Draw(picture), rng.randint(-4, 2)
    while top < HEIGHT:
        size = rng.choice(SIZES)
        words = " ".join(word_of(rng) for _ in range(8))
        left = rng.uniform(-20, 6)
        draw.text((round(left * zoom), top * zoom), words, fill=ink, font=font_of(rng, size * zoom))
        top += size + rng.randint(0, 5)
    return np.asarray(picture)


def enlarge(lr: Pixels, scale: int, upscale: Callable[[Pixels], Pixels]) -> Pixels:
    """Return HR whose reduction is `lr`, but for rounding and clipping."""
    turned = [(k, flip) for k in range(4) for flip in (1, -1)]
    answers = [np.rot90(upscale(np.ascontiguousarray(np.rot90(lr, k)[:, ::flip]))[:, ::flip], -k) for k, flip in turned]
    start = np.mean(answers, 0)
    if worst_block(lr, np.rint(start).astype(np.uint8), scale) > FAULT / 2:
        start = bicubic(lr.astype(float), scale)
    hr = start
    for _ in range(CORRECTIONS):
        away = lr.astype(float) - downscale(np.rint(hr).astype(np.uint8), scale)
        hr = np.clip(hr + bicubic(away, scale), 0, 255)
    return np.rint(hr).astype(np.uint8)


def bicubic(values: Values, scale: int) -> Values:
    """Enlarge with Pillow, channel by channel."""
    size = values.shape[1] * scale, values.shape[0] * scale
    channels = (Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(values, 2, 0))
    return np.stack([np.asarray(channel.resize(size, Image.Resampling.BICUBIC), float) for channel in channels], 2)


def main(folder: Path, count: int, seed: int, model: str, links: list[Path]) -> None:
    """Draw `count` pictures, and link each from the folders of `links`."""
    folder.mkdir(parents=True, exist_ok=True)
    scale, upscale = open_model(model)
    for index in range(count):
        rng = random.Random(f"small {seed} {index}")
        hr = draw_text(rng, scale) if index % 3 == 0 else enlarge(draw_text(rng, 1), scale, upscale)
        save_linked(Image.fromarray(hr), folder / f"text{seed}_{index:04d}.png", links)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="dsclora-x4", help="a file or a name of the catalogue, whose scale is taken")
    parser.add_argument("--count", type=int, default=300, help="number of pictures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--links", type=Path, action="append", default=[], help="a folder of --teacher-images")
    options = parser.parse_args()
    main(options.folder, options.count, options.seed, options.model, options.links)
