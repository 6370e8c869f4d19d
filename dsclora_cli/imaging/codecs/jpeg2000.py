"""JPEG 2000: all depths up to 16 bits in, with the channels and colors that the container states; lossless JP2 out.

Pillow would cut more than 8 bits to 8, take any fourth channel for alpha, and any colors for sRGB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs.unsupported import CONVERT
from dsclora_cli.imaging.color import conversion_note, image_to_pixels, unpremultiply
from dsclora_cli.imaging.isobmff import (
    Box,
    Codestream,
    add_jp2_metadata,
    iter_boxes,
    make_box,
    read_box_metadata,
    read_codestream,
    read_content,
)
from dsclora_cli.imaging.metadata import with_icc
from dsclora_cli.imaging.profiles import ColorChunks, chunks_of_numbers, profile_space, srgb_profile
from dsclora_cli.imaging.types import Frame, Header, LossNote, Metadata, OpenedFile, Pixels

# Numbers of color spaces (ISO/IEC 15444-1, table I.10, and 15444-2, table M.25) and their colors; others are refused.
_SRGB, _GRAY, _SYCC, _CMYK = 16, 17, 18, 12
_COLORS_OF_SPACE = {_SRGB: 3, _GRAY: 1, _SYCC: 3, _CMYK: 4}
_REFUSED = {
    0: "bi-level",
    1: "YCbCr",
    3: "YCbCr",
    4: "YCbCr",
    9: "PhotoYCC",
    11: "CMY",
    13: "YCCK",
    14: "CIELab",
    15: "bi-level",
    19: "CIEJab",
    20: "e-sRGB",
    21: "ROMM-RGB",
    22: "YPbCr",
    23: "YPbCr",
    24: "e-sYCC",
}
_ENUMERATED, _PROFILES, _NUMBERS = 1, (2, 3), 5  # methods of a "colr" box
_COLORS_OF_PROFILE = {"GRAY": 1, "RGB": 3, "CMYK": 4}
_OPACITY, _PREMULTIPLIED, _WHOLE = 1, 2, 0  # types of a channel, and the association with all colors
_NOTHING = 65535  # association of a channel that belongs to no color
_MOST_BITS = 16
_MOST_DEFINITIONS = 1024  # every definition may change all later ones
_FOR_DECODER = (b"ihdr", b"bpcc", b"pclr", b"cmap", b"cdef")
_SIGNATURE = b"\r\n\x87\n"


@dataclass(frozen=True)
class _Layout:
    """What the decoded channels of a file mean."""

    colors: int
    """1 gray, 3 RGB, 4 CMYK: the first channels."""

    alpha: int | None
    """Index of the channel with transparency."""

    premultiplied: bool
    """Whether color is multiplied by alpha."""

    channels: int
    """All channels, those without a meaning for the picture too."""

    bits: int
    """Bits per channel."""

    chunks: ColorChunks = ()
    """Colors that the container states by the numbers of ITU-T H.273."""

    boxes: bytes = b""
    """Boxes of the header for the decoder; empty for a bare codestream."""


def open_jpeg2000(file: BinaryIO) -> OpenedFile:
    """Open a JPEG 2000, bare or in a container: 9 to 15 bits are stretched to 16, fewer than 8 to 8.

    Raises:
        ImageError: The colors, the number of channels or the depth are of a kind that is not supported.
    """
    stream = read_codestream(file)
    layout = _read_layout(file, stream)
    metadata = read_box_metadata(file)
    notes: list[str] = []
    if layout.chunks and not metadata.icc:
        metadata = replace(metadata, color_chunks=layout.chunks)
    icc, channels = metadata.icc, min(layout.colors, 3)
    depth: np.dtype[np.uint8 | np.uint16] = np.dtype("uint16" if layout.bits > 8 else "uint8")
    if layout.colors == 4:
        notes.append(conversion_note(Image.new("CMYK", (1, 1)), icc) or "")
        metadata, depth = with_icc(metadata, srgb_profile()), np.dtype("uint8")
        if layout.bits > 8:
            notes.append(LossNote(f"{layout.bits} bits per channel were reduced to 8"))
    extra = layout.channels - layout.colors - (layout.alpha is not None)
    if extra:
        notes.append(f"channels of this JPEG 2000 that are neither colour nor alpha were left out: {extra}")
    header = Header(
        "JPEG2000",
        stream.width,
        stream.height,
        channels + (layout.alpha is not None),
        depth,
        metadata=metadata,
        notes=tuple(notes),
    )
    return OpenedFile(header, partial(_decode, file, layout, icc))


def _read_layout(file: BinaryIO, stream: Codestream) -> _Layout:
    """Return the meaning of the channels; a bare codestream and a container without definitions follow the custom."""
    if len(set(stream.depths)) > 1:
        raise ImageError("JPEG 2000 whose channels differ in depth is not supported", CONVERT)
    inner = [(box.kind, read_content(file, box)) for box in _header_boxes(file)]
    boxes = dict(inner)
    channels, bits = stream.channels, stream.bits
    if b"pclr" in boxes:
        channels, bits = _read_palette(boxes[b"pclr"])
    colors, chunks, luma = _read_colors([data for kind, data in inner if kind == b"colr"])
    if not colors:
        colors = 1 if channels <= 2 else 3
        if channels > 4:
            raise ImageError(f"JPEG 2000 with {channels} channels and no colour space is not supported", CONVERT)
    if channels < colors or bits > _MOST_BITS:
        raise ImageError(f"JPEG 2000 with {channels} channels of {bits} bits is not supported", CONVERT)
    # Many programs do not define the channels: a single channel more than the colors is alpha.
    alpha, premultiplied = (colors if channels == colors + 1 else None), False
    if b"cdef" in boxes:
        alpha, premultiplied = _read_definitions(boxes[b"cdef"], channels)
    # Only what changes the channels: the decoder would apply a profile to the pixels, and the profile is copied.
    ready = b"".join(make_box(kind, boxes[kind]) for kind in _FOR_DECODER if kind in boxes)
    if luma:
        ready += make_box(b"colr", bytes((_ENUMERATED, 0, 0)) + struct.pack(">I", _SYCC))
    return _Layout(colors, alpha, premultiplied, channels, bits, chunks, ready)


def _header_boxes(file: BinaryIO) -> list[Box]:
    """Return the boxes in the first header of a container; none for a bare codestream."""
    outer = next((box for box in iter_boxes(file) if box.kind == b"jp2h"), None)
    return list(iter_boxes(file, outer.start, outer.end)) if outer else []


def _read_palette(data: bytes) -> tuple[int, int]:
    """Return the channels that a palette gives, and their bits."""
    if len(data) < 4 or len(data) < 3 + data[2]:
        raise ImageError("the file is damaged: the palette of the JPEG 2000 is cut off")
    depths = {(depth & 0x7F) + 1 for depth in data[3 : 3 + data[2]]}
    if len(depths) != 1:
        raise ImageError("JPEG 2000 with a palette whose channels differ in depth is not supported", CONVERT)
    return data[2], depths.pop()


def _read_colors(boxes: list[bytes]) -> tuple[int, ColorChunks, bool]:
    """Return the number of colors of the first "colr" box that is understood, 0 for no box; stated numbers; and sYCC.

    Raises:
        ImageError: There are boxes, and all state colors that are not supported.
    """
    names = []
    for data in boxes:
        method = data[0] if data else 0
        if method == _ENUMERATED and len(data) >= 7:
            number = int.from_bytes(data[3:7], "big")
            if number in _COLORS_OF_SPACE:
                return _COLORS_OF_SPACE[number], (), number == _SYCC
            names.append(_REFUSED.get(number, f"colour space {number}"))
        elif method in _PROFILES:
            space = profile_space(data[3:])
            if space in _COLORS_OF_PROFILE:
                return _COLORS_OF_PROFILE[space], (), False
            names.append(f"{space} colours by a profile" if space else "a damaged colour profile")
        elif method == _NUMBERS and len(data) >= 9:
            primaries, transfer, matrix = struct.unpack_from(">HHH", data, 3)
            if matrix == 0:
                return 3, chunks_of_numbers(primaries, transfer), False
            names.append(f"matrix coefficients {matrix}")
        else:
            names.append(f"colours by method {method}")
    if names:
        raise ImageError(f"JPEG 2000 with {names[0]} is not supported", CONVERT)
    return 0, (), False


def _read_definitions(data: bytes, channels: int) -> tuple[int | None, bool]:
    """Return where the decoder puts the channel of opacity, None for no such channel, and whether it is premultiplied.

    OpenJPEG puts colors in the order of their definitions; other channels go where the colors came from.
    """
    count = min(int.from_bytes(data[:2], "big"), _MOST_DEFINITIONS)
    definitions = [list(each) for each in struct.iter_unpack(">HHH", data[2 : 2 + 6 * count][: len(data[2:]) // 6 * 6])]
    order = list(range(channels))
    for index, (channel, kind, color) in enumerate(definitions):
        place = color - 1
        if color in (0, _NOTHING) or kind != 0 or channel == place or max(channel, place) >= channels:
            continue
        order[channel], order[place] = order[place], order[channel]
        for later in definitions[index + 1 :]:
            later[0] = {channel: place, place: channel}.get(later[0], later[0])
    for channel, kind, color in struct.iter_unpack(">HHH", data[2 : 2 + 6 * len(definitions)]):
        if kind in (_OPACITY, _PREMULTIPLIED) and color == _WHOLE and channel < channels:
            return order.index(channel), kind == _PREMULTIPLIED
    return None, False


def _decode(file: BinaryIO, layout: _Layout, icc: bytes | None) -> Iterator[Frame]:
    """Yield the only frame, `(H, W, C)` uint8 or uint16."""
    import imagecodecs

    array = imagecodecs.jpeg2k_decode(_for_decoder(file, layout))
    array = array if array.ndim == 3 else array[..., None]
    if array.shape[2] != layout.channels:
        raise ImageError(f"the file is damaged: {array.shape[2]} of {layout.channels} channels arrived")
    if array.dtype.kind == "i":
        array = array.astype(np.int32) + 2 ** (layout.bits - 1)
    color = _in_full_range(array[..., : layout.colors], layout.bits)
    if layout.colors == 4:
        eight = color if color.dtype == np.uint8 else np.rint(color / 257).astype(np.uint8)
        color = image_to_pixels(Image.fromarray(np.ascontiguousarray(eight), "CMYK"), 3, icc)
    if layout.alpha is None:
        yield Frame(np.ascontiguousarray(color))
        return
    alpha = _in_full_range(array[..., layout.alpha, None], layout.bits)
    if layout.colors == 4 and alpha.dtype != np.uint8:
        alpha = np.rint(alpha / 257).astype(np.uint8)
    pixels = np.concatenate([color, alpha], axis=2)
    yield Frame(unpremultiply(pixels) if layout.premultiplied else pixels)


def _for_decoder(file: BinaryIO, layout: _Layout) -> bytes:
    """Return the codestream in a container with only the boxes that the decoder needs."""
    stream = next((box for box in iter_boxes(file) if box.kind == b"jp2c"), None)
    if stream is None or not layout.boxes:
        file.seek(0)
        return file.read()
    head = make_box(b"jP  ", _SIGNATURE) + make_box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + make_box(b"jp2h", layout.boxes)
    return head + make_box(b"jp2c", read_content(file, stream))


def _in_full_range(values: NDArray[Any], bits: int) -> Pixels:
    """Return values of some bits as uint8 or uint16 in full range."""
    most = 65535 if bits > 8 else 255
    full: Pixels = values if 2**bits - 1 == most else np.rint(values * (most / (2**bits - 1)))
    return full.astype(np.uint16 if bits > 8 else np.uint8, copy=False)


def write_jpeg2000(target: BinaryIO, pixels: Pixels, metadata: Metadata) -> None:
    """Write a lossless JP2 file of `(H, W, C)` uint8 or uint16, C = 1 to 4."""
    import imagecodecs

    array = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    coded = imagecodecs.jpeg2k_encode(array, level=0, codecformat="jp2", reversible=True)
    # OpenJPEG does not declare the last channel as alpha: other readers would see an extra color.
    alpha = pixels.shape[2] - 1 if pixels.shape[2] in (2, 4) else None
    target.write(add_jp2_metadata(bytes(coded), metadata, alpha))
