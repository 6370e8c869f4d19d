"""Cut a small piece out of each picture of draw_graphics.py, so that graphics are a few percent of the training pixels.

    python examples/research/cut_graphics.py DRAWN PIECES [--links DIR]

A picture is drawn in training as often as its area demands. Of nine places, the piece has the median contrast. Pieces
that x2 cannot bring back, such as checks of single pixels, are left out: in training they throw the weights off.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from draw_graphics import save_linked
from folders import pictures_in
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.imaging.resize import downscale

SIDE = 160
PLACES = 9
LARGEST_LOSS = 0.07
"""Largest mean absolute difference, of values in [0, 1], between a piece and the bicubic x2 of its LR."""

Pixels = NDArray[np.uint8]
"""`(H, W, 3)` uint8."""


def main(drawn: Path, pieces: Path, seed: int, links: list[Path]) -> None:
    """Write a piece of each picture that can be brought back, and link each from the folders of `links`."""
    pieces.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for source in pictures_in(drawn):
        piece = piece_of(np.asarray(Image.open(source).convert("RGB")), rng)
        if loss_of(piece) <= LARGEST_LOSS:
            save_linked(Image.fromarray(piece), pieces / source.name.replace("drawn_", "drawnr_"), links)


def piece_of(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the piece with the median contrast of some pieces at even places."""
    places = []
    for _ in range(PLACES):
        top, left = (2 * int(value) for value in rng.integers(0, (picture.shape[0] - SIDE) // 2 + 1, 2))
        places.append((picture[top : top + SIDE, left : left + SIDE].astype(float).std(), top, left))
    _, top, left = sorted(places)[PLACES // 2]
    return picture[top : top + SIDE, left : left + SIDE]


def loss_of(piece: Pixels) -> float:
    """Return the mean absolute difference between a piece and the bicubic x2 of its LR, of values in [0, 1]."""
    large = Image.fromarray(downscale(piece, 2)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return float(np.abs(np.asarray(large, float) - piece).mean() / 255)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("pieces", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--links", type=Path, action="append", default=[], help="a folder of --teacher-images")
    options = parser.parse_args()
    main(options.drawn, options.pieces, options.seed, options.links)
