"""Strips and tiles of a TIFF page: where their data lie, how many are missing, and what reading them takes."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs.incomplete import SALVAGE_HINT

if TYPE_CHECKING:
    from tifffile import TiffPage

_SAMPLES = 4
"""Samples that count as one pixel in a claim: a page may claim thousands for each pixel."""


def pixels_at_once(page: TiffPage, in_bands: bool) -> int:
    """Return the most pixels of a page in memory at once; `in_bands` where the page is read in bands of rows."""
    if page.is_tiled:
        tile = page.tilelength * page.tilewidth
        # A row of tiles is put together, with one tile more in the decoder.
        band = tile + page.tilelength * page.imagewidth
    else:
        tile = min(page.rowsperstrip, page.imagelength) * page.imagewidth
        band = page.imagewidth if page.is_contiguous else tile
    pixels = band if in_bands else max(tile, page.imagelength * page.imagewidth)
    return pixels * -(-page.samplesperpixel // _SAMPLES)


def present_segments(page: TiffPage, size: int) -> list[int]:
    """Return the numbers of the strips or tiles with data in a file of `size` bytes."""
    # A page may claim billions of strips: only those with a place are looked at.
    places = islice(zip(page.dataoffsets, page.databytecounts, strict=False), count_segments(page))
    return [number for number, (offset, length) in enumerate(places) if 0 < offset < size and length > 0]


def count_segments(page: TiffPage) -> int:
    """Return the number of strips or tiles that a page needs."""
    return int(np.prod(page.chunked, dtype=np.int64))


def segment_name(page: TiffPage) -> str:
    """Return the plural for messages."""
    return "tiles" if page.is_tiled else "strips"


def require_segments(page: TiffPage, file: BinaryIO) -> None:
    """Raise ImageError where data of a page are missing: decoders would fill the hole without a word."""
    count, name = count_segments(page), segment_name(page)
    missing = count - len(present_segments(page, file.seek(0, 2)))
    if missing:
        raise ImageError(f"the file is damaged: {missing} of {count} {name} of the TIFF hold no data", SALVAGE_HINT)


def read_salvaged(page: TiffPage, file: BinaryIO) -> tuple[NDArray[Any], int]:
    """Return the samples of a damaged page `(planes, H, W, samples)`, and how many strips or tiles are lost.

    Lost samples are 0.
    """
    keyframe = page.keyframe
    whole: NDArray[Any] | None = None
    present = present_segments(page, file.seek(0, 2))
    lost = count_segments(page) - len(present)
    for number in present:
        file.seek(page.dataoffsets[number])
        data = file.read(page.databytecounts[number])
        # Decoders meet damage with any exception.
        try:
            segment, (plane, _, top, left, _), _ = keyframe.decode(data, number, jpegtables=page.jpegtables)
        except Exception:  # noqa: BLE001 - of any library
            lost += 1
            continue
        if segment is None:
            lost += 1
            continue
        if whole is None:
            planes = page.samplesperpixel if page.planarconfig == 2 else 1
            shape = planes, page.imagelength, page.imagewidth, segment.shape[-1]
            whole = np.zeros(shape, segment.dtype)
        part = segment[0, : page.imagelength - top, : page.imagewidth - left]
        whole[plane, top : top + part.shape[0], left : left + part.shape[1]] = part
    if whole is None:
        raise ImageError(f"none of {count_segments(page)} {segment_name(page)} of the TIFF can be read")
    return whole, lost
