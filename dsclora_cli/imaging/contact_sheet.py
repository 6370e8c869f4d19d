"""Contact sheets: results next to the true picture, with labels and with maps of their errors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dsclora_cli.paths import atomic_write

RgbImage = NDArray[np.uint8]
"""`(H, W, 3)` uint8."""

PANEL = 480
"""Most pixels on the longer side of a panel: larger pictures are reduced, smaller pictures stay."""

GAIN = 4
"""Factor from the mean absolute difference of the channels to the brightness of an error map."""

_MARGIN, _LINE = 8, 21  # pixels between panels, and for a label
_PAPER, _INK = (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Panel:
    """A picture of a contact sheet with a label."""

    label: str
    """Line of text above the picture."""

    pixels: RgbImage


@dataclass(frozen=True)
class Strip:
    """A row of a contact sheet."""

    results: tuple[Panel, ...]
    """Results of several models on the same input."""

    truth: Panel | None = None
    """The true picture, in the size of the results; None shows the results alone, without error maps."""


def contact_sheet(strips: Sequence[Strip], panel_size: int = PANEL) -> RgbImage:
    """Return a sheet `(H, W, 3)` uint8: for each strip a row of results and truth, then a row of error maps.

    Pictures with a longer side above `panel_size` pixels are reduced.
    """
    rows: list[tuple[Panel, ...]] = []
    for strip in strips:
        if strip.truth is None:
            rows.append(strip.results)
            continue
        rows.append((*strip.results, strip.truth))
        rows.append(
            tuple(Panel(f"error x{GAIN}", error_map(each.pixels, strip.truth.pixels)) for each in strip.results)
        )
    thumbnails = [[(panel.label, _thumbnail(panel.pixels, panel_size)) for panel in row] for row in rows]
    font = ImageFont.load_default(_LINE * 2 // 3)
    # All columns are as wide as the widest picture or label; each row is as high as its highest picture.
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


def error_map(result: RgbImage, truth: RgbImage) -> RgbImage:
    """Return `GAIN` times the mean absolute difference of the channels as gray `(H, W, 3)` uint8, limited to white."""
    error = np.abs(result.astype(np.int16) - truth).mean(axis=2, keepdims=True) * GAIN
    return np.repeat(np.rint(np.minimum(error, 255)).astype(np.uint8), 3, axis=2)


def _thumbnail(pixels: RgbImage, size: int) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image


def save_png(pixels: RgbImage, target: Path) -> None:
    """Write `(H, W, 3)` uint8 as a PNG, whole or not at all. Raise OSError."""
    with atomic_write(target) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def png_bytes(pixels: RgbImage, profile: bytes | None) -> bytes:
    """Return `(H, W, 3)` uint8 as the bytes of a PNG with a color profile."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3, icc_profile=profile)
    return buffer.getvalue()
