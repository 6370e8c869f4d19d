"""PNG: its chunks (all metadata, read without touching pixels), and pixels of 8 and 16 bits both ways."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.types import AnyFrame, Metadata, Pixels

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP")
_ONCE = (b"IHDR", b"acTL", b"tRNS", b"iCCP", b"eXIf", b"pHYs", *_COLOUR_CHUNKS)
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_XMP_KEY = "XML:com.adobe.xmp"
_RAW_PROFILE = re.compile(r"Raw profile type (iptc|8bim|exif|APP1|xmp)")
_MAX_TEXT = 2**26
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_UP = 2
_PART = 2**22


def chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk: length, kind, data and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def chunks(file: BinaryIO, *bulky: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of every chunk; pixel data is skipped and given as empty, except of the kinds named in `bulky`.

    Raises ImageError where the file ends too early or what pixels need does not match its checksum.
    """
    file.seek(len(SIGNATURE))
    kind = b""
    while kind != b"IEND":
        size, kind = struct.unpack(">I4s", _exactly(file, 8))
        if kind in (b"IDAT", b"fdAT") and kind not in bulky:
            file.seek(size + 4, io.SEEK_CUR)
            yield kind, b""
            continue
        data = _exactly(file, size)
        sum_of_data = file.read(4)
        if kind in _PIXEL_CHUNKS and sum_of_data != struct.pack(">I", zlib.crc32(kind + data)):
            raise ImageError("the pixels of this PNG are damaged")
        yield kind, data


def scan(file: BinaryIO) -> tuple[Mapping[bytes, bytes], Metadata]:
    """The chunks that occur once (IHDR, acTL, tRNS and those of metadata) by kind, and the file's metadata."""
    once: dict[bytes, bytes] = {}
    texts: dict[str, str] = {}
    for kind, data in chunks(file):
        if kind in _TEXT:
            key, value = _read_text(kind, data)
            texts.setdefault(key, value)
        elif kind in _ONCE:
            once.setdefault(kind, data)
    profiles = {match[1].lower(): key for key in texts if (match := _RAW_PROFILE.fullmatch(key))}
    raw = {kind: _hexadecimal(texts.pop(key)) for kind, key in profiles.items()}
    app1 = raw.get("app1", b"")
    iptc = raw.get("iptc") or raw.get("8bim")
    xmp = texts.pop(_XMP_KEY, None) or raw.get("xmp") or (app1 if b"<x:xmpmeta" in app1 else None)
    return once, Metadata(
        icc=_read_profile(once.get(b"iCCP")),
        exif=blocks.plain_exif(once.get(b"eXIf") or raw.get("exif") or app1),
        xmp=blocks.plain_xmp(xmp),
        iptc=iptc and blocks.iptc_of_resources(iptc),
        dpi=_read_density(once.get(b"pHYs")),
        text=tuple((key, value) for key, value in texts.items() if value),
        colour_chunks=tuple((kind, once[kind]) for kind in _COLOUR_CHUNKS if kind in once),
    )


def decode(file: BinaryIO) -> Pixels:
    """The pixels of a PNG file: `(H, W, C)` uint8 or uint16, palette and tRNS turned into colour and alpha.

    The decoder is given pixels only: of metadata that it dislikes, libpng would complain on standard error.
    """
    import imagecodecs

    needed = b"".join(chunk(kind, data) for kind, data in chunks(file, b"IDAT") if kind in _PIXEL_CHUNKS)
    pixels: Pixels = imagecodecs.png_decode(SIGNATURE + needed)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def write(target: BinaryIO, frame: AnyFrame, metadata: Metadata, compression: int) -> None:
    """Write a still PNG of `(H, W, C)` uint8 or uint16, band by band as they come."""
    bands = frame.bands()
    first = next(bands)
    target.write(SIGNATURE + header_chunk(frame.shape, first.dtype) + metadata_chunks(metadata))
    target.writelines(chunk(b"IDAT", data) for data in image_data(chain([first], bands), compression))
    target.write(chunk(b"IEND", b""))


def header_chunk(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """IHDR for `(H, W, C)` of uint8 or uint16."""
    height, width, channels = shape
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, dtype.itemsize * 8, _COLOUR_TYPES[channels], 0, 0, 0))


def image_data(bands: Iterable[Pixels], compression: int) -> Iterator[bytes]:
    """The zlib stream of `(h, W, C)` bands of one picture, in parts of a few megabytes.

    Every row is predicted from the one above: on photographs this is both faster and smaller than choosing per row.
    """
    packer = _packer(compression)
    above: NDArray[np.uint8] | None = None
    for band in bands:
        for part in np.array_split(band, max(1, band.nbytes // _PART)):
            wire = np.ascontiguousarray(part, part.dtype.newbyteorder(">")).view(np.uint8).reshape(len(part), -1)
            filtered = np.empty((len(wire), 1 + wire.shape[1]), np.uint8)
            filtered[:, 0] = _UP
            filtered[0, 1:] = wire[0] if above is None else wire[0] - above
            np.subtract(wire[1:], wire[:-1], out=filtered[1:, 1:])
            above = wire[-1].copy()
            if data := packer.compress(filtered):
                yield data
    yield packer.flush()


def _packer(compression: int) -> Any:  # noqa: ANN401 - of three libraries
    """The fastest library for each effort from 0 to 9: at 1 ISA-L is four times as fast as zlib, and smaller."""
    if compression == 0:
        return zlib.compressobj(0)
    if compression == 1:
        from isal import isal_zlib

        return isal_zlib.compressobj(1)
    from zlib_ng import zlib_ng

    return zlib_ng.compressobj(compression)


def metadata_chunks(metadata: Metadata) -> bytes:
    """Every chunk of metadata, in an order that PNG allows: after IHDR, before the pixels."""
    parts = [chunk(kind, data) for kind, data in metadata.colour_chunks]
    if metadata.icc:
        parts.append(chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        parts.append(chunk(b"pHYs", struct.pack(">IIB", *(round(dots / 0.0254) for dots in metadata.dpi), 1)))
    if metadata.exif:
        parts.append(chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        parts.append(chunk(b"iTXt", _XMP_KEY.encode() + b"\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:
        data = blocks.resources_of_iptc(metadata.iptc)
        raw = b"\niptc\n%8d\n%s\n" % (len(data), data.hex().encode())
        parts.append(chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(raw)))
    return b"".join([*parts, *(_text_chunk(key, value) for key, value in metadata.text)])


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ImageError("the PNG is truncated")
    return data


def _text_chunk(key: str, value: str) -> bytes:
    keyword = key.encode("latin-1", "replace")[:79] or b"Comment"
    try:
        return chunk(b"tEXt", keyword + b"\0" + value.encode("latin-1"))
    except UnicodeEncodeError:
        return chunk(b"iTXt", keyword + b"\0\0\0\0\0" + value.encode())


def _read_text(kind: bytes, data: bytes) -> tuple[str, str]:
    """Keyword and text of a text chunk; the text is empty where it is damaged or unreasonably long."""
    key, _, rest = data.partition(b"\0")
    if kind == b"zTXt":
        rest = _inflate(rest[1:])
    elif kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        rest = _inflate(rest) if packed else rest
    return key.decode("latin-1"), rest.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def _read_profile(data: bytes | None) -> bytes | None:
    return _inflate(data.partition(b"\0")[2][1:]) or None if data else None


def _read_density(data: bytes | None) -> tuple[float, float] | None:
    """Dots per inch of a pHYs chunk in metres; a mere pixel shape (unit 0) says nothing of it."""
    if data is None or len(data) != 9 or data[8] != 1:
        return None
    across, down = struct.unpack(">II", data[:8])
    return (round(across * 0.0254, 4), round(down * 0.0254, 4)) if across and down else None


def _inflate(data: bytes) -> bytes:
    """Decompressed data; empty where it is damaged or grows beyond reason."""
    unpacker: Any = zlib.decompressobj()
    try:
        plain: bytes = unpacker.decompress(data, _MAX_TEXT)
    except zlib.error:
        return b""
    return plain if unpacker.eof else b""


def _hexadecimal(text: str) -> bytes:
    """The bytes of a "Raw profile": a name, a length, and hexadecimal digits over many lines."""
    try:
        return bytes.fromhex("".join(text.split()[2:]))
    except ValueError:
        return b""
