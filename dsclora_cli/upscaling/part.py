"""Upscale a part of a picture. The pixels around the part take part too, so the result equals the part of the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dsclora_cli.errors import UsageError
from dsclora_cli.imaging.types import Frame, Header, Pixels
from dsclora_cli.upscaling.jobs import Job
from dsclora_cli.upscaling.picture import CONTEXT, PicturePlan, PictureUpscaler

Part = tuple[int, int, int, int]
"""x, y, width and height of a part of a picture, in pixels."""


def check_part(part: Part, header: Header, option: str) -> None:
    """Raise UsageError for a part that is not inside the picture; `option` is the name of the option."""
    x, y, width, height = part
    inside = 0 <= x < x + width <= header.width and 0 <= y < y + height <= header.height
    if not inside:
        raise UsageError(
            f"{option} {x},{y},{width},{height} is not inside {header.width}x{header.height}",
            "give X,Y,W,H in pixels of the input",
        )


def region_around(pixels: Pixels, part: Part) -> tuple[Pixels, Part]:
    """Return a part of `(H, W, C)` with the context, and the place of the part in the region."""
    x, y, width, height = part
    left, top = max(0, x - CONTEXT), max(0, y - CONTEXT)
    region = pixels[top : y + height + CONTEXT, left : x + width + CONTEXT]
    return np.ascontiguousarray(region), (x - left, y - top, width, height)


def cut_part(pixels: Pixels, part: Part, factor: float) -> Pixels:
    """Return the pixels of a part of `(H, W, C)`, where all four numbers of the part grow by `factor`."""
    x, y, width, height = part
    left, top = round(x * factor), round(y * factor)
    return np.ascontiguousarray(pixels[top : top + round(height * factor), left : left + round(width * factor)])


def upscale_part(upscaler: PictureUpscaler, job: Job, pixels: Pixels, part: Part) -> tuple[Pixels, PicturePlan]:
    """Return the upscaled part of a picture, and the plan of the region.

    Args:
        upscaler: Engines.
        job: Plan of the whole picture.
        pixels: `(H, W, 1 to 4)` of the whole picture.
        part: Part inside the picture.
    """
    region, inner = region_around(pixels, part)
    height, width = region.shape[:2]
    source = replace(job.source, width=width, height=height)
    whole = replace(job, source=source, size=job.size.for_page(width, height))
    plan = upscaler.plan(whole, streamed=False)
    return cut_part(upscaler.upscale(Frame(region), plan).pixels, inner, job.size.factor), plan
