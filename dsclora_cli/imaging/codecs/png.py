"""PNG: pictures and animations of 8 and 16 bits in, stills out, and the chunks of metadata; `animation.py` writes APNG.

Pillow would silently cut 16 bits to 8, blend the frames of an APNG wrongly, and decode all pixels to reach the metadata
behind them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError, escape_control
from dsclora_cli.imaging.codecs.coded_tail import describe_share
from dsclora_cli.imaging.color import white_level
from dsclora_cli.imaging.containers.png_text import TEXT_CHUNKS, XMP_KEY, PngTexts, inflate, text_chunks
from dsclora_cli.imaging.containers.surplus import IDLE_CHUNKS, list_names
from dsclora_cli.imaging.metadata import (
    exif_notes,
    extract_iptc,
    normalize_dpi,
    normalize_exif,
    normalize_xmp,
    pixel_density,
    wrap_iptc,
)
from dsclora_cli.imaging.types import AnyFrame, Frame, Header, Metadata, OpenedFile, Pixels, regroup_bands

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi")
_ONCE = (b"IHDR", b"acTL", b"tRNS", b"iCCP", b"eXIf", b"pHYs", *_COLOR_CHUNKS)
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"IEND")
_ANCILLARY = 0x20  # bit of the first letter of a chunk that a decoder may leave out
_NO_PROFILE = "the colour profile is damaged and was left out"
_CHANNELS_OF_TYPE = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # type 3 is a palette
_SAMPLES_OF_TYPE = {**_CHANNELS_OF_TYPE, 3: 1}
# First row, first column, step of rows and of columns, for the seven passes of an interlaced PNG.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_TO_NOTHING, _TO_PREVIOUS, _OVER = 0, 2, 1  # how a frame of an APNG is taken away, and how it is laid
_DEFAULT_PICTURE = b"default"
_TYPE_OF_CHANNELS = {1: 0, 2: 4, 3: 2, 4: 6}
_UP = 2  # filter type: each byte minus the byte above
_STEP = 2**16  # bytes of a damaged stream that are decompressed at once
_PART = 2**22  # bytes of pixels that are compressed at once


def open_png(file: BinaryIO) -> OpenedFile:
    """Open a PNG or APNG: a palette becomes RGB, tRNS becomes alpha, less than 8 bits become 8.

    The default picture of an APNG, if outside the animation, is for viewers without animation, and is left out.
    """
    once, metadata = scan_png(file)
    width, height, bits, kind = struct.unpack_from(">IIBB", once[b"IHDR"])
    depth: np.dtype[np.uint8 | np.uint16] = np.dtype("uint16" if bits == 16 else "uint8")
    channels = _CHANNELS_OF_TYPE[kind] + (b"tRNS" in once)
    count, plays = struct.unpack(">II", once[b"acTL"]) if b"acTL" in once else (1, 0)
    extra = (count > 1) and once[_DEFAULT_PICTURE] == b"outside"
    header = Header(
        format="PNG",
        width=width,
        height=height,
        channels=channels,
        dtype=depth,
        frames=max(1, count),
        animated=count > 1,
        loop=plays if count > 1 else None,
        metadata=metadata,
        notes=("the picture for viewers without animation was left out",) if extra else (),
    )
    return OpenedFile(header, partial(_decode_animation if header.animated else _decode_still, file, header))


def _decode_still(file: BinaryIO, header: Header) -> Iterator[Frame]:
    """Yield the only frame, `(H, W, C)` uint8 or uint16."""
    chunks = [chunk for chunk in read_chunks(file, b"IDAT") if chunk[0] in _PIXEL_CHUNKS]
    once = dict(chunks)
    data = b"".join(data for kind, data in chunks if kind == b"IDAT")
    yield Frame(_decode_pixels(once, (header.width, header.height), data))


def _decode_animation(file: BinaryIO, header: Header) -> Iterator[Frame]:
    """Yield the frames of an APNG as a viewer shows them, `(H, W, C)` uint8 or uint16."""
    canvas = np.zeros((header.height, header.width, header.channels), header.dtype)
    for number, (once, control, data) in enumerate(_read_frames(file, header.frames)):
        width, height, left, top, units, second, dispose, blend = struct.unpack(">4x4I2H2B", control)
        if left + width > header.width or top + height > header.height:
            raise ImageError(f"frame {number} of this APNG is larger than the picture")
        part = canvas[top : top + height, left : left + width]
        before = part.copy()
        patch = _decode_pixels(once, (width, height), data)
        part[:] = _lay_over(part, patch) if blend == _OVER else patch
        # A copy: the canvas is painted over for the next frame. A second without a unit means hundredths.
        yield Frame(canvas.copy(), 1000 * units / (second or 100))
        if dispose == _TO_PREVIOUS and number:
            part[:] = before
        elif dispose != _TO_NOTHING:
            part[:] = 0


def _read_frames(file: BinaryIO, count: int) -> Iterator[tuple[dict[bytes, bytes], bytes, bytes]]:
    """Yield header chunks, the fcTL chunk and the compressed pixels of each frame of an APNG."""
    once: dict[bytes, bytes] = {}
    control = b""
    parts: list[bytes] = []
    for kind, data in read_chunks(file, b"IDAT", b"fdAT"):
        if kind in (b"fcTL", b"IEND"):
            if control and parts:
                count -= 1
                yield once, control, b"".join(parts)
            control, parts = data, []
            if count == 0:
                return
        # Pixels before any fcTL are the picture for viewers without animation.
        elif kind in (b"IDAT", b"fdAT") and control:
            parts.append(data[4:] if kind == b"fdAT" else data)  # fdAT starts with a count
        elif kind in _PIXEL_CHUNKS and kind != b"IDAT":
            once[kind] = data
    raise ImageError(f"the APNG is truncated: {count} frames are missing")


def _lay_over(below: Pixels, above: Pixels) -> Pixels:
    """Return `(h, w, C)` pixels laid over others of the same dtype, neither premultiplied (Porter and Duff, "over")."""
    if above.shape[2] in (1, 3):
        return above
    white = white_level(above.dtype)
    share, under = above[..., -1:] / white, below[..., -1:] / white
    opacity = share + under * (1 - share)
    color = above[..., :-1] * share + below[..., :-1] * under * (1 - share)
    np.divide(color, opacity, out=color, where=opacity > 0)
    laid: Pixels = np.rint(np.concatenate([color, opacity * white], axis=2)).astype(above.dtype)
    return laid


def _decode_pixels(once: Mapping[bytes, bytes], size: tuple[int, int], data: bytes) -> Pixels:
    """Return pixels `(height, width, C)` of a picture of `size` (width, height) with the compressed pixels `data`."""
    import imagecodecs

    head = once[b"IHDR"]

    def decode(width: int, height: int, packed: bytes) -> Pixels:
        # The decoder gets the chunks of pixels only: libpng complains about odd metadata on standard error.
        parts = [make_chunk(b"IHDR", struct.pack(">II", width, height) + head[8:12] + b"\0")]
        parts += [make_chunk(kind, once[kind]) for kind in (b"PLTE", b"tRNS") if kind in once]
        pixels: Pixels = imagecodecs.png_decode(
            b"".join([SIGNATURE, *parts, make_chunk(b"IDAT", packed), make_chunk(b"IEND", b"")])
        )
        return pixels if pixels.ndim == 3 else pixels[..., None]

    if head[12]:
        return _decode_interlaced(head, size, data, decode)
    wanted = _list_passes(head, size)[0][-1]
    return decode(*size, _without_surplus(data, wanted))


def _without_surplus(data: bytes, wanted: int) -> bytes:
    """Return a zlib stream of `wanted` bytes without more pixels or more bytes behind: libpng complains on stderr.

    Damaged and short streams stay unchanged, for the decoder to refuse. The look takes a fifth of the time of decoding.
    """
    from isal import isal_zlib

    unpacker, size = isal_zlib.decompressobj(), 0
    damage = cast("type[Exception]", isal_zlib.IsalError)  # the library states no type
    try:
        for at in range(0, len(data), _STEP):
            size += len(unpacker.decompress(data[at : at + _STEP]))
            if unpacker.eof or size > wanted:
                behind = max(0, len(data) - at - _STEP) + len(unpacker.unused_data)
                if size > wanted or (size == wanted and behind > 0):
                    return zlib.compress(zlib.decompressobj().decompress(data, wanted), 1)
                break
    except damage:
        pass
    return data


def _decode_interlaced(
    head: bytes, size: tuple[int, int], data: bytes, decode: Callable[[int, int, bytes], Pixels]
) -> Pixels:
    """Return pixels `(height, width, C)` of an interlaced picture, put together from the passes of Adam7.

    Each pass is decoded as a picture of its own: libpng warns about interlacing on standard error, and Pillow loses the
    transparency of gray with less than 8 bits.
    """
    width, height = size
    passes = _list_passes(head, size)
    wanted = sum(length for *_, length in passes)
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(data, wanted)
    if len(raw) < wanted:
        raise ImageError("the PNG is truncated")
    unpacker.decompress(unpacker.unconsumed_tail, 1)  # compares the checksum behind the pixels
    whole: Pixels | None = None
    for across_rows, across_columns, columns, rows, length in passes:
        pixels = decode(columns, rows, zlib.compress(raw[:length], 1))
        raw = raw[length:]
        if whole is None:
            whole = np.zeros((height, width, pixels.shape[2]), pixels.dtype)
        whole[across_rows, across_columns] = pixels
    assert whole is not None  # the first pass has a pixel in every picture
    return whole


def _list_passes(head: bytes, size: tuple[int, int]) -> list[tuple[slice, slice, int, int, int]]:
    """Return rows and columns of each pass in the picture, number of columns and rows, and bytes before compression.

    A picture that is not interlaced is a single pass.
    """
    width, height = size
    bits = head[8] * _SAMPLES_OF_TYPE[head[9]]
    passes = []
    for top, left, down, across in _ADAM7 if head[12] else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            length = rows * (1 + (columns * bits + 7) // 8)  # a byte of each row names the filter
            passes.append((slice(top, None, down), slice(left, None, across), columns, rows, length))
    return passes


def fill_png(data: bytes, max_pixels: int) -> tuple[bytes, str] | None:
    """Return a still PNG whose missing pixels are 0, and how much was there; None for a whole or an empty PNG.

    Damage in other chunks than those of pixels is not mended, but the number of frames (acTL) may be damaged. Of an
    animation, the picture for viewers without animation is returned. A PNG that claims more than `max_pixels` is left
    to the decoder.
    """
    at, whole = len(SIGNATURE), False
    kept: dict[bytes, bytes] = {}
    packed = []
    while at + 8 <= len(data) and not whole:
        size, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + size]
        if kind == b"IDAT":
            packed.append(content)
        elif len(content) == size:
            kept.setdefault(kind, data[at : at + 12 + size])
        whole = data[at : at + 12 + size] == make_chunk(b"IEND", b"")
        at += 12 + size
    head = kept.get(b"IHDR", b"")[8:21]
    if len(head) < 13:
        return None
    width, height, kind_of_color = struct.unpack_from(">IIxB", head)
    if not 0 < width * height <= max_pixels or kind_of_color not in _SAMPLES_OF_TYPE:
        return None
    wanted = sum(length for *_, length in _list_passes(head, (width, height)))
    raw = inflate_start(b"".join(packed), wanted)
    control = kept.get(b"acTL", b"")
    animates = control == make_chunk(b"acTL", control[8:-4])
    if not raw or (whole and len(raw) == wanted and (animates or not control)):
        return None
    parts = [kept[kind] for kind in kept if kind not in (b"IEND", b"acTL", b"fcTL", b"fdAT")]
    what = "the pixels of the first frame" if b"acTL" in kept else "the pixels"
    filled = make_chunk(b"IDAT", zlib.compress(raw.ljust(wanted, b"\0"), 1)) + make_chunk(b"IEND", b"")
    return b"".join((SIGNATURE, *parts, filled)), f"salvaged: {describe_share(len(raw) / wanted)} of {what}"


def inflate_start(packed: bytes, most: int) -> bytes:
    """Return what can be decompressed of a damaged zlib stream, at most `most` bytes."""
    # Zeros of a reserved place would unpack to pixels of some color.
    packed = packed.rstrip(b"\0")
    unpacker, parts, size, at, step = zlib.decompressobj(), [], 0, 0, _STEP
    while at < len(packed) and size < most:
        before = unpacker.copy()
        try:
            parts.append(unpacker.decompress(packed[at : at + step], most - size))
        except zlib.error:
            # Again from before the damage, in smaller steps.
            if step == 1:
                break
            unpacker, step = before, max(1, step // 16)
            continue
        size, at = size + len(parts[-1]), at + step
    return b"".join(parts)


def scan_png(file: BinaryIO) -> tuple[Mapping[bytes, bytes], Metadata]:
    """Return all chunks that occur once (IHDR, acTL, tRNS and metadata) by kind, and the metadata of the file.

    Raises:
        ImageError: The file is truncated, or a chunk needed for pixels is damaged.
    """
    once: dict[bytes, bytes] = {}
    texts = PngTexts()
    damaged: list[bytes] = []
    # Metadata may stand behind the pixels, so the whole file is walked; the pixels themselves are skipped.
    for kind, data in read_chunks(file, damaged=damaged):
        if kind in TEXT_CHUNKS:
            texts.add(kind, data)
        elif kind in _ONCE:
            once.setdefault(kind, data)
        elif kind in (b"fcTL", b"IDAT"):
            # An APNG whose pixels come before the first frame control shows them outside the animation only.
            once.setdefault(_DEFAULT_PICTURE, b"outside" if kind == b"IDAT" else b"inside")
    raw = texts.take_profiles()
    app1 = raw.get("app1", b"")
    iptc = raw.get("iptc") or raw.get("8bim")
    xmp = raw.get("xmp") or (app1 if b"<x:xmpmeta" in app1 else None)
    # The profile is behind its name and the method of compression. Old programs hide a profile in a text.
    icc = inflate(once[b"iCCP"].partition(b"\0")[2][1:]) if b"iCCP" in once else raw.get("icc") or raw.get("icm")
    exif = once.get(b"eXIf") or raw.get("exif") or (app1 if xmp is not app1 else None)
    return once, Metadata(
        icc=icc or None,
        exif=normalize_exif(exif),
        xmp=normalize_xmp(xmp),
        iptc=iptc and extract_iptc(iptc),
        dpi=_read_dpi(once.get(b"pHYs", b"")),
        density=_read_density(once.get(b"pHYs", b"")),
        text=texts.texts(),
        language_texts=tuple(texts.languages),
        color_chunks=tuple((kind, once[kind]) for kind in _COLOR_CHUNKS if kind in once),
        notes=(
            *exif_notes(exif),
            *texts.notes(),
            *([_NO_PROFILE] if b"iCCP" in once and not icc else []),
            *_damage_notes(damaged),
        ),
    )


def _damage_notes(damaged: list[bytes]) -> Iterator[str]:
    """Yield a sentence for the user about damaged chunks."""
    names = list_names(escape_control(kind.decode("latin-1")) for kind in damaged if kind not in IDLE_CHUNKS)
    if names:
        yield f"damaged chunks of the PNG were left out: {names}"


def read_chunks(file: BinaryIO, *bulky: bytes, damaged: list[bytes] | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and data of every chunk; chunks of metadata that do not match their checksum are left out.

    Args:
        file: A PNG.
        bulky: Kinds of chunks of pixels (IDAT, fdAT) that come with their data; other chunks of pixels come empty.
        damaged: Gets the kinds of the chunks that are left out.

    Raises:
        ImageError: The file ends before IEND, or a chunk needed for pixels does not match the checksum.
    """
    file.seek(len(SIGNATURE))
    kind = b""
    while kind != b"IEND":
        size, kind = struct.unpack(">I4s", _read_exactly(file, 8))
        if kind in (b"IDAT", b"fdAT") and kind not in bulky:
            file.seek(size + 4, io.SEEK_CUR)
            yield kind, b""
            continue
        data = _read_exactly(file, size)
        whole = file.read(4) == struct.pack(">I", zlib.crc32(kind + data))
        # Damaged metadata is no reason to refuse a picture; damaged pixels are.
        if kind in _PIXEL_CHUNKS and not whole:
            raise ImageError("the pixels of this PNG are damaged")
        if whole or not kind[0] & _ANCILLARY:
            yield kind, data
        elif damaged is not None:
            damaged.append(kind)


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise ImageError("the PNG is truncated")
    return data


def _read_dpi(data: bytes) -> tuple[float, float] | None:
    """Return DPI from a pHYs chunk; None for a chunk without a unit, which states only the shape of pixels."""
    if len(data) != 9 or data[8] != 1:
        return None
    across, down = struct.unpack(">II", data[:8])
    return normalize_dpi(round(across * 0.0254, 4), round(down * 0.0254, 4))


def _read_density(data: bytes) -> tuple[int, int] | None:
    """Return the shape of pixels from a pHYs chunk without a unit."""
    return pixel_density(*struct.unpack(">II", data[:8])) if len(data) == 9 and data[8] == 0 else None


def write_png(target: BinaryIO, frame: AnyFrame, metadata: Metadata, compression: int) -> None:
    """Write a still PNG, band by band as the bands of the frame arrive.

    Args:
        target: File to write; bytes are only appended.
        frame: `(H, W, C)` uint8 or uint16, C = 1 to 4.
        metadata: Blocks to write.
        compression: Effort, 0 to 9.
    """
    bands = frame.bands()
    first = next(bands)
    target.write(SIGNATURE + header_chunk(frame.shape, first.dtype) + metadata_chunks(metadata))
    target.writelines(make_chunk(b"IDAT", data) for data in compress_rows(chain([first], bands), compression))
    target.write(make_chunk(b"IEND", b""))


def header_chunk(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the IHDR chunk for pixels of shape `(H, W, C)`, uint8 or uint16."""
    height, width, channels = shape
    kind = _TYPE_OF_CHANNELS[channels]
    return make_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, dtype.itemsize * 8, kind, 0, 0, 0))


def metadata_chunks(metadata: Metadata) -> bytes:
    """Return all chunks of metadata; they belong behind IHDR and before the pixels."""
    parts = [make_chunk(kind, data) for kind, data in metadata.color_chunks]
    if metadata.icc:
        parts.append(make_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.dpi:
        parts.append(make_chunk(b"pHYs", struct.pack(">IIB", *(round(dots / 0.0254) for dots in metadata.dpi), 1)))
    elif metadata.density:
        parts.append(make_chunk(b"pHYs", struct.pack(">IIB", *metadata.density, 0)))
    if metadata.exif:
        parts.append(make_chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        parts.append(make_chunk(b"iTXt", XMP_KEY.encode() + b"\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:
        # PNG has no chunk for IPTC: other programs read the "Raw profile" of ImageMagick.
        data = wrap_iptc(metadata.iptc)
        raw = b"\niptc\n%8d\n%s\n" % (len(data), data.hex().encode())
        parts.append(make_chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(raw)))
    parts += [make_chunk(kind, data) for kind, data in text_chunks(metadata)]
    return b"".join(parts)


def compress_rows(bands: Iterable[Pixels], compression: int) -> Iterator[bytes]:
    """Yield the zlib stream of a picture in parts, while the bands arrive.

    Args:
        bands: Bands `(h, W, C)` of uint8 or uint16, from top to bottom.
        compression: Effort, 0 to 9.
    """
    packer = _open_packer(compression)
    above: NDArray[np.uint8] | None = None
    for part in _equal_parts(bands):
        # 16-bit PNG is big-endian; the filter works on bytes.
        wire = np.ascontiguousarray(part, part.dtype.newbyteorder(">")).view(np.uint8).reshape(len(part), -1)
        # Every row is predicted from the row above: on photographs both faster and smaller than a choice per row.
        filtered = np.empty((len(wire), 1 + wire.shape[1]), np.uint8)
        filtered[:, 0] = _UP
        filtered[0, 1:] = wire[0] if above is None else wire[0] - above
        np.subtract(wire[1:], wire[:-1], out=filtered[1:, 1:])
        above = wire[-1].copy()
        if data := packer.compress(filtered):
            yield data
    yield packer.flush()


def _equal_parts(bands: Iterable[Pixels]) -> Iterator[Pixels]:
    """Yield the rows of the bands anew, `_PART` bytes at a time.

    Compressed bytes depend on the parts that a compressor gets, and the heights of bands depend on the tile.
    """
    following = iter(bands)
    for first in following:
        rows = max(1, _PART // max(1, first[:1].nbytes))
        every = chain(iter((first,)), following)
        # With this name, or with a tuple in place of an iterator, the first band would stay in memory to the end.
        del first
        yield from regroup_bands(every, rows)


def _open_packer(compression: int) -> Any:  # noqa: ANN401 - the library states no type
    """Return a compressor of zlib-ng.

    Efforts 1 and 2 are both its level 2, because level 1 writes files half as large again. ISA-L is faster, but its
    bytes depend on where in memory it works.
    """
    from zlib_ng import zlib_ng

    return zlib_ng.compressobj(max(compression, 2) if compression else 0)


def make_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk: length, kind, data and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
