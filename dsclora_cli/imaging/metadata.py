"""EXIF, XMP and IPTC as raw blocks: made true for a resized, upright picture, and moved between containers."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import replace

from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.types import Metadata

_ORIENTATION = 274
_WIDTHS, _HEIGHTS = (256, 40962), (257, 40963)
_THUMBNAIL_AT, _THUMBNAIL_SIZE = 513, 514
_IPTC_RESOURCE = 0x0404
_XMP_WIDTHS = ("tiff:ImageWidth", "exif:PixelXDimension")
_XMP_HEIGHTS = ("tiff:ImageLength", "exif:PixelYDimension")
_XMP_THUMBNAILS = re.compile(rb"<xmp:Thumbnails\b.*?</xmp:Thumbnails>|<xmp:Thumbnails\b[^>]*/>", re.DOTALL)
_XMP_EXTENSION = re.compile(rb"""\s+xmpNote:HasExtendedXMP\s*=\s*("[^"]*"|'[^']*')""")


def with_size(metadata: Metadata, width: int, height: int) -> Metadata:
    """The metadata of an upright picture of `width` x `height` pixels.

    Orientation becomes 1 and every statement of the size true, in EXIF and XMP; thumbnails are gone, for they show
    another picture. EXIF is edited in place: nothing moves, so maker notes keep the offsets they are full of. An EXIF
    block too broken to edit is left out.
    """
    return replace(
        metadata,
        exif=metadata.exif and _resized_exif(metadata.exif, width, height),
        xmp=metadata.xmp and _resized_xmp(metadata.xmp, width, height),
    )


def without_details(metadata: Metadata) -> Metadata:
    """What `metadata = "none"` keeps: only what says how colours look (the ICC profile, PNG's colour chunks)."""
    return Metadata(icc=metadata.icc, colour_chunks=metadata.colour_chunks)


def with_icc(metadata: Metadata, icc: bytes) -> Metadata:
    """The metadata with another ICC profile, which then says alone how colours look."""
    return replace(metadata, icc=icc, colour_chunks=())


def orientation(exif: bytes | None) -> int:
    """EXIF orientation 1-8; 1 where there is none or it is nonsense."""
    try:
        layout, directory = tiff_ifd.read_exif(exif or b"")
    except ValueError:
        return 1
    value = tiff_ifd.number(directory.entries.get(_ORIENTATION), layout.order)
    return value if value is not None and 1 <= value <= 8 else 1


def without_orientation(exif: bytes) -> bytes:
    """EXIF without its orientation tag, everything else where it was. For containers that state it elsewhere."""
    layout, first = tiff_ifd.read_exif(exif)
    if _ORIENTATION not in first.entries:
        return exif
    at, end = first.entries[_ORIENTATION].at, first.next_at + 4
    _, start = tiff_ifd.layout_of(exif[:16])
    count = struct.pack(layout.order + "H", struct.unpack_from(layout.order + "H", exif, start)[0] - 1)
    return exif[:start] + count + exif[start + 2 : at] + exif[at + 12 : end].ljust(end - at, b"\0") + exif[end:]


def plain_exif(exif: bytes | None) -> bytes | None:
    """EXIF from its TIFF header on: the "Exif" prefix of JPEG and the length of HEIF's box are dropped; None if broken.

    Cameras and editors pad, prefix and truncate EXIF; a block that is no TIFF directory is of no use to anybody.
    """
    for start in (0, 6, 4, 10):
        block = (exif or b"")[start:]
        try:
            tiff_ifd.read_exif(block)
        except ValueError:
            continue
        return block
    return None


def plain_xmp(xmp: bytes | str | None) -> bytes | None:
    """XMP without the link to a JPEG's extended part, which is not read: it holds depth maps and such of old pixels."""
    data = xmp.encode() if isinstance(xmp, str) else xmp
    return _XMP_EXTENSION.sub(b"", data).strip(b"\0") if data else None


def iptc_of_resources(resources: bytes) -> bytes | None:
    """IPTC from Photoshop image resources ("8BIM" blocks), or from data that already is IPTC; None if there is none."""
    if resources.startswith(b"Photoshop 3.0\0"):
        resources = resources[14:]
    if resources[:1] == b"\x1c":
        return resources
    return next((data for kind, data in _resources(resources) if kind == _IPTC_RESOURCE and data), None)


def resources_of_iptc(iptc: bytes) -> bytes:
    """IPTC as a Photoshop image resource, as JPEG and PNG carry it."""
    return struct.pack(">4sHHI", b"8BIM", _IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def comment(metadata: Metadata) -> str | None:
    """The text that JPEG and GIF have room for: the one under the key "comment"."""
    return next((value for key, value in metadata.text if key.lower() == "comment"), None)


def _resized_exif(exif: bytes, width: int, height: int) -> bytes | None:
    try:
        layout, first = tiff_ifd.read_exif(exif)
    except ValueError:
        return None
    data = bytearray(exif)
    truth = {_ORIENTATION: 1, **dict.fromkeys(_WIDTHS, width), **dict.fromkeys(_HEIGHTS, height)}
    sub = first.entries.get(tiff_ifd.EXIF_IFD)
    for entries in (first.entries, sub.sub if sub and sub.sub else {}):
        for tag, value in truth.items():
            if tag in entries:
                type_ = tiff_ifd.LONG if value > 0xFFFF or entries[tag].type == tiff_ifd.LONG else tiff_ifd.SHORT
                record = struct.pack(
                    layout.order + ("HHII" if type_ == tiff_ifd.LONG else "HHIHxx"), tag, type_, 1, value
                )
                data[entries[tag].at : entries[tag].at + len(record)] = record
    return _without_thumbnail(data, layout, first)


def _without_thumbnail(data: bytearray, layout: tiff_ifd.Layout, first: tiff_ifd.Directory) -> bytes:
    """Unlink the second directory and wipe its JPEG, cut off where it ends the block, as it does in cameras' files."""
    if not first.next:
        return bytes(data)
    data[first.next_at : first.next_at + 4] = bytes(4)
    try:
        entries = tiff_ifd.read(io.BytesIO(data), layout, first.next).entries
    except ValueError:
        return bytes(data)
    start = tiff_ifd.number(entries.get(_THUMBNAIL_AT), layout.order)
    size = tiff_ifd.number(entries.get(_THUMBNAIL_SIZE), layout.order)
    if start and size and first.next < start < start + size <= len(data):
        data[start : start + size] = bytes(size)
        if start + size >= len(data) - 2:
            del data[start:]
    return bytes(data)


def _resized_xmp(xmp: bytes, width: int, height: int) -> bytes:
    truth = {"tiff:Orientation": 1, **dict.fromkeys(_XMP_WIDTHS, width), **dict.fromkeys(_XMP_HEIGHTS, height)}
    for tag, value in truth.items():
        name, number = tag.encode(), b"%d" % value
        xmp = re.sub(rb"(\b" + name + rb"""\s*=\s*["'])[^"']*""", rb"\g<1>" + number, xmp)
        xmp = re.sub(rb"(<" + name + rb"\b[^>]*>)[^<]*(?=</)", rb"\g<1>" + number, xmp)
    return _XMP_THUMBNAILS.sub(b"", xmp)


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and data of each image resource, whose name (a Pascal string) and data are padded to even lengths."""
    at = 0
    while data[at : at + 4] == b"8BIM" and at + 12 <= len(data):
        (kind,) = struct.unpack_from(">H", data, at + 4)
        at += 6 + (data[at + 6] + 2) // 2 * 2
        if at + 4 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, at)
        yield kind, data[at + 4 : at + 4 + size]
        at += 4 + (size + 1) // 2 * 2
