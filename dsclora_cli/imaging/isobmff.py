"""Boxes of JPEG 2000, JPEG XL and HEIF/AVIF files: metadata found in them and added to them, and the bit depth."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.types import Metadata

_UUIDS = {
    "xmp": bytes.fromhex("be7acfcb97a942e89c71999491e3afac"),
    "exif": b"JpgTiffExif->JP2",
    "iptc": bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"),
}
_CODESTREAM = b"\xff\x4f\xff\x51"
_RESTRICTED_ICC = 2


@dataclass(frozen=True)
class Box:
    """Kind of a box, and where its content starts and ends in the file."""

    kind: bytes
    start: int
    end: int


@dataclass(frozen=True)
class Codestream:
    """Size in pixels, channels, bits per channel (the largest), and whether any channel is signed."""

    width: int
    height: int
    channels: int
    bits: int
    signed: bool


def boxes(file: BinaryIO, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two places of a file, which need not be one; broken ones end the walk."""
    end = file.seek(0, io.SEEK_END) if end is None else end
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        content = start + 8
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
            content += 8
        stop = min(start + size, end) if size else end
        if stop < content:
            return
        yield Box(kind, content, stop)
        start = stop


def read_metadata(file: BinaryIO) -> Metadata:
    """ICC profile, EXIF, XMP and IPTC of a JPEG 2000 or JPEG XL file; nothing of a bare codestream."""
    found: dict[str, bytes] = {}
    for box in boxes(file):
        if box.kind == b"jp2h":
            profile = _jp2_profile(file, box)
            if profile:
                found["icc"] = profile
        elif box.kind == b"uuid":
            data = _content(file, box)
            name = next((name for name, uuid in _UUIDS.items() if data.startswith(uuid)), None)
            if name:
                found[name] = data[16:]
        elif box.kind in (b"xml ", b"Exif"):
            found["xmp" if box.kind == b"xml " else "exif"] = _content(file, box)
    iptc = found.get("iptc")
    return Metadata(
        icc=found.get("icc"),
        exif=blocks.plain_exif(found.get("exif")),
        xmp=blocks.plain_xmp(found.get("xmp")),
        iptc=iptc and blocks.iptc_of_resources(iptc),
    )


def with_jp2_metadata(jp2: bytes, metadata: Metadata, alpha: int | None) -> bytes:
    """A JP2 file as OpenJPEG writes it, with metadata and, where channel `alpha` is transparency, its definition."""
    header = next(box for box in boxes(io.BytesIO(jp2)) if box.kind == b"jp2h")
    inner = b"".join(
        _icc_box(metadata.icc) if box.kind == b"colr" and metadata.icc else _box(box.kind, jp2[box.start : box.end])
        for box in boxes(io.BytesIO(jp2), header.start, header.end)
    )
    if alpha is not None:
        definitions = [struct.pack(">HHH", colour, 0, colour + 1) for colour in range(alpha)]
        definitions.append(struct.pack(">HHH", alpha, 1, 0))
        inner += _box(b"cdef", struct.pack(">H", len(definitions)) + b"".join(definitions))
    values = {name: getattr(metadata, name) for name in _UUIDS}
    extra = b"".join(_box(b"uuid", _UUIDS[name] + value) for name, value in values.items() if value)
    # The codestream box may be of open length, which must stay last: metadata goes before it.
    return jp2[: header.start - 8] + _box(b"jp2h", inner) + extra + jp2[header.end :]


def jpeg2000_codestream(file: BinaryIO) -> Codestream:
    """What the codestream of a JPEG 2000 file says of its pixels. Raises ValueError where there is none."""
    file.seek(0)
    start = 0
    if file.read(4) != _CODESTREAM:
        start = next((box.start for box in boxes(file) if box.kind == b"jp2c"), 0)
    file.seek(start)
    size = file.read(42)
    if not size.startswith(_CODESTREAM) or len(size) < 42:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top = struct.unpack_from(">4I", size, 8)
    (channels,) = struct.unpack_from(">H", size, 40)
    depths = file.read(3 * channels)[::3]
    bits = max((depth & 0x7F) + 1 for depth in depths)
    return Codestream(right - left, bottom - top, channels, bits, any(depth & 0x80 for depth in depths))


def avif_depth(file: BinaryIO) -> int:
    """Bits per channel of an AVIF file: the largest that any of its AV1 configurations states, else 8."""
    file.seek(0)
    head = file.read(2**16)
    deepest, at = 8, head.find(b"av1C")
    while 0 <= at < len(head) - 6:
        high, twelve = head[at + 6] & 0x40, head[at + 6] & 0x20
        deepest = max(deepest, (12 if twelve else 10) if high else 8)
        at = head.find(b"av1C", at + 4)
    return deepest


def merged(first: Metadata, second: Metadata) -> Metadata:
    """`first`, with what it lacks taken from `second`."""
    names = ("icc", "exif", "xmp", "iptc", "dpi")
    return replace(first, **{name: getattr(first, name) or getattr(second, name) for name in names})


def _jp2_profile(file: BinaryIO, header: Box) -> bytes | None:
    for box in boxes(file, header.start, header.end):
        data = _content(file, box) if box.kind == b"colr" else b""
        if data[:1] in (b"\2", b"\3"):
            return data[3:]
    return None


def _icc_box(icc: bytes) -> bytes:
    return _box(b"colr", bytes((_RESTRICTED_ICC, 0, 0)) + icc)


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, kind) + data


def _content(file: BinaryIO, box: Box) -> bytes:
    file.seek(box.start)
    return file.read(box.end - box.start)
