"""GIF: all comments and extensions (Pillow reads some), and the shape of the pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from dsclora_cli.imaging.metadata import pixel_density

_EXTENSION, _PICTURE, _TRAILER = 0x21, 0x2C, 0x3B
_CONTROL, _COMMENT, _PLAIN_TEXT, _APPLICATION = 0xF9, 0xFE, 0x01, 0xFF
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_XMP, _ICC = b"XMP DataXMP", b"ICCRGBG1012"
_HEAD = 13  # bytes before the first color table


@dataclass
class GifParts:
    """Contents of a GIF next to the pictures."""

    comments: list[bytes] = field(default_factory=list)
    """All comments, in the order of the file."""

    xmp: bytes | None = None

    icc: bytes | None = None

    unknown: list[str] = field(default_factory=list)
    """Names of unknown extensions."""

    texts: int = 0
    """Number of texts to be drawn over the picture; no viewer of today draws them."""

    density: tuple[int, int] | None = None
    """Pixels across and down in the same length; None for square pixels."""

    end: int | None = None
    """Offset behind the trailer; None for a file without."""


def read_gif_parts(file: BinaryIO) -> GifParts:
    """Walk over the blocks of a GIF, up to the trailer or to the first damage."""
    file.seek(0)
    data = file.read()
    parts = GifParts()
    if len(data) < _HEAD:
        return parts
    if data[12] not in (0, 49):  # 49 is 1:1; the value is (width to height of a pixel) * 64 - 15
        parts.density = pixel_density(64, data[12] + 15)
    at = _HEAD + _table_size(data[10])
    while at < len(data):
        kind = data[at]
        if kind == _TRAILER:
            parts.end = at + 1
            break
        if kind == _EXTENSION and at + 2 < len(data):
            label, start = data[at + 1], at + 2
            at = _skip_blocks(data, start)
            _read_extension(parts, label, data[start:at])
        elif kind == _PICTURE and at + 10 < len(data):
            at = _skip_blocks(data, at + 11 + _table_size(data[at + 9]))
        else:
            break
    return parts


def _read_extension(parts: GifParts, label: int, blocks: bytes) -> None:
    """Note an extension; `blocks` have a length before every block."""
    name = blocks[1:12]
    if label == _COMMENT:
        parts.comments.append(_join(blocks))
    elif label == _PLAIN_TEXT:
        parts.texts += 1
    elif label == _APPLICATION and name == _XMP:
        # The packet is not cut into blocks; 258 bytes behind let a reader of blocks find the end.
        parts.xmp = parts.xmp or blocks[12:].rpartition(b">")[0] + b">"
    elif label == _APPLICATION and name == _ICC:
        parts.icc = parts.icc or _join(blocks[12:])
    elif label == _APPLICATION and name not in _LOOPS:
        parts.unknown.append(name.decode("latin-1").strip("\0 "))
    elif label not in (_APPLICATION, _CONTROL):
        parts.unknown.append(f"0x{label:02x}")


def _table_size(flags: int) -> int:
    """Return the bytes of a color table, 0 without one."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_blocks(data: bytes, at: int) -> int:
    """Return the offset behind a row of blocks, the last of them empty."""
    while at < len(data) and data[at]:
        at += data[at] + 1
    return min(at + 1, len(data))


def _join(blocks: bytes) -> bytes:
    return b"".join(_contents(blocks))


def _contents(blocks: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(blocks) and blocks[at]:
        yield blocks[at + 1 : at + 1 + blocks[at]]
        at += blocks[at] + 1
