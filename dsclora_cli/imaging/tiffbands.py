"""Large TIFF pages as bands of rows, decoded while those before are upscaled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.picture import regrouped

if TYPE_CHECKING:
    from tifffile import TiffPage

_LARGE = 2**26
"""Bytes of a page from which on it comes in bands."""

_BAND = 2**23  # bytes


def has_bands(page: TiffPage) -> bool:
    """Whether a page is large and lies in its file row by row, all samples of a pixel together."""
    apart = page.planarconfig == 2 and page.samplesperpixel > 1
    whole = page.jpegheader is not None or page.imagedepth > 1
    return page.nbytes > _LARGE and not apart and not whole


def bands_of(page: TiffPage, file: BinaryIO) -> Iterator[NDArray[Any]]:
    """The samples of a page that `has_bands` as they are stored, `(h, W, samples)`, from top to bottom."""
    rows = max(1, _BAND * page.imagelength // page.nbytes)
    return regrouped(_plain(page, file, rows) if page.is_contiguous else _decoded(page), rows)


def _plain(page: TiffPage, file: BinaryIO, rows: int) -> Iterator[NDArray[Any]]:
    """Rows that follow each other in the file, uncompressed."""
    assert page.dtype is not None
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    for top in range(0, page.imagelength, rows):
        shape = min(rows, page.imagelength - top), page.imagewidth, page.samplesperpixel
        size = int(np.prod(shape)) * dtype.itemsize
        file.seek(page.dataoffsets[0] + top * (page.nbytes // page.imagelength))
        data = file.read(size)
        if len(data) < size:
            raise ImageError(f"the file is damaged or truncated (rows from {top} on are missing)")
        yield np.frombuffer(data, dtype).reshape(shape)


def _decoded(page: TiffPage) -> Iterator[NDArray[Any]]:
    """Strips, or rows of tiles put together."""
    band: NDArray[Any] | None = None
    for segment, (_, _, top, left, _), (_, height, _, _) in page.segments(maxworkers=1):
        if left == 0:
            if band is not None:
                yield band
            shape = min(height, page.imagelength - top), page.imagewidth, page.samplesperpixel
            band = np.full(shape, page.nodata, page.dtype)
        assert band is not None
        if segment is not None:
            part = segment[0, : len(band), : page.imagewidth - left]
            band[: len(part), left : left + part.shape[1]] = part
    if band is not None:
        yield band
