"""WebP, AVIF, HEIF and JPEG 2000 whose coded pixels end in zeros: an interrupted download, or a bad disk.

The decoders of these formats take zeros for pixels and report nothing. An encoder ends with other bytes: coded pixels
of AV1 and HEVC end with a set bit, and only pictures of one color have some zeros at the end of a WebP.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from dsclora_cli.imaging.isobmff import iter_boxes, iter_item_parts, iter_items, read_meta

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
    left = size = file.seek(0, io.SEEK_END)
    # Equal tiles may share their bytes. Other parts do not overlap, but those of a hostile table may, many times over.
    for start, length in dict.fromkeys(_extents(file, name)):
        here = min(length, max(0, size - start))
        left -= here
        if left < 0:
            break
        # A file system may refuse an offset far behind the end.
        file.seek(min(start, size))
        # A part of a few zeros alone holds next to no pixels.
        lost = missing_bytes(file.read(here), length, name, pixels)
        whole, there = whole + length, there + length - lost
    return there / whole if there < whole else None


def describe_share(share: float) -> str:
    """Return words for the share of a picture that is there, 0 to 1: only a whole picture has 100%."""
    return "100%" if share >= 1 else f"about {min(share, 0.99):.0%}"


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
    """Yield the places of the pictures in an AVIF or HEIF."""
    meta = read_meta(file)
    coded = {number for number, kind in iter_items(file, meta) if kind in _CODED_ITEMS}
    for part in iter_item_parts(file, meta):
        if part.item in coded:
            yield part.start, part.length
