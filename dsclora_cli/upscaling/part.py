"""Upscale a part of a picture. The pixels around the part take part too, so the result equals the part of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dsclora_cli.errors import UsageError
from dsclora_cli.imaging.types import Frame, Header, Pixels
from dsclora_cli.upscaling.jobs import Job
from dsclora_cli.upscaling.picture import PicturePlan, PictureUpscaler

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


def region_around(pixels: Pixels, part: Part, margin: int, wrap: bool = False) -> tuple[Pixels, Part]:
    """Return a part of `(H, W, C)` with a margin, and the place of the part in the region.

    At an edge of the picture the margin ends; with `wrap` the margin continues at the opposite edge.
    """
    x, y, width, height = part
    left, top = (x - margin, y - margin) if wrap else (max(0, x - margin), max(0, y - margin))
    rows, columns = np.arange(top, y + height + margin), np.arange(left, x + width + margin)
    if wrap:
        region = pixels.take(rows, axis=0, mode="wrap").take(columns, axis=1, mode="wrap")
    else:
        region = pixels[top : y + height + margin, left : x + width + margin]
    return np.ascontiguousarray(region), (x - left, y - top, width, height)


def cut_part(pixels: Pixels, part: Part, factor: float) -> Pixels:
    """Return the pixels of a part of `(H, W, C)`, where all four numbers of the part grow by `factor`."""
    x, y, width, height = part
    left, top = round(x * factor), round(y * factor)
    return np.ascontiguousarray(pixels[top : top + round(height * factor), left : left + round(width * factor)])


def upscale_part(
    upscaler: PictureUpscaler,
    job: Job,
    pixels: Pixels,
    part: Part,
    wrap: bool = False,
    on_progress: Callable[[float], None] = lambda share: None,
) -> tuple[Pixels, PicturePlan]:
    """Return the upscaled part of a picture, and the plan of the region.

    Args:
        upscaler: Engines, without `wrap`: a part does not continue at its own opposite edge.
        job: Plan of the whole picture.
        pixels: `(H, W, 1 to 4)` of the whole picture.
        part: Part inside the picture.
        wrap: Whether the picture continues at the opposite edge.
        on_progress: Called after every tile with the finished share of the part, from 0 to 1.
    """
    region, inner = region_around(pixels, part, upscaler.margin(job), wrap)
    height, width = region.shape[:2]
    source = replace(job.source, width=width, height=height)
    whole = replace(job, source=source, size=job.size.for_page(width, height))
    plan = upscaler.plan(whole, streamed=False)
    upscaled = upscaler.upscale(Frame(region), plan, on_progress).pixels
    return cut_part(upscaled, inner, job.size.factor), plan
