"""TIFF directories (IFD), of which EXIF is made too: read, edited and written without knowing what each tag means.

Values stay raw bytes in the file's own byte order, so maker notes, odd types and unknown tags survive unchanged.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
SHORT, LONG, LONG8 = 3, 4, 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MAX_ENTRIES = 4096
_MAX_VALUE = 2**26


@dataclass(frozen=True)
class Layout:
    """Byte order ("<" or ">") of a TIFF stream, and whether it is BigTIFF with 64-bit offsets."""

    order: str = "<"
    big: bool = False

    @property
    def word(self) -> str:
        """`struct` code of an offset."""
        return self.order + ("Q" if self.big else "I")

    @property
    def count(self) -> str:
        """`struct` code of the number of entries."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        """`struct` code of tag, type and count of an entry; its value or offset follows, one `word` wide."""
        return self.order + ("HHQ" if self.big else "HHI")

    def sizes(self) -> tuple[int, int, int]:
        """Bytes of the entry count, of an entry without its value, and of a word."""
        return struct.calcsize(self.count), struct.calcsize(self.entry), struct.calcsize(self.word)


@dataclass(frozen=True)
class Entry:
    """One tag: its TIFF type, raw value, where its record lies in the stream, and its sub-directory if it has one."""

    type: int
    data: bytes
    at: int = 0
    sub: Mapping[int, Entry] | None = None


@dataclass(frozen=True)
class Directory:
    """The entries of an IFD by tag, the offset of the following IFD (0: none), and where that offset is written."""

    entries: Mapping[int, Entry]
    next: int
    next_at: int


def layout_of(head: bytes) -> tuple[Layout, int]:
    """Layout and first IFD's offset of a TIFF stream, from its first 16 bytes. Raises ValueError if it is none."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        raise ValueError("no TIFF header")
    layout = Layout(order, struct.unpack(order + "H", head[2:4])[0] == 43)
    if layout.big and len(head) < 16:
        raise ValueError("the TIFF header is truncated")
    (first,) = struct.unpack_from(layout.word, head, 8 if layout.big else 4)
    return layout, first


def read(stream: BinaryIO, layout: Layout, offset: int, depth: int = 0) -> Directory:
    """The IFD at `offset` with its EXIF, GPS and interoperability IFDs. Entries that make no sense are left out.

    Raises ValueError for a directory that does not fit into the stream.
    """
    count_size, entry_size, word_size = layout.sizes()
    (count,) = struct.unpack(layout.count, _take(stream, offset, count_size))
    if count > _MAX_ENTRIES:
        raise ValueError(f"a directory of {count} entries")
    table = _take(stream, offset + count_size, count * (entry_size + word_size))
    entries = {}
    for index in range(count):
        start = index * (entry_size + word_size)
        tag, type_, values = struct.unpack_from(layout.entry, table, start)
        data = _value(stream, layout, table[start + entry_size :][:word_size], _SIZES.get(type_, 0) * values)
        if data is not None:
            sub = _sub(stream, layout, tag, data, depth)
            entries[tag] = Entry(type_, data, offset + count_size + start, sub)
    next_at = offset + count_size + len(table)
    stream.seek(next_at)
    link = stream.read(word_size)
    # A last directory without its closing zero is common in EXIF and harmless.
    following = struct.unpack(layout.word, link)[0] if len(link) == word_size else 0
    return Directory(entries, following, next_at)


def read_exif(exif: bytes) -> tuple[Layout, Directory]:
    """Layout and first directory of an EXIF block that starts at its TIFF header. Raises ValueError if broken."""
    layout, offset = layout_of(exif[:16])
    return layout, read(io.BytesIO(exif), layout, offset)


def pack(entries: Mapping[int, Entry], layout: Layout, offset: int, following: int = 0) -> bytes:
    """An IFD with its values and sub-directories, to be placed at `offset` (even); `following` links the next IFD."""
    count_size, entry_size, word_size = layout.sizes()
    heap = offset + count_size + len(entries) * (entry_size + word_size) + word_size
    table, values = struct.pack(layout.count, len(entries)), b""
    for tag, entry in sorted(entries.items()):
        type_, data = entry.type, entry.data
        if entry.sub is not None:
            block = pack(entry.sub, layout, heap + len(values))
            type_, data = (LONG8 if layout.big else LONG), struct.pack(layout.word, heap + len(values))
            values += block
        elif len(data) > word_size:
            values, data = values + data + b"\0" * (len(data) % 2), struct.pack(layout.word, heap + len(values))
        amount = len(entry.data if entry.sub is None else data) // _SIZES[type_]
        table += struct.pack(layout.entry, tag, type_, amount) + data.ljust(word_size, b"\0")
    return table + struct.pack(layout.word, following) + values + b"\0" * (len(values) % 2)


def pack_exif(entries: Mapping[int, Entry], order: str) -> bytes:
    """An EXIF block of these entries, TIFF header included; `order` must be the one their values are in."""
    layout = Layout(order)
    return (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8) + pack(entries, layout, 8)


def number(entry: Entry | None, order: str) -> int | None:
    """The first value of a SHORT or LONG entry, else None."""
    code = {SHORT: "H", LONG: "I"}.get(entry.type) if entry else None
    if entry is None or code is None or len(entry.data) < struct.calcsize(code):
        return None
    return int(struct.unpack_from(order + code, entry.data)[0])


def _value(stream: BinaryIO, layout: Layout, word: bytes, size: int) -> bytes | None:
    """The raw value of an entry, which lies in its last word or where that points; None if there is none."""
    if 0 < size <= len(word):
        return word[:size]
    if not 0 < size <= _MAX_VALUE:
        return None
    try:
        return _take(stream, struct.unpack(layout.word, word)[0], size)
    except ValueError:
        return None


def _sub(stream: BinaryIO, layout: Layout, tag: int, data: bytes, depth: int) -> Mapping[int, Entry] | None:
    """The entries of the directory a tag points to; the depth stops files whose directories point at each other."""
    if tag not in (EXIF_IFD, GPS_IFD, INTEROP_IFD) or depth > 2 or len(data) not in (4, 8):
        return None
    (offset,) = struct.unpack(layout.order + ("Q" if len(data) == 8 else "I"), data)
    try:
        return read(stream, layout, offset, depth + 1).entries
    except ValueError:
        return {}


def _take(stream: BinaryIO, offset: int, size: int) -> bytes:
    # Offsets of BigTIFF have 64 bits, one more than a place in a file may have.
    if offset >= 2**63:
        raise ValueError("a directory points beyond any file")
    stream.seek(offset)
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("a directory points beyond the end of the file")
    return data
