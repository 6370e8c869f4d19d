"""EXIF, XMP and IPTC blocks: adjusted to a resized, upright picture, and converted between containers.

EXIF is edited in place: maker notes are full of offsets from the start of the block, so nothing may move.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction

from dsclora_cli.imaging import tiff_ifd, xmp
from dsclora_cli.imaging.geotiff import scale_geo
from dsclora_cli.imaging.types import Metadata
from dsclora_cli.imaging.xmp import Change, edit_xmp

_WIDTHS, _HEIGHTS = (tiff_ifd.WIDTH, 40962), (tiff_ifd.HEIGHT, 40963)  # the second is PixelXDimension, PixelYDimension
DAMAGED_EXIF = "EXIF is damaged and was left out"
_TIFF_HEADER = re.compile(rb"II[*+]\0|MM\0[*+]")
_HEADER_BYTES = 8
"""Bytes of the header of a TIFF stream: order of bytes, a number, and the offset of the first directory."""

_LONGEST_PREFIX = 64
_THUMBNAIL_AT, _THUMBNAIL_SIZE = 513, 514
_PHOTOSHOP = b"Photoshop 3.0\0"
_PATHS = range(2000, 2998)
_MAX_DPI = 10**7
_MAX_RATIO = 2**16 - 1  # of the fields in a JPEG
_RESOLUTION = tiff_ifd.X_RESOLUTION, tiff_ifd.Y_RESOLUTION
# Tags of EXIF about the pixels and their colors, which a TIFF states anew, and marks of programs (PrintIM, padding).
_ABOUT_PIXELS = frozenset((*range(254, 267), *range(273, 285), 296, 301, 318, 319, *range(529, 533), 50341, 59932))
_FOCAL_PLANE = {41486: 0, 41487: 1, 37390: 0, 37391: 1}  # pixels of the sensor: tag to axis
_PLACES = (37396, 41492)  # SubjectArea and SubjectLocation, in pixels
# A search is linear in the length of a packet, whatever the packet holds. (Editors leave kilobytes of blanks.)
_XMP_EXTENSION = re.compile(rb"""\s?\bxmpNote:HasExtendedXMP\s*=\s*("[^"<]*"|'[^'<]*')""")


def with_size(
    metadata: Metadata, width: int, height: int, before: tuple[int, int] | None = None, orientation: int = 1
) -> Metadata:
    """Return the metadata of an upright picture of `width` x `height` pixels.

    In EXIF and XMP, orientation becomes 1, stated sizes become `width` and `height`, counts of pixels and places in the
    picture are scaled and turned. Thumbnails of the old picture are removed, and so is metadata about parts of the old
    file. An EXIF block too damaged to edit is left out.

    Args:
        metadata: Of the old picture; `notes` get a sentence for everything removed but thumbnails.
        width: Of the new picture, as `height`.
        height: Of the new picture.
        before: Width and height before the picture was enlarged; None where the picture was not.
        orientation: EXIF orientation that was applied to the pixels.
    """
    factors = (Fraction(width, before[0]), Fraction(height, before[1])) if before else (Fraction(1), Fraction(1))
    change = Change(width, height, factors, orientation)
    notes = metadata.notes
    exif, packet = metadata.exif, metadata.xmp
    if exif:
        exif = _edit_exif(exif, change)
        notes += () if exif else (DAMAGED_EXIF,)
    if packet:
        packet, removed = edit_xmp(packet, change)
        notes += removed
    dpi, density = metadata.dpi, metadata.density
    if orientation >= 5:
        dpi, density = dpi and dpi[::-1], density and density[::-1]
    geo = metadata.geo
    if geo and orientation != 1:
        geo, notes = None, (*notes, "the place on the map (GeoTIFF) was left out: the picture was turned")
    geo = geo and scale_geo(geo, *factors)
    kept = tuple(dict.fromkeys(notes))
    return replace(metadata, exif=exif, xmp=packet, geo=geo, dpi=dpi, density=density, notes=kept)


def _edit_exif(exif: bytes, change: Change) -> bytes | None:
    try:
        layout, first = tiff_ifd.parse_exif(exif)
    except ValueError:
        return None
    data = bytearray(exif)
    width, height = change.width, change.height
    values = {tiff_ifd.ORIENTATION: 1, **dict.fromkeys(_WIDTHS, width), **dict.fromkeys(_HEIGHTS, height)}
    sub = first.entries.get(tiff_ifd.EXIF_IFD)
    # A reader may take the last of several entries with a tag: all are edited.
    for entries in (first.entries, sub.sub if sub and sub.sub else {}, *({tag: each} for tag, each in first.repeated)):
        for tag, value in values.items():
            if tag in entries:
                # Sizes above 16 bits need a LONG: an entry has 4 bytes for the value in either case.
                is_long = value > 0xFFFF or entries[tag].type == tiff_ifd.LONG
                type_, code = (tiff_ifd.LONG, "HHII") if is_long else (tiff_ifd.SHORT, "HHIHxx")
                record = struct.pack(layout.order + code, tag, type_, 1, value)
                data[entries[tag].at : entries[tag].at + len(record)] = record
        _edit_counts(data, layout, entries, change)
    return _without_thumbnail(data, layout, first)


def _edit_counts(
    data: bytearray, layout: tiff_ifd.Layout, entries: Mapping[int, tiff_ifd.Entry], change: Change
) -> None:
    """Write the new resolution of the focal plane and the new places in the picture over the old ones."""
    order = layout.order
    sensor = {tag: entries[tag] for tag in _FOCAL_PLANE if tag in entries and entries[tag].type == tiff_ifd.RATIONAL}
    for tag, entry in sensor.items():
        # A picture on its side has the axes of the sensor swapped: the tags are neighbors.
        source = sensor.get(tag + (1, -1)[_FOCAL_PLANE[tag]], entry) if change.orientation >= 5 else entry
        top, bottom = struct.unpack_from(order + "II", source.data)
        if bottom:
            value = Fraction(top, bottom) * change.factors[_FOCAL_PLANE[tag]]
            if max(value.numerator, value.denominator) >= 2**32:
                value = value.limit_denominator(10**4)
            if value.numerator < 2**32 and (value != Fraction(top, bottom) or source is not entry):
                _overwrite(data, layout, entry, struct.pack(order + "II", value.numerator, value.denominator))
    both = [entries[tag] for tag in _RESOLUTION if tag in entries]
    if change.orientation >= 5 and len(both) == 2 and all(entry.type == tiff_ifd.RATIONAL for entry in both):
        for entry, other in (both, both[::-1]):
            _overwrite(data, layout, entry, other.data[:8])
    for tag in _PLACES:
        values = tiff_ifd.read_integers(entries.get(tag), order)
        if 2 <= len(values) <= 4 and entries[tag].type in (tiff_ifd.SHORT, tiff_ifd.LONG):
            # A place beyond 16 bits cannot be stated in 16 bits: the nearest is the end of the range.
            code, most = ("H", 0xFFFF) if entries[tag].type == tiff_ifd.SHORT else ("I", 2**32 - 1)
            new = (min(max(value, 0), most) for value in change.pixels(values))
            _overwrite(data, layout, entries[tag], struct.pack(f"{order}{len(values)}{code}", *new))


def _overwrite(data: bytearray, layout: tiff_ifd.Layout, entry: tiff_ifd.Entry, value: bytes) -> None:
    """Write a value of the same length over the value of an entry, in the entry or where the entry points to."""
    at = entry.at + 8
    if len(value) > 4:
        (at,) = struct.unpack_from(layout.order + "I", data, at)
    data[at : at + len(value)] = value


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


def without_details(metadata: Metadata) -> Metadata:
    """Return the metadata for the option `metadata = "none"`: ICC profile, PNG color chunks and the shape of pixels.

    Without them the picture would have other colors or sides.
    """
    return Metadata(icc=metadata.icc, color_chunks=metadata.color_chunks, density=metadata.density)


def with_icc(metadata: Metadata, icc: bytes) -> Metadata:
    """Return the metadata with another ICC profile, and without PNG color chunks, which would contradict it."""
    return replace(metadata, icc=icc, color_chunks=())


def read_orientation(metadata: Metadata) -> int:
    """Return the orientation, 1 to 8, that EXIF states, or else XMP; 1 where neither states a valid value."""
    try:
        layout, first = tiff_ifd.parse_exif(metadata.exif or b"")
    except ValueError:
        return xmp.read_xmp_orientation(metadata.xmp)
    sub = first.entries.get(tiff_ifd.EXIF_IFD)
    for entries in (first.entries, sub.sub if sub and sub.sub else {}):
        if tiff_ifd.ORIENTATION in entries:
            value = tiff_ifd.read_integer(entries[tiff_ifd.ORIENTATION], layout.order)
            return value if value is not None and 1 <= value <= 8 else 1
    return xmp.read_xmp_orientation(metadata.xmp)


def without_orientation(exif: bytes) -> bytes:
    """Return EXIF without the orientation tag, for containers that state orientation elsewhere; nothing else moves."""
    layout, first = tiff_ifd.parse_exif(exif)
    if tiff_ifd.ORIENTATION not in first.entries:
        return exif
    at, end = first.entries[tiff_ifd.ORIENTATION].at, first.next_at + 4
    _, start = tiff_ifd.parse_header(exif[:16])
    count = struct.pack(layout.order + "H", struct.unpack_from(layout.order + "H", exif, start)[0] - 1)
    # The entries behind the tag (12 bytes) move up within the table; zeros fill the gap at the end of the table.
    return exif[:start] + count + exif[start + 2 : at] + exif[at + 12 : end].ljust(end - at, b"\0") + exif[end:]


def normalize_exif(exif: bytes | None) -> bytes | None:
    """Return EXIF from the TIFF header on, without the prefix of the container; None for a damaged or missing block.

    The prefix is "Exif" and two zeros in JPEG (6 bytes), a length in HEIF (4 bytes), or both. A block that is slightly
    broken is read as other programs read it: a directory that claims more entries than there are gets their number.
    """
    for found in _TIFF_HEADER.finditer((exif or b"")[:_LONGEST_PREFIX]):
        block = (exif or b"")[found.start() :]
        try:
            layout, first = tiff_ifd.parse_exif(block)
        except ValueError:
            continue
        if layout.big:  # no reader knows EXIF with offsets of 64 bits
            return None
        (start,) = struct.unpack_from(layout.order + "I", block, 4)
        if start < _HEADER_BYTES:  # the new number of entries would lie over the header
            continue
        return block[:start] + struct.pack(layout.order + "H", first.count) + block[start + 2 :]
    return None


def exif_notes(exif: bytes | None) -> tuple[str, ...]:
    """Return a sentence for the user about EXIF that `normalize_exif` leaves out; empty without EXIF."""
    return (DAMAGED_EXIF,) if exif and exif.strip(b"\0") and normalize_exif(exif) is None else ()


def normalize_xmp(packet: bytes | str | None) -> bytes | None:
    """Return XMP as bytes without padding and without the link to the extended part of a JPEG's XMP.

    The extended part is not read: depth maps and similar data there belong to the old pixels.
    """
    data = packet.encode() if isinstance(packet, str) else packet
    for mark, encoding in (
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"<\0", "utf-16-le"),
        (b"\0<", "utf-16-be"),
    ):
        if data and data.startswith(mark):
            data = data.decode(encoding, "replace").encode()
    return _XMP_EXTENSION.sub(b"", data).strip(b"\0") if data else None


def normalize_dpi(across: float, down: float) -> tuple[float, float] | None:
    """Return horizontal and vertical resolution in dots per inch, or None for a value that no device has.

    Zero means an unknown resolution, and the values of a damaged file would not fit the fields of PNG and BMP.
    """
    plausible = all(0 < dots <= _MAX_DPI for dots in (across, down))
    return (float(across), float(down)) if plausible else None


def read_exif_resolution(exif: bytes | None) -> tuple[tuple[float, float] | None, tuple[int, int] | None]:
    """Return the resolution that EXIF states in dots per inch, and without a unit the shape of the pixels."""
    try:
        layout, first = tiff_ifd.parse_exif(exif or b"")
    except ValueError:
        return None, None
    dots = [tiff_ifd.read_fractions(first.entries.get(tag), layout.order)[:1] for tag in _RESOLUTION]
    if not all(dots):
        return None, None
    across, down = (values[0] for values in dots)
    unit = tiff_ifd.read_integer(first.entries.get(tiff_ifd.RESOLUTION_UNIT), layout.order) or tiff_ifd.INCH
    if unit == tiff_ifd.NO_UNIT:
        return None, pixel_density(across, down)
    factor = 2.54 if unit == tiff_ifd.CENTIMETER else 1.0
    return normalize_dpi(across * factor, down * factor), None


def tags_without_place(exif: bytes | None) -> list[int]:
    """Return the tags of an EXIF block that a TIFF file does not take over: unknown ones, and those that are double."""
    try:
        _, first = tiff_ifd.parse_exif(exif or b"")
    except ValueError:
        return []
    known = (*tiff_ifd.DETAILS, *tiff_ifd.WINDOWS_DETAILS, *_ABOUT_PIXELS)
    unknown = [tag for tag in first.entries if tag not in known]
    return [*unknown, *(tag for tag, _ in first.repeated if tag not in _ABOUT_PIXELS)]


def pixel_density(across: float | Fraction, down: float | Fraction) -> tuple[int, int] | None:
    """Return pixels across and down in the same length as small numbers, or None for square pixels and for nonsense."""
    if not (0 < across < 2**32 and 0 < down < 2**32) or across == down:
        return None
    ratio = Fraction(across) / Fraction(down)
    least = min(ratio, 1 / ratio).limit_denominator(_MAX_RATIO)
    if least in (0, 1):
        return None
    pair = least.numerator, least.denominator
    return pair if ratio < 1 else pair[::-1]


def extract_iptc(resources: bytes) -> bytes | None:
    """Return the IPTC records in Photoshop image resources ("8BIM" blocks), or None.

    Data that already are IPTC records (first byte 0x1C) are returned unchanged.
    """
    resources = resources.removeprefix(_PHOTOSHOP)
    if resources[:1] == b"\x1c":
        return resources
    return next((data for kind, data in _iter_resources(resources) if kind == tiff_ifd.IPTC_RESOURCE and data), None)


def path_notes(resources: bytes) -> Iterator[str]:
    """Yield a sentence for the user about paths in Photoshop image resources, which are not written."""
    resources = resources.removeprefix(_PHOTOSHOP)
    count = sum(kind in _PATHS for kind, _ in _iter_resources(resources))
    if count:
        yield f"paths of Photoshop were left out: {count}"


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
    return struct.pack(">4sHHI", b"8BIM", tiff_ifd.IPTC_RESOURCE, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
