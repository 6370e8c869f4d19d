"""Strips and tiles of a TIFF page: where their data lie, how many are missing, and what reading them takes."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs.coded_tail import describe_share
from dsclora_cli.imaging.codecs.tiff_mending import (
    JPEG,
    empty_jpeg,
    holds_pictures,
    is_cut,
    may_be_cut,
    mend_segment,
    mended_copy,
    picture_size,
)

if TYPE_CHECKING:
    from tifffile import TiffPage

_SAMPLES = 4
"""Samples that count as one pixel in a claim: a page may claim thousands for each pixel."""


_NEARLY_ALL = 0.999

_MORE = 4
"""Times the pixels of a strip or tile that the picture inside may claim: encoders round sizes up, to whole blocks."""

_SMALLEST = 2**16
"""Pixels that the picture in any strip or tile may claim."""


def pixels_at_once(page: TiffPage, in_bands: bool) -> int:
    """Return the most pixels of a page in memory at once; `in_bands` where the page is read in bands of rows."""
    tile = _segment_pixels(page)
    if page.is_tiled:
        # A row of tiles is put together, with one tile more in the decoder.
        band = tile + page.tilelength * page.imagewidth
    else:
        band = page.imagewidth if page.is_contiguous else tile
    pixels = band if in_bands else max(tile, page.imagelength * page.imagewidth)
    return pixels * -(-page.samplesperpixel // _SAMPLES)


def _segment_pixels(page: TiffPage) -> int:
    """Return the pixels of a whole strip or tile."""
    if page.is_tiled:
        return int(page.tilelength * page.tilewidth)
    return int(min(page.rowsperstrip, page.imagelength) * page.imagewidth)


def _most_bytes(page: TiffPage) -> int:
    """Return the bytes that a strip or tile takes without compression, twice, as coders may need a little more."""
    return _SMALLEST + 2 * _segment_pixels(page) * int(page.samplesperpixel) * -(-int(page.bitspersample) // 8)


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
    """Raise ImageError where data of a page are missing: decoders would fill the hole without a message."""
    count, name = count_segments(page), segment_name(page)
    present = present_segments(page, file.seek(0, 2))
    if len(present) < count:
        missing = count - len(present)
        raise ImageError(f"the file is damaged: {missing} of {count} {name} of the TIFF hold no data")
    coded = (read_segment(page, file, number) for number in present) if holds_pictures(page) else ()
    cut = sum(is_cut(page, data) for data in coded)
    if cut:
        raise ImageError(f"the file is damaged: {cut} of {count} {name} of the TIFF are incomplete")


def read_segment(page: TiffPage, file: BinaryIO, number: int) -> bytes:
    """Return the coded bytes of a strip or tile, as far as they are in the file.

    Raises:
        ImageError: The bytes are a picture that claims many more pixels than the strip or tile has.
    """
    file.seek(page.dataoffsets[number])
    data = file.read(page.databytecounts[number])
    _check_picture(page, data, number)
    return data


def _check_picture(page: TiffPage, data: bytes, number: int) -> None:
    """Raise ImageError for a strip or tile that is a picture of many more pixels than the strip or tile has.

    Decoders take the size from the picture inside, and no limit of the TIFF holds for that size.
    """
    size = picture_size(data) if holds_pictures(page) else None
    if size and size[0] * size[1] > max(_SMALLEST, _MORE * _segment_pixels(page)):
        name = f"{segment_name(page)[:-1]} {number + 1} of the TIFF"
        raise ImageError(f"the file is damaged: {name} claims {size[0]} x {size[1]} pixels")


def read_salvaged(page: TiffPage, file: BinaryIO) -> tuple[NDArray[Any], str | None]:
    """Return the samples of a damaged page `(planes, H, W, samples)`, and a sentence about losses.

    Lost samples are 0.
    """
    whole: NDArray[Any] | None = None
    shares = []
    for number in present_segments(page, file.seek(0, 2)):
        segment, (plane, _, top, left, _), share = _decode_partly(page, file, number)
        shares.append(share)
        if segment is None:
            continue
        if whole is None:
            planes = page.samplesperpixel if page.planarconfig == 2 else 1
            shape = planes, page.imagelength, page.imagewidth, segment.shape[-1]
            whole = np.zeros(shape, segment.dtype)
        part = segment[0, : page.imagelength - top, : page.imagewidth - left]
        whole[plane, top : top + part.shape[0], left : left + part.shape[1]] = part
    if whole is None:
        raise ImageError(f"none of {count_segments(page)} {segment_name(page)} of the TIFF can be read")
    return whole, describe_shares(page, shares)


def describe_shares(page: TiffPage, shares: list[float]) -> str | None:
    """Return a sentence about a page of which the strips or tiles are there by these shares; None for a whole page."""
    count, name = count_segments(page), segment_name(page)
    if sum(shares) == count:
        return None
    if all(share in (0, 1) for share in shares):
        return f"salvaged: {sum(shares):.0f} of {count} {name} of the TIFF"
    return f"salvaged: {describe_share(sum(shares) / count)} of the pixels of the TIFF"


def _decode_partly(page: TiffPage, file: BinaryIO, number: int) -> tuple[NDArray[Any] | None, tuple[int, ...], float]:
    """Return the samples of a strip or tile (None for a lost segment), the place, and the share that is there, 0 to 1.

    Samples are `(depth, h, w, samples)`.
    """
    decode = page.keyframe.decode
    try:
        data = read_segment(page, file, number)
    except ImageError:
        return None, (0, 0, 0, 0, 0), 0.0
    # Decoders meet damage with any exception.
    if not (may_be_cut(page) and is_cut(page, data)):
        with suppress(Exception):
            segment, place, _ = decode(data, number, jpegtables=page.jpegtables)
            return segment, place, 1.0 if segment is not None else 0.0
    with suppress(Exception):
        mended, share = mend_segment(page, data, number)
        _check_picture(page, mended, number)  # a decoder may not know the size before the end is there
        segment, place, _ = decode(mended, number, jpegtables=page.jpegtables)
        # Less than all: the decoder has refused the segment.
        return (segment if share else None), place, min(share, _NEARLY_ALL)
    return None, (0, 0, 0, 0, 0), 0.0


def mend_page(page: TiffPage, file: BinaryIO) -> tuple[BinaryIO, str | None]:
    """Return a TIFF in which a damaged page is complete for decoders of other libraries, and a sentence about losses.

    What is missing is 0, or what the compression makes of zeros.
    """
    segments, shares, lost, model = {}, [], [], b""
    present = set(present_segments(page, file.seek(0, 2)))
    for number, stated in enumerate(page.databytecounts):
        data, share = b"", 0.0
        with suppress(ImageError):
            data = read_segment(page, file, number) if number in present else b""
        mended = data
        with suppress(Exception):
            mended, share = mend_segment(page, data, number)
        # A few bytes may state a length of gigabytes: no more is filled than the samples themselves would take.
        if mended is data and 0 < len(data) < stated and stated < len(data) + _most_bytes(page):
            mended, share = data.ljust(stated, b"\0"), share and min(share, len(data) / stated)
        shares.append(share)
        if share:
            model = model or mended
        if not mended:
            lost.append(number)
        elif share < 1 or len(data) < stated:
            segments[number] = mended
    if model and page.compression == JPEG:
        segments |= dict.fromkeys(lost, empty_jpeg(model))
    return (mended_copy(page, file, segments) if segments else file), describe_shares(page, shares)
