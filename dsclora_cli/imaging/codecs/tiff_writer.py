"""Encoder for TIFF and BigTIFF: pages in strips, large pages in tiles as their bands arrive.

tifffile writes the pages. Then a copy of the first directory, with the metadata, is appended and replaces the first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

import numpy as np

from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.types import AnyFrame, Header, Metadata, Pixels, regroup_bands

_TILE = 512  # pixels a side
_TILED_FROM = 2**28  # bytes of a page
_STRIP = 2**20  # bytes
_CLASSIC_LIMIT = 2**32 - 2**25  # bytes of pixels; offsets have 32 bits, and metadata needs some room


def write_tiff(target: BinaryIO, header: Header, frames: Iterable[AnyFrame], compression: int) -> None:
    """Write pages after each other; large pages are written in tiles, band by band as their bands arrive.

    Args:
        target: File to write, seekable and readable.
        header: Describes the frames, their number and the metadata.
        frames: Pages, `(H, W, header.channels)` of `header.dtype`.
        compression: Level of deflate, 1 to 9; 0 writes uncompressed.
    """
    from tifffile import TiffWriter

    metadata, channels = header.metadata, header.channels
    details = _metadata_entries(metadata)
    # EXIF values are raw bytes: the file must have their byte order.
    block = metadata.exif or metadata.geo
    order = tiff_ifd.parse_header(block[:16])[0].order if block else "<"
    dtype = header.dtype.newbyteorder(order)
    size = header.frames * header.width * header.height * channels * dtype.itemsize
    with TiffWriter(target, bigtiff=size > _CLASSIC_LIMIT, byteorder=order) as writer:
        for frame in frames:
            shape = frame.shape if channels > 1 else frame.shape[:2]
            row = frame.shape[1] * channels * dtype.itemsize
            tiled = frame.shape[0] * row > _TILED_FROM
            writer.write(
                _iter_tiles(frame) if tiled else frame.pixels.reshape(shape),
                shape=shape,
                dtype=dtype,
                tile=(_TILE, _TILE) if tiled else None,
                photometric="rgb" if channels > 2 else "minisblack",
                planarconfig="contig" if channels > 1 else None,
                extrasamples=("unassalpha",) if channels in (2, 4) else (),
                compression="zlib" if compression else None,
                compressionargs={"level": compression} if compression else None,
                predictor=bool(compression),
                rowsperstrip=None if tiled else max(1, _STRIP // row),
                iccprofile=metadata.icc,
                resolution=metadata.dpi or metadata.density or (1, 1),
                resolutionunit="inch" if metadata.dpi else "none",
                subfiletype=2 if header.frames > 1 else 0,  # a page of several
                metadata=None,
                software=False,
                contiguous=False,
            )
    if details:
        _add_to_first_page(target, details)


def _iter_tiles(frame: AnyFrame) -> Iterator[Pixels]:
    """Yield the tiles of a page `(h, w, C)` from left to right, then from top to bottom; smaller at the borders."""
    for band in regroup_bands(frame.bands(), _TILE):
        for left in range(0, band.shape[1], _TILE):
            yield np.ascontiguousarray(band[:, left : left + _TILE])


def _metadata_entries(metadata: Metadata) -> dict[int, tiff_ifd.Entry]:
    """Return EXIF, XMP and IPTC as entries of a TIFF directory, in the byte order of the EXIF block, if any."""
    details: dict[int, tiff_ifd.Entry] = {}
    if metadata.exif:
        entries = tiff_ifd.parse_exif(metadata.exif)[1].entries
        details = {tag: entries[tag] for tag in (*tiff_ifd.DETAILS, *tiff_ifd.WINDOWS_DETAILS) if tag in entries}
    if metadata.geo:
        details |= tiff_ifd.parse_exif(metadata.geo)[1].entries
    if metadata.xmp:
        details[tiff_ifd.XMP] = tiff_ifd.Entry(tiff_ifd.BYTE, metadata.xmp)
    if metadata.iptc:
        details[tiff_ifd.IPTC] = tiff_ifd.Entry(tiff_ifd.UNDEFINED, metadata.iptc)
    return details


def _add_to_first_page(file: BinaryIO, details: Mapping[int, tiff_ifd.Entry]) -> None:
    """Write the first directory again at the end of the file, with `details` added, and point the header there."""
    file.seek(0)
    layout, offset = tiff_ifd.parse_header(file.read(16))
    first = tiff_ifd.read_directory(file, layout, offset)
    end = file.seek(0, 2)
    end += file.write(bytes(end % 2))  # directories start at even offsets
    file.write(tiff_ifd.pack_directory({**first.entries, **details}, layout, end, first.next))
    file.seek(8 if layout.big else 4)
    file.write(struct.pack(layout.word, end))
