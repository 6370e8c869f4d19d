"""Boxes of JPEG 2000, JPEG XL and AVIF files (ISO base media file format): metadata and bit depth.

Pillow reads no metadata of JPEG 2000 and does not tell the bit depth of AVIF, so both are read here.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import BinaryIO

from dsclora_cli.imaging.metadata import (
    exif_notes,
    extract_iptc,
    normalize_dpi,
    normalize_exif,
    normalize_xmp,
    pixel_density,
)
from dsclora_cli.imaging.types import Metadata

UUIDS = MappingProxyType(
    {
        "xmp": bytes.fromhex("be7acfcb97a942e89c71999491e3afac"),
        "exif": b"JpgTiffExif->JP2",
        "iptc": bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"),
    }
)
"""First 16 bytes of a "uuid" box, by the kind of metadata that follows."""

_CODESTREAM = b"\xff\x4f\xff\x51"
_MAX_BOXES = 2**16  # a file of empty boxes would take minutes
_MAX_PARTS = 2**16
_PROPERTY = 64  # bytes of a property of a picture that are looked at
_RESOLUTIONS = (b"resd", b"resc")  # for display, and of the scan
_MAX_TEXT = 2**24  # bytes after decompression
_TEXT_BOXES = {b"xml ": "xmp", b"Exif": "exif"}
# What an EXIF orientation becomes after a quarter turn to the left, and after a mirror, by the axis in "imir".
_AFTER_QUARTER_TURN = {1: 8, 2: 5, 3: 6, 4: 7, 5: 4, 6: 1, 7: 2, 8: 3}
_AFTER_MIRROR = ({1: 4, 2: 3, 3: 2, 4: 1, 5: 8, 6: 7, 7: 6, 8: 5}, {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5, 7: 8, 8: 7})
_RESTRICTED_ICC, _ANY_ICC = 2, 3  # methods of a "colr" box; the first is the one that every reader knows


@dataclass(frozen=True)
class Box:
    """A box of a file."""

    kind: bytes
    """Four letters."""

    start: int
    """Offset of the content in the file, behind the header of the box."""

    end: int
    """Offset behind the content."""


@dataclass(frozen=True)
class ItemPart:
    """A part of an item of an AVIF or HEIF, in the file."""

    item: int
    """Number of the item."""

    start: int
    """Offset in the file; may lie behind the end of a file that was cut, by any number of bytes in a hostile file."""

    length: int
    """Bytes, as the file states."""


@dataclass(frozen=True)
class Codestream:
    """Facts in the header of a JPEG 2000 codestream (ISO/IEC 15444-1, marker SIZ)."""

    width: int
    """Pixels."""

    height: int
    """Pixels."""

    channels: int

    depths: tuple[int, ...]
    """Bits and sign of each channel: the bits minus 1, plus 128 for signed values."""

    @property
    def bits(self) -> int:
        """Return the bits per channel, of the deepest channel."""
        return max((depth & 0x7F) + 1 for depth in self.depths)


def iter_boxes(file: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yield the boxes between two offsets of a file; stop at the first damaged box. The file need not have boxes."""
    end = file.seek(0, io.SEEK_END) if end is None else end
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        # Size 1: a 64-bit size follows. Size 0: the box reaches to the end of the file.
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
            content += 8
        stop = min(start + size, end) if size else end
        if stop < content:
            return
        yield Box(kind, content, stop)
        start = stop


def read_box_metadata(file: BinaryIO) -> Metadata:
    """Return ICC profile, EXIF, XMP and IPTC of a JPEG 2000 or JPEG XL file; a bare codestream has none."""
    found: dict[str, bytes] = {}
    dpi = None
    for box in iter_boxes(file):
        if box.kind == b"jp2h":
            profile = _read_jp2_profile(file, box)
            if profile:
                found["icc"] = profile
            dpi = _read_jp2_resolution(file, box)
        elif box.kind == b"uuid":
            data = read_content(file, box)
            name = next((name for name, uuid in UUIDS.items() if data.startswith(uuid)), None)
            if name:
                found[name] = data[16:]
        elif box.kind in (b"xml ", b"Exif", b"brob"):
            kind, data = box.kind, read_content(file, box)
            if kind == b"brob":  # a box of JPEG XL, compressed
                kind, data = data[:4], _unpack_brotli(data[4:])
            if kind in _TEXT_BOXES and data:
                found[_TEXT_BOXES[kind]] = data
    iptc = found.get("iptc")
    return Metadata(
        icc=found.get("icc"),
        exif=normalize_exif(found.get("exif")),
        notes=exif_notes(found.get("exif")),
        xmp=normalize_xmp(found.get("xmp")),
        iptc=iptc and extract_iptc(iptc),
        dpi=dpi,
    )


def _unpack_brotli(data: bytes) -> bytes:
    """Return decompressed data; empty for damaged data, and for a bomb that grows beyond `_MAX_TEXT`."""
    import imagecodecs

    try:
        return bytes(imagecodecs.brotli_decode(data, out=_MAX_TEXT))
    except (RuntimeError, ValueError):
        return b""


def _read_jp2_profile(file: BinaryIO, header: Box) -> bytes | None:
    for box in iter_boxes(file, header.start, header.end):
        data = read_content(file, box) if box.kind == b"colr" else b""
        if data and data[0] in (_RESTRICTED_ICC, _ANY_ICC):
            return data[3:]  # behind method, precedence and approximation
    return None


def _read_jp2_resolution(file: BinaryIO, header: Box) -> tuple[float, float] | None:
    """Return the resolution for display, or else of the scan, in dots per inch (ISO/IEC 15444-1, I.5.3.7)."""
    outer = next((box for box in iter_boxes(file, header.start, header.end) if box.kind == b"res "), None)
    found = {box.kind: read_content(file, box) for box in iter_boxes(file, outer.start, outer.end)} if outer else {}
    for kind in _RESOLUTIONS:
        if len(found.get(kind, b"")) == 10:
            down_top, down_bottom, top, bottom, down_power, power = struct.unpack(">4H2b", found[kind])
            if bottom and down_bottom:
                dots = [top / bottom * 10.0**power, down_top / down_bottom * 10.0**down_power]
                return normalize_dpi(*(round(per_meter * 0.0254, 4) for per_meter in dots))
    return None


def _make_resolution(dpi: tuple[float, float]) -> bytes:
    """Return a box with a resolution of the scan and for display: programs look at either."""
    numbers, powers = [], []
    for dots in (dpi[1] / 0.0254, dpi[0] / 0.0254):  # vertical comes first
        # A fraction of 16 bits, times a power of 10. No negative powers: Pillow takes them for large ones.
        power = max(0, math.ceil(math.log10(dots / 0xFFFF)))
        below = 1 if power else min(0xFFFF, int(0xFFFF / dots))
        numbers += [max(1, round(dots * below / 10**power)), below]
        powers.append(power)
    data = struct.pack(">4H2b", *numbers, *powers)
    return make_box(b"res ", b"".join(make_box(kind, data) for kind in _RESOLUTIONS))


def read_content(file: BinaryIO, box: Box) -> bytes:
    """Return the bytes of a box."""
    file.seek(box.start)
    return file.read(box.end - box.start)


def fill_missing(first: Metadata, second: Metadata) -> Metadata:
    """Return `first` with the blocks of `second` wherever `first` has none."""
    names = ("icc", "exif", "xmp", "iptc", "dpi")
    notes = tuple(dict.fromkeys(first.notes + second.notes))
    return replace(first, notes=notes, **{name: getattr(first, name) or getattr(second, name) for name in names})


def add_jp2_metadata(jp2: bytes, metadata: Metadata, alpha: int | None) -> bytes:
    """Return a JP2 file of OpenJPEG with metadata added.

    Args:
        jp2: The file.
        metadata: Blocks to add; ICC, EXIF, XMP, IPTC and resolution have room in a JP2 file.
        alpha: Index of the channel with transparency, None for an opaque picture.
    """
    header = next(box for box in iter_boxes(io.BytesIO(jp2)) if box.kind == b"jp2h")
    inner = b""
    for box in iter_boxes(io.BytesIO(jp2), header.start, header.end):
        if box.kind == b"colr" and metadata.icc:
            inner += make_box(b"colr", bytes((_RESTRICTED_ICC, 0, 0)) + metadata.icc)
        else:
            inner += make_box(box.kind, jp2[box.start : box.end])
    if alpha is not None:
        # Channel definitions: index, type (0 color, 1 opacity), association (0 the whole picture, 1... a color).
        definitions = [struct.pack(">HHH", color, 0, color + 1) for color in range(alpha)]
        definitions.append(struct.pack(">HHH", alpha, 1, 0))
        inner += make_box(b"cdef", struct.pack(">H", len(definitions)) + b"".join(definitions))
    if metadata.dpi:
        inner += _make_resolution(metadata.dpi)
    values = {name: getattr(metadata, name) for name in UUIDS}
    extra = b"".join(make_box(b"uuid", UUIDS[name] + value) for name, value in values.items() if value)
    # The codestream box may be of open length, which must stay last: metadata goes before it.
    return jp2[: header.start - 8] + make_box(b"jp2h", inner) + extra + jp2[header.end :]


def make_box(kind: bytes, data: bytes) -> bytes:
    """Return a box: length, kind and data."""
    return struct.pack(">I4s", len(data) + 8, kind) + data


def read_codestream(file: BinaryIO) -> Codestream:
    """Return the facts in the codestream header of a JPEG 2000 file, bare or in a JP2 container.

    Raises:
        ValueError: The file has no codestream.
    """
    file.seek(0)
    start = 0
    if file.read(4) != _CODESTREAM:
        start = next((box.start for box in iter_boxes(file) if box.kind == b"jp2c"), 0)
    file.seek(start)
    size = file.read(42)
    if not size.startswith(_CODESTREAM) or len(size) < 42:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", size, 8)
    (channels,) = struct.unpack_from(">H", size, 40)
    # Three bytes a channel: bits minus 1 with the sign in the highest bit, then two subsampling factors.
    depths = tuple(file.read(3 * channels)[::3])
    if not depths or len(depths) < channels:
        raise ValueError("the JPEG 2000 codestream ends in the header")
    return Codestream(right - left, bottom - top, channels, depths)


def read_color_numbers(file: BinaryIO) -> tuple[int, int] | None:
    """Return the numbers of color primaries and transfer (ITU-T H.273) of an AVIF or HEIF; None where none are stated.

    They stand in a "colr" box of type "nclx", and are those of the primary picture: others may have others.
    """
    own, every = read_properties(file)
    # Without a statement of its own, a picture of tiles has that of the tiles.
    for kind, data in (*own, *every):
        if kind == b"colr" and data.startswith(b"nclx") and len(data) >= 8:
            primaries, transfer = struct.unpack_from(">HH", data, 4)
            return primaries, transfer
    return None


def read_pixel_shape(file: BinaryIO) -> tuple[int, int] | None:
    """Return pixels across and down in the same length, by the "pasp" box of an AVIF or HEIF; None for square."""
    for kind, data in read_properties(file)[0]:
        if kind == b"pasp" and len(data) >= 8:
            wide, high = struct.unpack_from(">II", data)
            return pixel_density(high, wide)
    return None


def read_item_orientation(file: BinaryIO) -> int:
    """Return the EXIF orientation that the boxes "irot" and "imir" of the primary picture of an AVIF or HEIF state."""
    orientation = 1
    for kind, data in read_properties(file)[0]:  # in the order in which a decoder applies the boxes
        if kind == b"irot" and data:
            for _ in range(data[0] & 3):
                orientation = _AFTER_QUARTER_TURN[orientation]
        elif kind == b"imir" and data:
            orientation = _AFTER_MIRROR[data[0] & 1][orientation]
    return orientation


def names_of_properties(file: BinaryIO) -> set[bytes]:
    """Return the kinds of the properties of the primary picture of an AVIF or HEIF."""
    return {kind for kind, _ in read_properties(file)[0]}


def read_properties(
    file: BinaryIO, item: int | None = None
) -> tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]:
    """Return kind and start of the content of the properties of an item of an AVIF or HEIF, and of all properties.

    Without a number of an item, the primary picture is looked up.
    """
    inner = read_meta(file)
    boxes = {}
    if b"iprp" in inner:
        boxes = {box.kind: box for box in iter_boxes(file, inner[b"iprp"].start, inner[b"iprp"].end)}
    if b"ipco" not in boxes:
        return [], []
    listed = list(iter_boxes(file, boxes[b"ipco"].start, boxes[b"ipco"].end))
    every = [(box.kind, read_content(file, box)[:_PROPERTY]) for box in listed]
    owner = primary_item(file, inner) if item is None else item
    used = _properties_of(read_content(file, boxes[b"ipma"]), owner) if b"ipma" in boxes else []
    return [every[index - 1] for index in used if 0 < index <= len(every)], every


def _properties_of(ipma: bytes, item: int) -> list[int]:
    """Return the indices of the properties of an item, from the content of the box "ipma"."""
    number, wide = "H" if ipma[:1] == b"\0" else "I", bool(ipma[3:4] and ipma[3] & 1)
    head, at = struct.Struct(f">{number}B"), 8
    try:
        for _ in range(int.from_bytes(ipma[4:8], "big")):
            owner, count = head.unpack_from(ipma, at)
            at += head.size
            indices = struct.unpack_from(f">{count}{'H' if wide else 'B'}", ipma, at)
            at += count * (2 if wide else 1)
            if owner == item:
                return [index & (0x7FFF if wide else 0x7F) for index in indices]  # the highest bit is "essential"
    except struct.error:
        pass
    return []


def read_meta(file: BinaryIO) -> dict[bytes, Box]:
    """Return the boxes in the "meta" box of an AVIF or HEIF by kind; none without a "meta" box."""
    meta = next((box for box in iter_boxes(file) if box.kind == b"meta"), None)
    return {box.kind: box for box in iter_boxes(file, meta.start + 4, meta.end)} if meta else {}


def primary_item(file: BinaryIO, meta: Mapping[bytes, Box]) -> int:
    """Return the number of the primary picture of an AVIF or HEIF, 0 where none is stated."""
    return int.from_bytes(read_content(file, meta[b"pitm"])[4:], "big") if b"pitm" in meta else 0


def iter_items(file: BinaryIO, meta: Mapping[bytes, Box]) -> Iterator[tuple[int, bytes]]:
    """Yield number and kind of the items of an AVIF or HEIF (ISO/IEC 14496-12, "iinf")."""
    if b"iinf" not in meta:
        return
    info = meta[b"iinf"]
    file.seek(info.start)
    head = file.read(1)
    for box in iter_boxes(file, info.start + (6 if head == b"\0" else 8), info.end):
        if box.kind != b"infe":
            continue
        file.seek(box.start)
        entry = file.read(16)
        wide = entry[:1] == b"\3"
        if entry[:1] in (b"\2", b"\3"):
            number = int.from_bytes(entry[4:8] if wide else entry[4:6], "big")
            yield number, entry[10:14] if wide else entry[8:12]


def iter_item_parts(file: BinaryIO, meta: Mapping[bytes, Box]) -> Iterator[ItemPart]:
    """Yield the parts of the items of an AVIF or HEIF that lie in the file (ISO/IEC 14496-12, "iloc")."""
    if b"iloc" not in meta:
        return
    size = file.seek(0, io.SEEK_END)
    table = io.BytesIO(read_content(file, meta[b"iloc"]))
    version, sizes = int.from_bytes(table.read(4)[:1], "big"), int.from_bytes(table.read(2), "big")
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))

    def number(count: int) -> int:
        return int.from_bytes(table.read(count), "big")

    count, left = number(4 if version == 2 else 2), _MAX_PARTS
    for _ in range(min(count, _MAX_PARTS)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)  # the file, 0 for this one
        base = number(base_size)
        # Parts may be stated in no bytes at all, so a small table could name billions of them.
        parts = min(number(2), left)
        left -= parts
        for _ in range(parts):
            number(index_size if version else 0)
            start, length = base + number(offset_size), number(length_size)
            # Method 0 counts from the start of the file; other methods are for derived pictures.
            if method == 0:
                yield ItemPart(item, start, length or max(0, size - start))


def with_color_numbers(data: bytes, primaries: int, transfer: int) -> bytes:
    """Return an AVIF or HEIF of our own encoder with other numbers in every "nclx" box; nothing else moves."""
    new = struct.pack(">HH", primaries, transfer)
    return re.sub(rb"(?<=colrnclx)....", lambda _: new, data, flags=re.DOTALL)


def read_avif_depth(file: BinaryIO) -> int:
    """Return the bits per channel of an AVIF file, 8, 10 or 12: the most in any AV1 configuration, 8 without one."""
    file.seek(0)
    # The configurations ("av1C" boxes) lie in the metadata at the start of the file: no need to walk the nested boxes.
    head = file.read(2**16)
    deepest, at = 8, head.find(b"av1C")
    while 0 <= at < len(head) - 6:
        high, twelve = head[at + 6] & 0x40, head[at + 6] & 0x20
        deepest = max(deepest, (12 if twelve else 10) if high else 8)
        at = head.find(b"av1C", at + 4)
    return deepest
