"""EXIF, XMP and IPTC blocks: adjusted to a resized, upright picture, and converted between containers.

EXIF is edited in place: maker notes are full of offsets from the start of the block, so nothing may move.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import replace

from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.types import Metadata

_ORIENTATION = 274
_WIDTHS, _HEIGHTS = (256, 40962), (257, 40963)  # ImageWidth and PixelXDimension, ImageLength and PixelYDimension
_THUMBNAIL_AT, _THUMBNAIL_SIZE = 513, 514
_IPTC_RESOURCE = 0x0404
_MAX_DPI = 10**7
_XMP_WIDTHS = ("tiff:ImageWidth", "exif:PixelXDimension")
_XMP_HEIGHTS = ("tiff:ImageLength", "exif:PixelYDimension")
# Expressions over XMP begin with a name, and no part runs over the next name: a search is linear in the length of the
# packet, whatever the packet holds. (Editors leave kilobytes of blanks in a packet.)
_XMP_THUMBNAILS = re.compile(rb"<xmp:Thumbnails\b[^<>]*>")
_XMP_THUMBNAILS_END = b"</xmp:Thumbnails>"
_XMP_EXTENSION = re.compile(rb"""\s?\bxmpNote:HasExtendedXMP\s*=\s*("[^"<]*"|'[^'<]*')""")


def with_size(metadata: Metadata, width: int, height: int) -> Metadata:
    """Return the metadata of an upright picture of `width` x `height` pixels.

    In EXIF and XMP, orientation becomes 1, stated sizes become `width` and `height`, and thumbnails of the old picture
    are removed. An EXIF block too damaged to edit is left out.
    """
    return replace(
        metadata,
        exif=metadata.exif and _resize_exif(metadata.exif, width, height),
        xmp=metadata.xmp and _resize_xmp(metadata.xmp, width, height),
    )


def _resize_exif(exif: bytes, width: int, height: int) -> bytes | None:
    try:
        layout, first = tiff_ifd.parse_exif(exif)
    except ValueError:
        return None
    data = bytearray(exif)
    values = {_ORIENTATION: 1, **dict.fromkeys(_WIDTHS, width), **dict.fromkeys(_HEIGHTS, height)}
    sub = first.entries.get(tiff_ifd.EXIF_IFD)
    for entries in (first.entries, sub.sub if sub and sub.sub else {}):
        for tag, value in values.items():
            if tag in entries:
                # Sizes above 16 bits need a LONG: an entry has 4 bytes for the value in either case.
                is_long = value > 0xFFFF or entries[tag].type == tiff_ifd.LONG
                type_, code = (tiff_ifd.LONG, "HHII") if is_long else (tiff_ifd.SHORT, "HHIHxx")
                record = struct.pack(layout.order + code, tag, type_, 1, value)
                data[entries[tag].at : entries[tag].at + len(record)] = record
    return _without_thumbnail(data, layout, first)


def _without_thumbnail(data: bytearray, layout: tiff_ifd.Layout, first: tiff_ifd.Directory) -> bytes:
    """Return the EXIF block without the second directory, which describes the thumbnail, and without the thumbnail."""
    if not first.next:
        return bytes(data)
    data[first.next_at : first.next_at + 4] = bytes(4)
    try:
        entries = tiff_ifd.read_directory(io.BytesIO(data), layout, first.next).entries
    except ValueError:
        return bytes(data)
    start = tiff_ifd.read_integer(entries.get(_THUMBNAIL_AT), layout.order)
    size = tiff_ifd.read_integer(entries.get(_THUMBNAIL_SIZE), layout.order)
    if start and size and first.next < start < start + size <= len(data):
        # Zeros keep the offsets of everything behind. At the end of the block (where cameras put the thumbnail, with
        # up to 2 bytes of padding) the zeros can be cut off.
        data[start : start + size] = bytes(size)
        if start + size >= len(data) - 2:
            del data[start:]
    return bytes(data)


def _resize_xmp(xmp: bytes, width: int, height: int) -> bytes:
    values = {"tiff:Orientation": 1, **dict.fromkeys(_XMP_WIDTHS, width), **dict.fromkeys(_XMP_HEIGHTS, height)}
    for tag, value in values.items():
        name, number = tag.encode(), b"%d" % value
        # XMP allows a property as an attribute and as an element.
        xmp = re.sub(rb"(\b" + name + rb"""\s*=\s*["'])[^"']*""", rb"\g<1>" + number, xmp)
        xmp = re.sub(rb"(<" + name + rb"\b[^<>]*>)[^<]*(?=</)", rb"\g<1>" + number, xmp)
    return _without_thumbnails(xmp)


def _without_thumbnails(xmp: bytes) -> bytes:
    """Return XMP without thumbnails; an element without an end stays."""
    kept, at = [], 0
    while found := _XMP_THUMBNAILS.search(xmp, at):
        end = found.end()
        if not found[0].endswith(b"/>"):
            closing = xmp.find(_XMP_THUMBNAILS_END, end)
            # No later element has an end either: the search is over.
            if closing < 0:
                break
            end = closing + len(_XMP_THUMBNAILS_END)
        kept.append(xmp[at : found.start()])
        at = end
    return b"".join((*kept, xmp[at:]))


def without_details(metadata: Metadata) -> Metadata:
    """Return the metadata for the option `metadata = "none"`: only ICC profile and PNG color chunks are kept.

    Without profile and color chunks the picture would have other colors.
    """
    return Metadata(icc=metadata.icc, color_chunks=metadata.color_chunks)


def with_icc(metadata: Metadata, icc: bytes) -> Metadata:
    """Return the metadata with another ICC profile, and without PNG color chunks, which would contradict it."""
    return replace(metadata, icc=icc, color_chunks=())


def read_orientation(exif: bytes | None) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where EXIF is missing, damaged or states an undefined value."""
    if not exif:
        return 1
    try:
        layout, directory = tiff_ifd.parse_exif(exif)
    except ValueError:
        return 1
    value = tiff_ifd.read_integer(directory.entries.get(_ORIENTATION), layout.order)
    return value if value is not None and 1 <= value <= 8 else 1


def without_orientation(exif: bytes) -> bytes:
    """Return EXIF without the orientation tag, for containers that state orientation elsewhere; nothing else moves."""
    layout, first = tiff_ifd.parse_exif(exif)
    if _ORIENTATION not in first.entries:
        return exif
    at, end = first.entries[_ORIENTATION].at, first.next_at + 4
    _, start = tiff_ifd.parse_header(exif[:16])
    count = struct.pack(layout.order + "H", struct.unpack_from(layout.order + "H", exif, start)[0] - 1)
    # The entries behind the tag (12 bytes) move up within the table; zeros fill the gap at the end of the table.
    return exif[:start] + count + exif[start + 2 : at] + exif[at + 12 : end].ljust(end - at, b"\0") + exif[end:]


def normalize_exif(exif: bytes | None) -> bytes | None:
    """Return EXIF from the TIFF header on, without the prefix of the container; None for a damaged or missing block.

    The prefix is "Exif" and two zeros in JPEG (6 bytes), a length in HEIF (4 bytes), or both. Cameras and editors also
    pad and truncate EXIF: a block without a TIFF directory is useless to any reader.
    """
    if not exif:
        return None
    for start in (0, 6, 4, 10):
        block = exif[start:]
        try:
            layout, directory = tiff_ifd.parse_exif(block)
        except ValueError:
            continue
        # EXIF in the form of BigTIFF is rare, and few programs read the form: written anew, as edits in place would
        # need other sizes.
        return tiff_ifd.pack_exif(directory.entries, layout.order) if layout.big else block
    return None


def normalize_xmp(xmp: bytes | str | None) -> bytes | None:
    """Return XMP as bytes without padding and without the link to the extended part of a JPEG's XMP.

    The extended part is not read: depth maps and similar data there belong to the old pixels.
    """
    data = xmp.encode() if isinstance(xmp, str) else xmp
    return _XMP_EXTENSION.sub(b"", data).strip(b"\0") if data else None


def normalize_dpi(across: float, down: float) -> tuple[float, float] | None:
    """Return horizontal and vertical resolution in dots per inch, or None for a value that no device has.

    Zero means an unknown resolution, and the values of a damaged file would not fit the fields of PNG and BMP.
    """
    plausible = all(0 < dots <= _MAX_DPI for dots in (across, down))
    return (float(across), float(down)) if plausible else None


def extract_iptc(resources: bytes) -> bytes | None:
    """Return the IPTC records in Photoshop image resources ("8BIM" blocks), or None.

    Data that already are IPTC records (first byte 0x1C) are returned unchanged.
    """
    if resources.startswith(b"Photoshop 3.0\0"):
        resources = resources[14:]
    if resources[:1] == b"\x1c":
        return resources
    return next((data for kind, data in _iter_resources(resources) if kind == _IPTC_RESOURCE and data), None)


def _iter_resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and data of each Photoshop image resource."""
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        (kind,) = struct.unpack_from(">H", data, at + 4)
        # The name (a Pascal string: length byte, then characters) is padded to an even length, and so are the data.
        at += 6 + (data[at + 6] + 2) // 2 * 2
        if at + 4 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, at)
        yield kind, data[at + 4 : at + 4 + size]
        at += 4 + (size + 1) // 2 * 2


def wrap_iptc(iptc: bytes) -> bytes:
    """Return IPTC records as a Photoshop image resource, the form of IPTC in JPEG and PNG."""
    return struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
