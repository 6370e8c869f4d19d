"""Strips and tiles of a TIFF that end too early: noticed, and completed with zeros so that any decoder reads them."""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from PIL import Image

from dsclora_cli.imaging.codecs.coded_tail import coded_end, present_share
from dsclora_cli.imaging.codecs.jpeg_scan import count_whole_rows, repaired
from dsclora_cli.imaging.codecs.jxl import read_jxl_facts
from dsclora_cli.imaging.codecs.png import inflate_start

if TYPE_CHECKING:
    from tifffile import TiffPage

JPEG = 7
"""TIFF's number of the compression."""

_PLAIN, _LZW, _DEFLATE, _OLD_DEFLATE, _PACK_BITS, _LZMA = 1, 5, 8, 32946, 32773, 34925
_CODED = {50001: "WEBP", 34712: "JPEG2000", 33003: "JPEG2000", 33004: "JPEG2000", 33005: "JPEG2000"}
"""Compressions in the form of a whole file, with the Pillow name of the format."""

_BOMB = 2**14, 2**14
"""Size that stands for a picture so large that Pillow does not tell the size: above 179 million pixels."""

_START_OF_JPEG, _START_OF_SCAN = b"\xff\xd8", b"\xff\xda"
_REVERSED_BITS = 2
_SMALLEST = 2**16  # bytes that may be missing in any strip or tile
_STEP = 16  # bytes that are unpacked at once, as an error loses the step
_PLACE_TAGS = (("StripOffsets", "StripByteCounts"), ("TileOffsets", "TileByteCounts"))
_LONG, _LONG8 = 4, 16  # TIFF types


def may_be_cut(page: TiffPage) -> bool:
    """Return whether decoders of the compression fill an incomplete strip or tile without a message."""
    return page.compression == JPEG or page.compression in _CODED


def holds_pictures(page: TiffPage) -> bool:
    """Return whether every strip or tile is a picture with a size of its own: JPEG, WebP, JPEG 2000, PNG and others."""
    from tifffile import TIFF

    return page.compression == JPEG or page.compression in _CODED or page.compression in TIFF.IMAGE_COMPRESSIONS


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height that the picture in a strip or tile states; None where Pillow does not know the kind."""
    if facts := read_jxl_facts(io.BytesIO(data)):
        return facts.width, facts.height
    # Pillow reads the header only, and meets damage with any exception.
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return picture.size
    except Image.DecompressionBombError:
        return _BOMB
    except Exception:  # noqa: BLE001 - of any decoder
        return None


def is_cut(page: TiffPage, data: bytes) -> bool:
    """Return whether a strip or tile is incomplete, where `may_be_cut`; False for other compressions."""
    if not may_be_cut(page):
        return False
    if page.compression == JPEG:
        # Kinds that Pillow cannot read are left to the decoder.
        with suppress(Exception):
            return count_whole_rows(_with_tables(page, data)) is not None
        return False
    return present_share(io.BytesIO(data), _CODED[page.compression], _pixels(page)) is not None


def mend_segment(page: TiffPage, data: bytes, number: int) -> tuple[bytes, float]:
    """Return a strip or tile of the right size, coded as before, and the share that is there, 0 to 1.

    A segment that cannot be mended is returned as given.

    Raises:
        Exception: A decoder cannot read anything at all.
    """
    rows, width, samples = page.keyframe.decode(None, number)[2][-3:]
    if page.compression == JPEG:
        return _mend_jpeg(_with_tables(page, data), data)
    if page.compression in _CODED:
        name = _CODED[page.compression]
        share = present_share(io.BytesIO(data), name, rows * width)
        end = coded_end(io.BytesIO(data), name)
        # A few bytes may state a length of gigabytes, and no coder needs more than the samples themselves.
        if end > len(data) + 2 * rows * width * samples * page.bitspersample + _SMALLEST:
            return data, 0.0
        return data.ljust(end, b"\0"), 1.0 if share is None else share
    start, pack = _CODECS.get(page.compression, (None, None))
    if start is None or pack is None or page.fillorder == _REVERSED_BITS:
        return data, 1.0
    size = rows * -(-width * samples * page.bitspersample // 8)
    raw = start(data, size)[:size]
    return pack(raw.ljust(size, b"\0")), len(raw) / size


def _mend_jpeg(jpeg: bytes, data: bytes) -> tuple[bytes, float]:
    try:
        found = count_whole_rows(jpeg) if data.startswith(_START_OF_JPEG) and _START_OF_SCAN in data else (0, 0)
    except Exception:  # noqa: BLE001 - of any decoder
        found = (0, 0)
    if found == (0, 0):
        return b"", 0.0
    return repaired(jpeg), found[0] / found[1] if found else 1.0


def mended_copy(page: TiffPage, file: BinaryIO, segments: dict[int, bytes]) -> BinaryIO:
    """Return a copy of a TIFF in memory, in which a page has the strips or tiles in `segments` in place of its own."""
    file.seek(0)
    copy = io.BytesIO(file.read())
    tags = next((pair for pair in _PLACE_TAGS if all(name in page.tags for name in pair)), None)
    if tags is None:
        return file
    offsets, lengths = list(page.dataoffsets), list(page.databytecounts)
    for number, data in segments.items():
        offsets[number], lengths[number] = copy.seek(0, io.SEEK_END), len(data)
        copy.write(data)
    big = page.parent.is_bigtiff
    word = "Q" if big else "I"
    order = page.parent.byteorder
    for name, values in zip(tags, (offsets, lengths), strict=True):
        block = struct.pack(f"{order}{len(values)}{word}", *values)
        place = block
        if len(values) > 1:
            place = struct.pack(order + word, copy.seek(0, io.SEEK_END))
            copy.write(block)
        tag = page.tags[name]
        copy.seek(tag.offset)
        copy.write(struct.pack(f"{order}HH{word}", tag.code, _LONG8 if big else _LONG, len(values)) + place)
    return copy


def empty_jpeg(data: bytes) -> bytes:
    """Return a JPEG with the headers of another, and without pixels: decoders show gray."""
    start = data.find(_START_OF_SCAN)
    return data[: start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")] + b"\xff\xd9"


def _pixels(page: TiffPage) -> int:
    return page.tilelength * page.tilewidth if page.is_tiled else page.rowsperstrip * page.imagewidth


def _with_tables(page: TiffPage, data: bytes) -> bytes:
    """Return a JPEG of its own: strips and tiles share the tables of the page."""
    tables = page.jpegtables
    return tables[:-2] + data[2:] if tables else data


def _unpack_lzw(data: bytes, size: int) -> bytes:  # noqa: ARG001
    import imagecodecs

    data = data.rstrip(b"\0")
    # An error loses all, so the longest part without an error is looked for.
    found, least, most = b"", 0, len(data) + 1
    part = len(data)
    while least < part:
        try:
            found, least = bytes(imagecodecs.lzw_decode(data[:part])), part
        except RuntimeError:  # the base class of the errors of imagecodecs
            most = part
        part = (least + most) // 2
    return found


def _pack_lzw(data: bytes) -> bytes:
    import imagecodecs

    return bytes(imagecodecs.lzw_encode(data))


def _unpack_runs(data: bytes, size: int) -> bytes:
    """Return what PackBits data of at most `size` unpacked bytes hold (TIFF 6.0, section 9)."""
    parts, at, done = [], 0, 0
    while at < len(data) and done < size:
        count = data[at]
        part = data[at + 1 : at + 2 + count] if count < 128 else data[at + 1 : at + 2] * (257 - count)
        if count != 128:
            parts.append(part)
            done += len(part)
        at += 2 + count if count < 128 else 1 + (count > 128)
    return b"".join(parts)


def _pack_runs(data: bytes) -> bytes:
    """Return bytes as PackBits, each part as given."""
    return b"".join(bytes((len(part) - 1,)) + part for part in (data[at : at + 128] for at in range(0, len(data), 128)))


def _unpack_lzma(data: bytes, size: int) -> bytes:
    unpacker, found, end = lzma.LZMADecompressor(), bytearray(), len(data.rstrip(b"\0"))
    with suppress(lzma.LZMAError, EOFError):
        for at in range(0, end, _STEP):
            found += unpacker.decompress(data[at : at + _STEP], size)
    return bytes(found)


_CODECS: dict[int, tuple[Callable[[bytes, int], bytes], Callable[[bytes], bytes]]] = {
    _PLAIN: (lambda data, size: data[:size], bytes),
    _LZW: (_unpack_lzw, _pack_lzw),
    _DEFLATE: (inflate_start, zlib.compress),
    _OLD_DEFLATE: (inflate_start, zlib.compress),
    _PACK_BITS: (_unpack_runs, _pack_runs),
    _LZMA: (_unpack_lzma, lzma.compress),
}
"""How to read the start of a damaged strip or tile, and how to code the bytes again, by compression."""
