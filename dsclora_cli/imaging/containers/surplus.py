"""Unread parts of a file: named in sentences for the user, so nothing is dropped without a message.

Parts with a sentence of their own elsewhere (second pictures of a JPEG), and parts without a meaning for the picture
(docs/images.md lists them), have no sentence here.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import BinaryIO

from dsclora_cli.errors import list_some
from dsclora_cli.imaging import geotiff, tiff_ifd
from dsclora_cli.imaging.containers.gif import read_gif_parts
from dsclora_cli.imaging.isobmff import UUIDS, iter_boxes, names_of_properties, read_content, read_meta
from dsclora_cli.imaging.metadata import path_notes
from dsclora_cli.imaging.types import LossNote

_CREDENTIALS = "content credentials (C2PA), which are signed for the old picture, were left out"
_VIDEO = re.compile(rb"MotionPhoto_Data|ftyp(?:mp4|isom|iso[2-9]|qt  |avc1|M4V|3gp)")
_PADDING = b"\0\r\n\t \xff"
_MOST_PARTS = 2**16
_MOST_BYTES, _LOOKED_AT = 2**28, 2**20  # of a JPEG, and behind a picture
_FURTHER = re.compile(rb"\0*\xff\xd8")
_MOST_NAMES = 8
_NAME = re.compile(rb"[\w .-]{4}")

_EOI = 0xD9
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # no restart marker
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
# Beginnings of segments that are read, have a sentence elsewhere, or say nothing about the picture.
_KNOWN_SEGMENTS = MappingProxyType(
    {
        0xE0: (b"JFIF\0", b"JFXX\0"),
        0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"),
        0xE2: (b"ICC_PROFILE\0", b"MPF\0", _GAIN_MAP),
        0xEC: (b"Ducky",),
        0xED: (b"Photoshop 3.0\0", b"Adobe_CM"),
        0xEE: (b"Adobe",),
    }
)

# A background to show behind the picture, bits in use, counts of colors, a time, and marks of encoders.
IDLE_CHUNKS = (b"bKGD", b"sBIT", b"hIST", b"sPLT", b"tIME", b"iDOT")
"""Chunks of a PNG that are left out without a message."""

_KNOWN_CHUNKS = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"mDCv"),
    *(b"cLLI", b"cLLi", b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"pHYs", b"acTL", b"fcTL", b"fdAT"),
    *IDLE_CHUNKS,
)
_KNOWN_RIFF = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"EXIF", b"XMP ", b"ANIM", b"ANMF")
# Tags of a TIFF that are read, say how pixels are stored, or are marks of writers that say nothing about the picture.
_KNOWN_TAGS = frozenset(
    (
        *(*range(254, 260), *range(262, 267), 270, *range(273, 275), *range(277, 285), *range(288, 294), 296, 297, 301),
        *(*range(317, 329), 330, 332, 333, 334, 338, 339, *range(342, 348), *range(512, 522), *range(529, 533), 559),
        *(tiff_ifd.XMP, tiff_ifd.IPTC, tiff_ifd.RESOURCES, tiff_ifd.ICC, 50674, 50844, 59932),
        *(*tiff_ifd.DETAILS, *tiff_ifd.WINDOWS_DETAILS, *geotiff.TAGS),
    )
)
_CREDENTIALS_TAG = 52545
_KNOWN_BOXES = (
    *(b"ftyp", b"meta", b"mdat", b"idat", b"free", b"skip", b"moov", b"styp", b"JXL ", b"jxlc", b"jxlp", b"jxll"),
    *(b"jxli", b"jbrd", b"Exif", b"xml ", b"brob", b"jP  ", b"jp2h", b"jp2c", b"rreq", b"wide", b"pnot"),
)
_UNREAD_UUIDS = MappingProxyType(
    {
        bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): "the place on the map (GeoJP2)",
        bytes.fromhex("d8fec3d61b0e483c92975828877ec481"): _CREDENTIALS,
    }
)


def surplus_notes(file: BinaryIO, name: str) -> list[str]:
    """Return a sentence for every kind of unread part in a file of format `name`."""
    notes = _NOTES_OF_FORMAT[name](file) if name in _NOTES_OF_FORMAT else ()
    return list(dict.fromkeys(notes))


def _jpeg_notes(file: BinaryIO) -> Iterator[str]:
    file.seek(0)
    data = file.read(_MOST_BYTES)
    segments = list(_segments(data))
    yield from _segment_notes(data, segments)
    end, pictures = _end_of(segments), 0
    while end and (follows := _FURTHER.match(data, end)) and pictures < _MOST_PARTS:
        pictures += 1
        end = _end_of(list(_segments(data, follows.end() - 2)))
    # Pictures in an index (MPF) have a sentence of their own.
    if pictures and not any(data.startswith(b"MPF\0", start) for kind, start, _ in segments if kind == 0xE2):
        yield f"further pictures behind the picture were left out: {pictures}"
    if end:
        yield from _trailing_notes(file, end)


def _end_of(segments: list[tuple[int, int, int]]) -> int:
    """Return the offset behind the end marker of a JPEG, 0 for a JPEG without an end marker."""
    return segments[-1][1] if segments and segments[-1][0] == _EOI else 0


def _segment_notes(data: bytes, segments: list[tuple[int, int, int]]) -> Iterator[str]:
    unknown, profile = [], []
    for kind, start, size in segments:
        content = data[start : start + min(size, 64)]
        if kind == 0xEB and b"jumb" in content:
            yield _CREDENTIALS
            continue
        if kind == 0xE2 and content.startswith(_GAIN_MAP):
            yield "metadata of parts that are not kept was removed: a gain map"
        elif kind == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
            profile.append(content[13:14])  # the number of all parts
        elif kind == 0xED:
            yield from path_notes(data[start : start + size])
        if 0xE0 <= kind <= 0xEF and not content.startswith(_KNOWN_SEGMENTS.get(kind, b"\0\0\0\0")):
            unknown.append(_segment_name(kind, content))
    if any(count != bytes((len(profile) % 256,)) for count in profile):
        yield "the colour profile is damaged and was left out"
    yield from _name_parts("segments of the JPEG", unknown)


def _segments(data: bytes, begin: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield kind, offset and size of the content of all segments of a JPEG, up to the end marker (of no size)."""
    at = begin + 2
    while marker := _MARKER.search(data, at):
        kind, at = marker[1][0], marker.end()
        if kind == _EOI:
            yield kind, at, 0
            return
        size = int.from_bytes(data[at : at + 2], "big")
        yield kind, at + 2, max(0, size - 2)
        at += max(2, size)


def _segment_name(kind: int, content: bytes) -> str:
    """Return APP and a number, with the first word of the content where there is one."""
    word = re.match(rb"[A-Za-z][\w .-]{2,20}(?=\0|$)", content)
    return f"APP{kind - 0xE0}" + (f" ({word[0].decode()})" if word else "")


def _png_notes(file: BinaryIO) -> Iterator[str]:
    unknown, end = [], 0
    for kind, start, size in _png_chunks(file):
        end = start + size + 4 if kind == b"IEND" else 0
        if kind == b"caBX":
            yield _CREDENTIALS
        elif kind not in _KNOWN_CHUNKS:
            unknown.append(kind.decode())
    yield from _name_parts("chunks of the PNG", unknown)
    if end:
        yield from _trailing_notes(file, end)


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, offset and size of the content of all chunks."""
    at = 8
    while True:
        file.seek(at)
        head = file.read(8)
        size, kind = struct.unpack(">I4s", head.ljust(8, b"\0"))
        if not kind.isalpha():  # damage
            return
        yield kind, at + 8, size
        at += 12 + size
        if kind == b"IEND":
            return


def _webp_notes(file: BinaryIO) -> Iterator[str]:
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "little")
    unknown, at = [], 12
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(8)
        if at + 8 > end or len(head) < 8 or not _NAME.fullmatch(head[:4]):
            break
        if head[:4] == b"C2PA":
            yield _CREDENTIALS
        elif head[:4] not in _KNOWN_RIFF:
            unknown.append(head[:4].decode().strip())
        size = int.from_bytes(head[4:], "little")
        at += 8 + size + size % 2
    yield from _name_parts("chunks of the WebP", unknown)
    yield from _trailing_notes(file, end + end % 2)


def _box_notes(file: BinaryIO) -> Iterator[str]:
    """Yield notes for AVIF, HEIF, JPEG XL and JPEG 2000."""
    file.seek(0)
    if file.read(2) in (b"\xff\x0a", b"\xff\x4f"):  # a bare codestream
        return
    unknown, codestreams = [], 0
    for box in iter_boxes(file):
        file.seek(box.start)
        uuid = file.read(16) if box.kind == b"uuid" else b""
        if not _NAME.fullmatch(box.kind):  # damage
            break
        codestreams += box.kind == b"jp2c"
        if box.kind == b"jumb" or _UNREAD_UUIDS.get(uuid) == _CREDENTIALS:
            yield _CREDENTIALS
        elif uuid in _UNREAD_UUIDS:
            yield f"{_UNREAD_UUIDS[uuid]} was left out"
        elif box.kind == b"mpvd":
            yield "metadata of parts that are not kept was removed: a motion video"
        elif uuid not in UUIDS.values() and box.kind not in _KNOWN_BOXES:
            unknown.append(box.kind.decode().strip())
    yield from _name_parts("boxes of the file", unknown)
    if codestreams > 1:
        yield LossNote(f"only the first of {codestreams} pictures in this JPEG 2000 was read")


def _item_notes(file: BinaryIO) -> Iterator[str]:
    """Yield notes for HEIF and AVIF. The decoder of AVIF ignores some properties."""
    kinds = names_of_properties(file)
    file.seek(8)
    # libheif cuts the picture, libavif does not.
    if b"clap" in kinds and file.read(4) in (b"avif", b"avis"):
        yield "the crop (clap) that the AVIF states was not applied"
    if _has_gain_map(file):
        yield "metadata of parts that are not kept was removed: a gain map"
    if kinds & {b"mdcv", b"clli", b"cclv", b"amve"}:
        yield "the brightness of the HDR picture that the file states was left out"
    yield from _box_notes(file)


def _has_gain_map(file: BinaryIO) -> bool:
    """Return whether the list of items ("iinf") names a picture with a tone map (ISO 21496-1)."""
    meta = read_meta(file)
    return b"iinf" in meta and b"tmap" in read_content(file, meta[b"iinf"])


def _gif_notes(file: BinaryIO) -> Iterator[str]:
    parts = read_gif_parts(file)
    yield from _name_parts("extensions of the GIF", parts.unknown)
    if parts.texts:
        yield f"texts to be drawn over the GIF were left out: {parts.texts}"
    if parts.end is not None:
        yield from _trailing_notes(file, parts.end)


def tiff_notes(entries: Mapping[int, tiff_ifd.Entry], repeated: Iterable[tuple[int, tiff_ifd.Entry]]) -> Iterator[str]:
    """Yield notes about unread tags of the first page of a TIFF.

    Args:
        entries: All entries of the page.
        repeated: Entries whose tag was there before.
    """
    from tifffile import TIFF

    unknown = [tag for tag in entries if tag not in _KNOWN_TAGS]
    if _CREDENTIALS_TAG in unknown:
        unknown.remove(_CREDENTIALS_TAG)
        yield _CREDENTIALS
    yield from _name_parts("tags of the TIFF", (f"{TIFF.TAGS.get(tag, '')} {tag}".strip() for tag in unknown))
    if tiff_ifd.RESOURCES in entries:
        yield from path_notes(entries[tiff_ifd.RESOURCES].data)
    again = list_names(str(tag) for tag, _ in repeated)
    if again:
        yield f"tags of the TIFF that stand there twice count once: {again}"


def _trailing_notes(file: BinaryIO, end: int) -> Iterator[str]:
    """Yield a sentence about the bytes behind the end of a picture; padding needs no sentence."""
    size = file.seek(0, io.SEEK_END) - end
    if size <= 0:
        return
    file.seek(end)
    data = file.read(_LOOKED_AT)
    if data.strip(_PADDING) or size > _LOOKED_AT:
        what = " (a motion video)" if _VIDEO.search(data) else ""
        yield f"{size} bytes behind the end of the picture were left out{what}"


def _name_parts(what: str, names: Iterable[str]) -> Iterator[str]:
    listed = list_names(names)
    if listed:
        yield f"{what} that are not read were left out: {listed}"


def list_names(names: Iterable[str]) -> str:
    """Return distinct names for a sentence, with commas between; of many, the first and the number of the others."""
    return list_some(list(dict.fromkeys(names)), _MOST_NAMES)


_NOTES_OF_FORMAT: Mapping[str, Callable[[BinaryIO], Iterator[str]]] = MappingProxyType(
    {
        "JPEG": _jpeg_notes,
        "PNG": _png_notes,
        "WEBP": _webp_notes,
        "GIF": _gif_notes,
        "AVIF": _item_notes,
        "HEIF": _item_notes,
        "JXL": _box_notes,
        "JPEG2000": _box_notes,
    }
)
