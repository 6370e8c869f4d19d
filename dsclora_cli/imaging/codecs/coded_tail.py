"""WebP, AVIF, HEIF and JPEG 2000 whose coded pixels end in zeros: an interrupted download, or a bad disk.

The decoders of these formats take zeros for pixels and report nothing. An encoder ends with other bytes: coded pixels
of AV1 and HEVC end with a set bit, and only pictures of one color have some zeros at the end of a WebP.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from dsclora_cli.imaging.isobmff import Box, iter_boxes

Extent = tuple[int, int]
"""Offset and length of coded pixels in a file."""

_ZEROS = 16
"""Zeros at the end of coded pixels that no encoder writes."""

_WEBP_ZEROS = 64
"""The same for lossy WebP, of which each block of 16 x 16 pixels may add half a bit."""

_END_OF_CODESTREAM = b"\xff\xd9"
_START_OF_TILE_PART = b"\xff\x90"
_START_OF_CODESTREAM = b"\xff\x4f"
_MAX_EXTENTS = 2**16
_CODED_ITEMS = (b"av01", b"hvc1", b"hev1", b"vvc1", b"jpeg", b"avc1")


def present_share(file: BinaryIO, name: str, pixels: int) -> float | None:
    """Return the share of the coded pixels that is there, 0 to 1; None for a file that ends as encoders end a file.

    Args:
        file: A file of format `name`: WEBP, AVIF, HEIF or JPEG2000. Files of other formats are not looked at.
        name: Pillow name of the format.
        pixels: Of the picture.
    """
    whole = there = 0
    for start, length in _extents(file, name):
        file.seek(start)
        # A part of a few zeros alone holds next to no pixels.
        lost = missing_bytes(file.read(length), length, name, pixels)
        whole, there = whole + length, there + length - lost
    return there / whole if there < whole else None


def missing_bytes(data: bytes, length: int, name: str, pixels: int) -> int:
    """Return how many bytes are missing at the end of coded pixels: cut off, or zeros that no encoder writes.

    Args:
        data: Coded pixels, as far as they are there.
        length: Stated number of bytes.
        name: Pillow name of the format.
        pixels: Of the picture.
    """
    zeros = len(data) - len(data.rstrip(b"\0"))
    allowed = _WEBP_ZEROS + pixels // (16 * 256) if name == "WEBP" else _ZEROS
    # A codestream of JPEG 2000 ends with a marker: zeros behind the marker are room, and any others are missing pixels.
    if name == "JPEG2000":
        allowed = len(data) + 1 if data[: len(data) - zeros].endswith(_END_OF_CODESTREAM) else 1
    return length - len(data) + (zeros if zeros and zeros >= allowed else 0)


def coded_end(file: BinaryIO, name: str) -> int:
    """Return the offset behind the last coded pixels that the file names, 0 for a format that names none."""
    ends = [start + length for start, length in _extents(file, name)]
    if name == "WEBP":
        file.seek(4)
        ends.append(8 + int.from_bytes(file.read(4), "little"))
    return max(ends, default=0)


def _extents(file: BinaryIO, name: str) -> Iterator[Extent]:
    found = {"WEBP": _webp_extents, "AVIF": _item_extents, "HEIF": _item_extents, "JPEG2000": _codestream_extents}
    if name in found:
        yield from found[name](file)


def _webp_extents(file: BinaryIO) -> Iterator[Extent]:
    for kind, start, length in webp_chunks(file):
        if kind in (b"VP8 ", b"VP8L", b"ALPH"):
            yield start, length


def webp_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, offset and stated length of the chunks of a WebP; the chunks of a frame follow the frame."""
    at = 12
    for _ in range(_MAX_EXTENTS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        kind, length = head[:4], struct.unpack("<I", head[4:])[0]
        yield kind, at + 8, length
        # A frame of an animation: 16 bytes, then chunks.
        at += 24 if kind == b"ANMF" else 8 + length + length % 2


def _codestream_extents(file: BinaryIO) -> Iterator[Extent]:
    """Yield the codestream of a JPEG 2000, with the length that the tile-parts state."""
    size = file.seek(0, io.SEEK_END)
    boxes = [(box.start, box.end - box.start) for box in iter_boxes(file) if box.kind == b"jp2c"]
    for start, length in boxes or [(0, size)]:
        stated = _codestream_length(file, start)
        # A box ends with the file at the latest, so of a cut file the tile-parts tell.
        yield start, max(length, stated) if start + length == size else length


def _codestream_length(file: BinaryIO, start: int) -> int:
    """Return the bytes from the start of a codestream to the end marker (ISO/IEC 15444-1, A.4.2); 0 where unknown."""
    file.seek(start)
    at = start + 2 if file.read(2) == _START_OF_CODESTREAM else -1
    for _ in range(_MAX_EXTENTS if at > 0 else 0):
        file.seek(at)
        head = file.read(10)
        if head[:2] == _START_OF_TILE_PART and len(head) == 10:
            # A tile-part of length 0 reaches to the end of the codestream.
            length = int.from_bytes(head[6:10], "big")
            if length < 12:
                return 0
            at += length
        elif head[:1] == b"\xff" and head[:2] != _END_OF_CODESTREAM and len(head) >= 4:
            at += 2 + int.from_bytes(head[2:4], "big")
        else:
            return at + 2 - start
    return 0


def _item_extents(file: BinaryIO) -> Iterator[Extent]:
    """Yield the places of the pictures in an AVIF or HEIF (ISO/IEC 14496-12, "iloc" and "iinf")."""
    size = file.seek(0, io.SEEK_END)
    meta = next((box for box in iter_boxes(file) if box.kind == b"meta"), None)
    if meta is None:
        return
    boxes = {box.kind: box for box in iter_boxes(file, meta.start + 4, meta.end)}
    if b"iloc" not in boxes or b"iinf" not in boxes:
        return
    file.seek(boxes[b"iloc"].start)
    table = io.BytesIO(file.read(boxes[b"iloc"].end - boxes[b"iloc"].start))
    coded = set(_coded_items(file, boxes[b"iinf"]))
    version, sizes = table.read(4)[0], int.from_bytes(table.read(2), "big")
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))

    def number(count: int) -> int:
        return int.from_bytes(table.read(count), "big")

    count = number(4 if version == 2 else 2)
    for _ in range(min(count, _MAX_EXTENTS)):
        item = number(4 if version == 2 else 2)
        method = number(2) & 15 if version else 0
        number(2)  # the file, 0 for this one
        base = number(base_size)
        for _ in range(number(2)):
            number(index_size if version else 0)
            offset, length = number(offset_size), number(length_size)
            # Method 0 counts from the start of the file; other methods are for derived pictures.
            if item in coded and method == 0:
                yield base + offset, length or max(0, size - base - offset)


def _coded_items(file: BinaryIO, info: Box) -> Iterator[int]:
    """Yield the numbers of the items with coded pixels."""
    file.seek(info.start)
    head = file.read(1)
    for box in iter_boxes(file, info.start + (6 if head == b"\0" else 8), info.end):
        if box.kind != b"infe":
            continue
        file.seek(box.start)
        entry = file.read(16)
        wide = entry[:1] == b"\3"
        kind = entry[10:14] if wide else entry[8:12]
        if entry[:1] in (b"\2", b"\3") and kind in _CODED_ITEMS:
            yield int.from_bytes(entry[4:8] if wide else entry[4:6], "big")
