"""Upscale a part of a picture. The pixels around the part take part too, so the result equals the part of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from dsclora_cli.errors import UsageError
from dsclora_cli.imaging.resize import Rectangle
from dsclora_cli.imaging.types import Frame, Header, Pixels
from dsclora_cli.upscaling.jobs import Job
from dsclora_cli.upscaling.picture import PicturePlan, PictureUpscaler
from dsclora_cli.upscaling.sizes import SizePlan, to_result

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
    bottom, right = y + height + margin, x + width + margin
    if wrap:
        rows, columns = np.arange(top, bottom), np.arange(left, right)
        region = pixels.take(rows, axis=0, mode="wrap").take(columns, axis=1, mode="wrap")
    else:
        region = pixels[top:bottom, left:right]
    return np.ascontiguousarray(region), (x - left, y - top, width, height)


def place_part(
    part: Part, before: tuple[int, int], after: tuple[int, int], factor: float, shift: int = 0
) -> tuple[int, int, Rectangle]:
    """Return width and height of an upscaled part, and the place in the picture that becomes the part.

    The place differs a little from the part where a side of the result was rounded.

    Args:
        part: Part of the picture.
        before: Width and height of the picture.
        after: Width and height of the result.
        factor: Requested factor between the two.
        shift: Pixels of the result before the first pixel of the part's picture, on each axis.
    """
    lengths, starts, ends = [], [], []
    for axis in (0, 1):
        first, length = (to_result(part[each], factor) for each in (axis, axis + 2))
        last = min(shift + first + length, after[axis] - shift)
        ratio = Fraction(before[axis], after[axis])
        lengths.append(last - shift - first)
        starts.append((shift + first) * ratio)
        ends.append(last * ratio)
    return lengths[0], lengths[1], (starts[0], starts[1], ends[0], ends[1])


def cut_part(pixels: Pixels, part: Part, factor: float) -> Pixels:
    """Return the pixels of a part of `(H, W, C)`, where all four numbers of the part grow by `factor`."""
    left, top, width, height = (to_result(each, factor) for each in part)
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def upscale_part(
    upscaler: PictureUpscaler,
    job: Job,
    pixels: Pixels,
    part: Part,
    wrap: bool = False,
    on_progress: Callable[[float], None] = lambda share: None,
) -> tuple[Pixels, PicturePlan, list[str]]:
    """Return the upscaled part of a picture, the plan of the region, and sentences for the user.

    Args:
        upscaler: Engines, without `wrap`: a part does not continue at its own opposite edge.
        job: Plan of the whole picture.
        pixels: `(H, W, 1 to 4)` of the whole picture.
        part: Part inside the picture.
        wrap: Whether the picture continues at the opposite edge.
        on_progress: Called after every tile with the finished share of the part, from 0 to 1.
    """
    margin, size = upscaler.margin(job), job.size
    # One pixel more, because the place of a part differs a little from the part.
    region, inner = region_around(pixels, part, margin + 1, wrap)
    height, width = region.shape[:2]
    # A picture that continues at the opposite edge is upscaled with a margin.
    around = margin if wrap else 0
    before = job.source.width + 2 * around, job.source.height + 2 * around
    whole = size.for_page(*before) if wrap else size
    after_width, after_height, place = place_part(
        part, before, (whole.width, whole.height), size.factor, round(around * size.factor)
    )
    scale = math.prod(size.passes)
    corner = (part[0] - inner[0] + around, part[1] - inner[1] + around) * 2  # of the region
    left, top, right, bottom = ((side - start) * scale for side, start in zip(place, corner, strict=True))
    region_job = replace(
        job,
        source=replace(job.source, width=width, height=height),
        size=SizePlan(after_width, after_height, size.passes, size.factor, (left, top, right, bottom)),
    )
    plan = upscaler.plan(region_job, streamed=False)
    warnings: list[str] = []
    upscaled = upscaler.upscale(Frame(region), plan, on_progress, warnings.append, pixels).pixels
    return upscaled, plan, warnings
