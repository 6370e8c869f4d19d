"""TIFF out: pages in strips, or large ones in tiles as their bands come, and metadata in the first directory."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO

import numpy as np

from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.codecs.tiff_reader import DETAILS, IPTC, WINDOWS_DETAILS, XMP
from dsclora_cli.imaging.types import AnyFrame, Header, Metadata, Pixels, regroup_bands

_BYTE, _UNDEFINED = 1, 7
_TILE = 512
_TILED_FROM = 2**28  # bytes of a page
_CLASSIC_LIMIT = 2**32 - 2**25


def write_tiff(target: BinaryIO, header: Header, frames: Iterable[AnyFrame], compression: int) -> None:
    """Write pages of `header.channels` and `header.dtype` one after the other; `target` is seekable and readable.

    Large pages are written in tiles, band by band as they come.
    """
    from tifffile import TiffWriter

    metadata = header.metadata
    details = _details(metadata)
    order = tiff_ifd.layout_of(metadata.exif[:16])[0].order if metadata.exif else "<"
    size = header.frames * header.width * header.height * header.channels * header.dtype.itemsize
    big = size > _CLASSIC_LIMIT
    with TiffWriter(target, bigtiff=big, byteorder="<" if order == "<" else ">") as writer:
        for frame in frames:
            shape = frame.shape if header.channels > 1 else frame.shape[:2]
            row = frame.shape[1] * header.channels * header.dtype.itemsize
            tiled = frame.shape[0] * row > _TILED_FROM
            writer.write(
                _tiles(frame) if tiled else frame.pixels.reshape(shape),
                shape=shape,
                dtype=header.dtype,
                tile=(_TILE, _TILE) if tiled else None,
                photometric="rgb" if header.channels > 2 else "minisblack",
                planarconfig="contig" if header.channels > 1 else None,
                extrasamples=("unassalpha",) if header.channels in (2, 4) else (),
                compression="zlib" if compression else None,
                compressionargs={"level": compression} if compression else None,
                predictor=bool(compression),
                rowsperstrip=None if tiled else max(1, 2**20 // row),
                iccprofile=metadata.icc,
                resolution=metadata.dpi or (1, 1),
                resolutionunit="inch" if metadata.dpi else "none",
                subfiletype=2 if header.frames > 1 else 0,
                metadata=None,
                software=False,
                contiguous=False,
            )
    if details:
        _add_to_first_page(target, details)


def _tiles(frame: AnyFrame) -> Iterator[Pixels]:
    """The tiles of a page from left to right, from top to bottom; those at the borders are smaller."""
    for band in regroup_bands(frame.bands(), _TILE):
        for left in range(0, band.shape[1], _TILE):
            yield np.ascontiguousarray(band[:, left : left + _TILE])


def _add_to_first_page(file: BinaryIO, details: Mapping[int, tiff_ifd.Entry]) -> None:
    """Write the first directory anew at the end of the file, with `details` in it, and let the header point there."""
    file.seek(0)
    layout, offset = tiff_ifd.layout_of(file.read(16))
    first = tiff_ifd.read(file, layout, offset)
    end = file.seek(0, 2)
    end += file.write(bytes(end % 2))
    file.write(tiff_ifd.pack({**first.entries, **details}, layout, end, first.next))
    file.seek(8 if layout.big else 4)
    file.write(struct.pack(layout.word, end))


def _details(metadata: Metadata) -> dict[int, tiff_ifd.Entry]:
    """Metadata as entries of a TIFF directory, in the byte order of the EXIF block if there is one."""
    details: dict[int, tiff_ifd.Entry] = {}
    if metadata.exif:
        entries = tiff_ifd.read_exif(metadata.exif)[1].entries
        details = {tag: entries[tag] for tag in (*DETAILS, *WINDOWS_DETAILS) if tag in entries}
    if metadata.xmp:
        details[XMP] = tiff_ifd.Entry(_BYTE, metadata.xmp)
    if metadata.iptc:
        details[IPTC] = tiff_ifd.Entry(_UNDEFINED, metadata.iptc)
    return details
