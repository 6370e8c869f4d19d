"""TIFF directories (IFD), for TIFF files and for EXIF blocks, which are TIFF directories as well.

Values stay raw bytes in the byte order of the file, so maker notes, odd types and unknown tags survive unchanged.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

ByteOrder = Literal["<", ">"]
"""Byte order in the notation of `struct` and NumPy."""

EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16

# Tags that TIFF files and EXIF blocks have in common, or that hold a block of metadata.
WIDTH, HEIGHT, DESCRIPTION, ORIENTATION = 256, 257, 270, 274
X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
XMP, IPTC, RESOURCES, ICC = 700, 33723, 34377, 34675

NO_UNIT, INCH, CENTIMETER = 1, 2, 3
"""Values of RESOLUTION_UNIT."""

IPTC_RESOURCE = 0x0404
"""Number of the Photoshop resource, among those in RESOURCES or in a segment of a JPEG, that holds IPTC."""

DETAILS = (269, DESCRIPTION, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, EXIF_IFD, GPS_IFD)
"""Tags that describe a picture as EXIF does (title, camera, software, date, artist, rating, copyright, ...)."""

WINDOWS_DETAILS = tuple(range(40091, 40096))
"""Tags of Windows Explorer: title, comment, author, keywords, subject."""

# Bytes of a value, by TIFF type (TIFF 6.0, section 2; 16 to 18 are BigTIFF).
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# Numbers of each type in the notation of `struct`; two for a fraction.
_CODES = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 16: "Q", 17: "q"}
_IFD = 13
_MAX_DIGITS = 20
_BIG_TYPES = (16, 17, 18)
# Limits for damaged files: a wrong count must not ask for gigabytes, and directories may point at each other.
_MAX_ENTRIES = 4096
_MAX_VALUES = 2**26  # bytes of all values of a directory and of the directories below
_MAX_DEPTH = 2
_MAX_PAGES = 2**16


@dataclass(frozen=True)
class Layout:
    """Byte order and word size of a TIFF stream."""

    order: ByteOrder = "<"
    """Byte order in the notation of `struct`: "<" (Intel, "II") or ">" (Motorola, "MM")."""

    big: bool = False
    """True for BigTIFF, with 64-bit offsets."""

    @property
    def word(self) -> str:
        """Return the `struct` format of an offset."""
        return self.order + ("Q" if self.big else "I")

    @property
    def count(self) -> str:
        """Return the `struct` format of the number of entries in a directory."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        """Return the `struct` format of tag, type and count of an entry; a `word` with value or offset follows."""
        return self.order + ("HHQ" if self.big else "HHI")

    def sizes(self) -> tuple[int, int, int]:
        """Return the bytes of the number of entries, of an entry without the value, and of a word."""
        return struct.calcsize(self.count), struct.calcsize(self.entry), struct.calcsize(self.word)


@dataclass(frozen=True)
class Entry:
    """An entry of a directory: a tag with a value."""

    type: int
    """TIFF type of the value."""

    data: bytes
    """Raw value in the byte order of the stream."""

    at: int = 0
    """Offset of the entry in the stream, for edits in place."""

    sub: Mapping[int, Entry] | None = None
    """Entries of the directory at the offset in `data`, for EXIF, GPS and interoperability; None for other tags."""


@dataclass(frozen=True)
class Directory:
    """A directory (IFD) as read from a stream."""

    entries: Mapping[int, Entry]
    """Entries by tag."""

    next: int
    """Offset of the following directory, 0 for none."""

    next_at: int
    """Offset at which `next` is stored, for edits in place."""

    count: int = 0
    """Number of entries in the stream, entries that are left out included."""

    repeated: tuple[tuple[int, Entry], ...] = ()
    """Tag and entry of entries whose tag was there before, those of the directories below included."""


def parse_exif(exif: bytes) -> tuple[Layout, Directory]:
    """Return layout and first directory of an EXIF block that starts with the TIFF header.

    Raises:
        ValueError: The block is damaged.
    """
    layout, offset = parse_header(exif[:16])
    return layout, read_directory(io.BytesIO(exif), layout, offset)


def parse_header(head: bytes) -> tuple[Layout, int]:
    """Return layout and offset of the first directory from the first 16 bytes of a TIFF stream.

    Raises:
        ValueError: The bytes are no TIFF header.
    """
    orders: dict[bytes, ByteOrder] = {b"II": "<", b"MM": ">"}
    order = orders.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("no TIFF header")
    layout = Layout(order, struct.unpack(order + "H", head[2:4])[0] == 43)  # 42 is TIFF, 43 BigTIFF
    if layout.big and len(head) < 16:
        raise ValueError("the TIFF header is truncated")
    (first,) = struct.unpack_from(layout.word, head, 8 if layout.big else 4)
    return layout, first


@dataclass
class _Walk:
    """Where a walk over directories has been, and how much may still be read."""

    visited: set[int] = field(default_factory=set)
    """Offsets of directories."""

    budget: int = _MAX_VALUES
    """Bytes of values."""

    repeated: list[tuple[int, Entry]] = field(default_factory=list)
    """Entries whose tag was there before in their directory."""

    entries: int = 4 * _MAX_ENTRIES
    """Entries; tables may lie over each other, so the size of a file is no limit."""


def iter_pages(stream: BinaryIO, layout: Layout, first: int) -> Iterator[int]:
    """Yield the offsets of the directories that follow each other from `first` on: the pages of a TIFF.

    Raises:
        ValueError: A directory follows itself, lies outside the stream, or is one of too many.
    """
    count_size, entry_size, word_size = layout.sizes()
    visited: set[int] = set()
    offset = first
    while offset:
        if offset in visited:
            raise ValueError("a page of the TIFF follows itself")
        if len(visited) == _MAX_PAGES:
            raise ValueError(f"the TIFF has more than {_MAX_PAGES} pages")
        visited.add(offset)
        (count,) = struct.unpack(layout.count, _read_exactly(stream, offset, count_size))
        _read_exactly(stream, offset + count_size, count * (entry_size + word_size))
        link = stream.read(word_size)
        yield offset
        (offset,) = struct.unpack(layout.word, link) if len(link) == word_size else (0,)


def read_directory(stream: BinaryIO, layout: Layout, offset: int) -> Directory:
    """Return the directory at `offset` with the EXIF, GPS and interoperability directories below.

    Entries of unknown type and entries with a value outside the stream are left out.

    Raises:
        ValueError: The directory does not fit into the stream.
    """
    return _read_directory(stream, layout, offset, _Walk(), 0)


def _read_directory(stream: BinaryIO, layout: Layout, offset: int, walk: _Walk, depth: int) -> Directory:
    """Do the work of `read_directory`; `depth` counts the directories above this one."""
    walk.visited.add(offset)
    count_size, entry_size, word_size = layout.sizes()
    (count,) = struct.unpack(layout.count, _read_exactly(stream, offset, count_size))
    count, table = _read_table(stream, count, entry_size + word_size)
    walk.entries -= count
    if count > _MAX_ENTRIES or walk.entries < 0:
        raise ValueError(f"a directory of {count} entries")
    entries: dict[int, Entry] = {}
    for index in range(count):
        start = index * (entry_size + word_size)
        tag, type_, values = struct.unpack_from(layout.entry, table, start)
        word, size = table[start + entry_size :][:word_size], _SIZES.get(type_, 0) * values
        data = _read_value(stream, layout, word, size) if size <= walk.budget else None
        if data is not None:
            walk.budget -= len(data)
            sub = _read_subdirectory(stream, layout, tag, data, walk, depth)
            entry = Entry(type_, data, offset + count_size + start, sub)
            # The first of several entries counts, as in other programs.
            if entries.setdefault(tag, entry) is not entry:
                walk.repeated.append((tag, entry))
    next_at = offset + count_size + len(table)
    stream.seek(next_at)
    link = stream.read(word_size)
    # A last directory without its closing zero is common in EXIF and harmless.
    following = struct.unpack(layout.word, link)[0] if len(link) == word_size else 0
    return Directory(entries, following, next_at, count, tuple(walk.repeated) if depth == 0 else ())


def _read_table(stream: BinaryIO, count: int, size: int) -> tuple[int, bytes]:
    """Return number and bytes of the entries of a directory, `size` bytes each; the stream is at the first entry.

    A directory may claim more entries than there are, and other programs read what is there: up to an unknown type.
    """
    count = min(count, _MAX_ENTRIES + 1)
    table = stream.read(count * size)
    if len(table) == count * size:
        return count, table
    whole = [table[at : at + size] for at in range(0, len(table) - size + 1, size)]
    types = [{entry[2] | entry[3], entry[2], entry[3]} - {0} for entry in whole]
    known = next((at for at, kinds in enumerate(types) if len(kinds) != 1 or not kinds <= set(_SIZES)), len(whole))
    if not known:
        raise ValueError("a directory points beyond the end of the file")
    return known, b"".join(whole[:known])


def _read_value(stream: BinaryIO, layout: Layout, word: bytes, size: int) -> bytes | None:
    """Return the raw value of an entry, or None for a value of unknown size or outside the stream.

    A value of up to a `word` lies in the entry; for a longer value, `word` is the offset.
    """
    if 0 < size <= len(word):
        return word[:size]
    if size <= 0:
        return None
    try:
        return _read_exactly(stream, struct.unpack(layout.word, word)[0], size)
    except ValueError:
        return None


def _read_subdirectory(
    stream: BinaryIO, layout: Layout, tag: int, data: bytes, walk: _Walk, depth: int
) -> Mapping[int, Entry] | None:
    """Return the entries of the directory at the offset in `data`; None for a tag without a directory."""
    # A table may name the same tag thousands of times: only a directory that is new is read.
    if tag not in (EXIF_IFD, GPS_IFD, INTEROP_IFD) or depth > _MAX_DEPTH or len(data) not in (4, 8):
        return None
    (offset,) = struct.unpack(layout.order + ("Q" if len(data) == 8 else "I"), data)
    if offset in walk.visited:
        return {}
    try:
        return _read_directory(stream, layout, offset, walk, depth + 1).entries
    except ValueError:
        return {}


def _read_exactly(stream: BinaryIO, offset: int, size: int) -> bytes:
    # Offsets and counts of BigTIFF have 64 bits, one more than a position in a file may have.
    if max(offset, size) >= 2**63:
        raise ValueError("a directory points beyond any file")
    stream.seek(offset)
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("a directory points beyond the end of the file")
    return data


def read_integer(entry: Entry | None, order: str) -> int | None:
    """Return the first value of an entry as `read_integers` reads the value; None without a number."""
    return next(iter(read_integers(entry, order)), None)


def read_integers(entry: Entry | None, order: str) -> list[int]:
    """Return the values of an entry as integers; empty for an entry without numbers, and for no entry.

    Every type that can hold a whole number is read: some programs write an orientation as BYTE, fraction or text.
    """
    if entry is None:
        return []
    if entry.type == ASCII:
        text = entry.data.strip(b"\0 ")
        return [int(text)] if text.isdigit() and len(text) < _MAX_DIGITS else []
    code = _CODES.get(LONG if entry.type == _IFD else entry.type, "")
    if entry.type == UNDEFINED:
        code = {1: "B", 2: "H", 4: "I"}.get(len(entry.data), "")
    if not code:
        return []
    count = len(entry.data) // struct.calcsize(order + code)
    values = struct.unpack_from(order + code * count, entry.data)
    if len(code) == 2:  # a fraction
        values = tuple(top / bottom if bottom else 0 for top, bottom in zip(values[::2], values[1::2], strict=True))
    return [int(value) for value in values if math.isfinite(value)]


def read_fractions(entry: Entry | None, order: str) -> list[float]:
    """Return the values of an entry of unsigned fractions; empty for other entries. A fraction over 0 is 0."""
    if entry is None or entry.type != RATIONAL:
        return []
    values = struct.unpack(f"{order}{len(entry.data) // 8 * 2}I", entry.data)
    return [top / bottom if bottom else 0.0 for top, bottom in zip(values[::2], values[1::2], strict=True)]


def pack_exif(entries: Mapping[int, Entry], order: ByteOrder) -> bytes:
    """Return an EXIF block with TIFF header; `order` is the byte order of the values in `entries`."""
    layout = Layout(order)
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8) + pack_directory(entries, layout, 8)


def pack_directory(entries: Mapping[int, Entry], layout: Layout, offset: int, following: int = 0) -> bytes:
    """Return a directory with values and sub-directories as bytes.

    Args:
        entries: Entries by tag, with values in the byte order of `layout`.
        layout: Byte order and word size of the stream.
        offset: Where the bytes will be placed in the stream; an even number.
        following: Offset of the next directory in the stream, 0 for none.
    """
    count_size, entry_size, word_size = layout.sizes()
    entries = {tag: entry for tag, entry in entries.items() if layout.big or entry.type not in _BIG_TYPES}
    # Long values and sub-directories are placed behind the table.
    heap = offset + count_size + len(entries) * (entry_size + word_size) + word_size
    table, values = struct.pack(layout.count, len(entries)), b""
    for tag, entry in sorted(entries.items()):  # TIFF requires ascending tags
        type_, data = entry.type, entry.data
        if entry.sub is not None:
            block = pack_directory(entry.sub, layout, heap + len(values))
            type_, data = (LONG8 if layout.big else LONG), struct.pack(layout.word, heap + len(values))
            values += block
        elif len(data) > word_size:
            values, data = values + data + b"\0" * (len(data) % 2), struct.pack(layout.word, heap + len(values))
        amount = len(entry.data if entry.sub is None else data) // _SIZES[type_]
        table += struct.pack(layout.entry, tag, type_, amount) + data.ljust(word_size, b"\0")
    return table + struct.pack(layout.word, following) + values + b"\0" * (len(values) % 2)
