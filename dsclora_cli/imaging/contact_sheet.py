"""Contact sheets: results beside the truth, labelled, with maps of their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dsclora_cli.paths import atomic_write

Rgb = NDArray[np.uint8]

PANEL = 480
"""Longer side of a panel: larger pictures are reduced, none is enlarged."""

GAIN = 4
"""Error maps show the mean absolute difference of the channels times this, black for none."""

_MARGIN, _LINE = 8, 21
_PAPER, _INK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Panel:
    """A picture, `(H, W, 3)` uint8, and the line above it."""

    label: str
    pixels: Rgb


@dataclass(frozen=True)
class Strip:
    """One image of a sheet: results, and the truth in the same size."""

    results: tuple[Panel, ...]
    truth: Panel


def contact_sheet(strips: Sequence[Strip]) -> Rgb:
    """A row of results and truth for each strip, and below it the error map of each result. `(H, W, 3)` uint8."""
    rows = [row for strip in strips for row in ((*strip.results, strip.truth), _errors(strip))]
    thumbnails = [[(panel.label, _reduced(panel.pixels)) for panel in row] for row in rows]
    font = ImageFont.load_default(_LINE * 2 // 3)
    column = max(max(image.width, ceil(font.getlength(label))) for row in thumbnails for label, image in row) + _MARGIN
    heights = [max(image.height for _, image in row) + _LINE + _MARGIN for row in thumbnails]
    columns = max(len(row) for row in thumbnails)
    sheet = Image.new("RGB", (columns * column + _MARGIN, sum(heights) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, height in zip(thumbnails, heights, strict=True):
        for index, (label, image) in enumerate(row):
            left = _MARGIN + index * column
            draw.text((left, top), label, _INK, font)
            sheet.paste(image, (left, top + _LINE))
        top += height
    return np.array(sheet)


def save_png(pixels: Rgb, target: Path) -> None:
    """Write `(H, W, 3)` uint8 as a PNG, whole or not at all. Raises OSError."""
    with atomic_write(target) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def _errors(strip: Strip) -> tuple[Panel, ...]:
    return tuple(Panel(f"error x{GAIN}", error_map(panel.pixels, strip.truth.pixels)) for panel in strip.results)


def error_map(result: Rgb, truth: Rgb) -> Rgb:
    """Grey `(H, W, 3)` uint8, `GAIN` times the mean absolute difference of the channels, cut at white."""
    error = np.abs(result.astype(np.int16) - truth).mean(axis=2, keepdims=True) * GAIN
    return np.repeat(np.rint(np.minimum(error, 255)).astype(np.uint8), 3, axis=2)


def _reduced(pixels: Rgb) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((PANEL, PANEL), Image.Resampling.LANCZOS)
    return image
