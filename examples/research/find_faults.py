"""Count small pictures of text, and drawn pictures, in which a model turns a part into noise.

    python examples/research/find_faults.py MODEL...

A model is a file or a name of the catalogue. Each result is reduced to the size of its input by MATLAB's bicubic. A
picture has a fault where a block of 8x8 pixels is, on average, more than 30 levels of 255 away from the input. PSNR of
a whole picture does not show a fault of a few letters. Nothing is random: equal commands print equal tables.
"""

from __future__ import annotations

import argparse
import random

import numpy as np
from draw_graphics import KINDS, draw_picture, font_of, word_of
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from saved_pictures import open_model

from dsclora_cli.imaging.resize import downscale

TEXTS, DRAWN = 240, 120
"""Numbers of pictures."""

FAULT = 30
"""Levels of 255."""

SIZES = (8, 9, 10, 11, 12, 13, 14, 16, 20)
"""Heights of the text in pixels."""

INKS = {
    "black": [(255, 255, 255), (255, 255, 0), (0, 255, 0), (255, 0, 0)],
    "white": [(0, 0, 0), (0, 0, 255), (255, 0, 0)],
}
"""Colors of the text by color of the ground."""

Pixels = NDArray[np.uint8]
"""`(H, W, 3)` uint8."""


def text_picture(rng: random.Random, ground: str) -> Pixels:
    """Return 160x96 pixels with lines of words of 8 to 20 pixels."""
    picture, ink, top = Image.new("RGB", (160, 96), ground), rng.choice(INKS[ground]), 1
    while top < 90:
        size = rng.choice(SIZES)
        words = " ".join(word_of(rng) for _ in range(8))
        ImageDraw.Draw(picture).text((rng.randint(0, 6), top), words, fill=ink, font=font_of(rng, size))
        top += size + rng.randint(1, 5)
    return np.asarray(picture)


def drawn_picture(index: int, scale: int) -> Pixels:
    """Return at most 160x160 pixels of LR of a drawn picture; cells are finer than any network can tell from noise."""
    kinds = [kind for name, kind in KINDS.items() if name != "cells"]
    hr = np.asarray(draw_picture(random.Random(f"99 {index}"), kinds[index % len(kinds)]))
    return np.ascontiguousarray(downscale(hr, scale)[:160, :160])


def worst_block(lr: Pixels, result: Pixels, scale: int) -> float:
    """Return the mean absolute difference of the worst block of 8x8 pixels, in levels of 255."""
    away = np.abs(downscale(result, scale).astype(float) - lr).mean(2)
    height, width = (side // 8 * 8 for side in away.shape)
    return float(away[:height, :width].reshape(height // 8, 8, width // 8, 8).mean((1, 3)).max())


def main(models: list[str], texts: int = TEXTS, drawn: int = DRAWN) -> None:
    """Print a table in Markdown: pictures with a fault, and the worst block in levels."""
    print(f"| model | of {texts} of text | worst block | of {drawn} drawn | worst block |\n|{' --- |' * 5}")
    for name in models:
        scale, upscale = open_model(name)
        sets = (
            [text_picture(random.Random(f"loc {index}"), ("white", "black")[index % 2]) for index in range(texts)],
            [drawn_picture(index, scale) for index in range(drawn)],
        )
        cells = []
        for pictures in sets:
            blocks = [worst_block(lr, upscale(lr), scale) for lr in pictures]
            cells += [f"{sum(block > FAULT for block in blocks)}", f"{max(blocks):.0f}"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    main(parser.parse_args().models)
