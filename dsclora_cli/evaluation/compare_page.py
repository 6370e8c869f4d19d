"""Write the results of a comparison as a contact sheet, and as a page for browsers that needs no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from dsclora_cli.evaluation.compare import ComparedPixels, ComparedResult, CompareResult
from dsclora_cli.imaging.contact_sheet import Panel, RgbImage, Strip, contact_sheet, png_bytes
from dsclora_cli.paths import atomic_write

_DATA = "__DATA__"
"""Place of the JSON in the template."""

_PANEL = 1024  # pixels; the differences of small networks are a few pixels wide


def draw_sheet(pictures: Sequence[ComparedPixels]) -> RgbImage:
    """Return the contact sheet, `(H, W, 3)` uint8: results with labels, and with HR also error maps."""
    panels = [Panel(_label(each.result), each.pixels) for each in pictures]
    has_truth = pictures[-1].result.kind == "hr"
    strip = Strip(tuple(panels[:-1]), panels[-1]) if has_truth else Strip(tuple(panels))
    return contact_sheet([strip], _PANEL)


def _label(result: ComparedResult) -> str:
    scores = "" if result.psnr_y is None else f"  {result.psnr_y:.2f} dB"
    return f"{result.name}{scores}"


def write_page(target: Path, result: CompareResult, pictures: Sequence[ComparedPixels]) -> None:
    """Write the page, whole or not at all. The page works from a disk, without internet. Raise OSError."""
    data = {
        "title": Path(result.picture).name,
        "crop": result.crop,
        "pictures": [
            {
                "name": each.result.name,
                "seconds": each.result.seconds,
                "psnr": _finite(each.result.psnr_y),
                "ssim": each.result.ssim_y,
                "faithfulness": _finite(each.result.faithfulness),
                "source": _data_url(each),
            }
            for each in pictures
        ],
    }
    template = files("dsclora_cli.evaluation").joinpath("compare_page.html").read_text(encoding="utf-8")
    # Names come from outside. Without "<" no name can end the script element; the page shows names as text only.
    text = template.replace(_DATA, json.dumps(data).replace("<", "\\u003c"))
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _finite(decibels: float | None) -> float | None:
    """Return a PSNR of at most 99 dB: equal pictures have an infinite PSNR, and JSON has no infinity."""
    return None if decibels is None else min(decibels, 99.0)


def _data_url(picture: ComparedPixels) -> str:
    # PNG, because a lossy format would blur the differences to look at.
    return f"data:image/png;base64,{base64.b64encode(png_bytes(picture.pixels, picture.profile)).decode()}"
