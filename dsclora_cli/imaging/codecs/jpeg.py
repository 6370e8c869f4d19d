"""JPEG: write band by band, and estimate the quality that a JPEG was saved with.

Pillow encodes strips of rows, and restart markers join them into a single picture (ITU-T T.81, B.2.1): at a restart
marker a decoder starts anew, as an encoder does with a new picture. Strips of whole rows of blocks, encoded with the
same tables, are therefore the JPEG of the whole picture, to the bit.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from dsclora_cli.imaging.color import pixels_to_image
from dsclora_cli.imaging.metadata import wrap_iptc
from dsclora_cli.imaging.types import AnyFrame, Metadata, regroup_bands

SEGMENT_BYTES = 65535 - 2
"""Most bytes of content in a segment: the length, 16 bits, counts its own 2 bytes."""

SEGMENT_ROOM = {"exif": SEGMENT_BYTES - 6, "xmp": SEGMENT_BYTES - 29, "iptc": SEGMENT_BYTES - 27}
"""Most bytes of each metadata block behind the prefix of its segment. (An ICC profile may fill many segments.)"""

_BLOCK = 8  # pixels a side: without chroma subsampling a unit of the scan is one block of each channel
_MOST_UNITS = 65535  # between two restart markers
_STRIP = 2**24  # pixels; smaller pictures have no restart markers
_APP0, _SOF0, _SOS, _DRI, _RST0, _EOI = 0xE0, 0xC0, 0xDA, b"\xff\xdd\0\4", 0xD0, b"\xff\xd9"


def write_jpeg(target: BinaryIO, frame: AnyFrame, metadata: Metadata, quality: int) -> None:
    """Write a JPEG without chroma subsampling, band by band as the bands of the frame arrive.

    Args:
        target: File to write; bytes are only appended.
        frame: `(H, W, 1)` or `(H, W, 3)` uint8.
        metadata: Blocks to write; each must fit into `SEGMENT_ROOM`.
        quality: IJG quality, 1 to 100.
    """
    height, width, _ = frame.shape
    plain: dict[str, object] = {"quality": quality, "subsampling": 0}
    # A strip is whole rows of blocks, as many as a restart interval can count.
    units = -(-width // _BLOCK)
    rows = max(1, min(_MOST_UNITS // units, _STRIP // width // _BLOCK, -(-height // _BLOCK)))
    for index, strip in enumerate(regroup_bands(frame.bands(), rows * _BLOCK)):
        buffer = io.BytesIO()
        options = plain if index else {**plain, **_metadata_options(metadata)}
        pixels_to_image(strip).save(buffer, "JPEG", **options)
        coded = buffer.getvalue()
        *segments, (_, start, size) = _iter_segments(coded)
        end = start + 2 + size
        if index == 0:
            # The head of the first strip becomes the head of the file, with the height of the whole picture.
            head = bytearray(coded[:start])
            for kind, at, _ in segments:
                if kind == _SOF0:
                    struct.pack_into(">H", head, at + 5, height)
                elif kind == _APP0 and metadata.density and not metadata.dpi:
                    # Behind "JFIF", 0 and the version: no unit, and the shape of the pixels.
                    struct.pack_into(">BHH", head, at + 11, 0, *metadata.density)
            if len(strip) < height:
                head += _DRI + struct.pack(">H", rows * units)
            target.write(bytes(head) + coded[start:end])
        else:
            target.write(bytes((0xFF, _RST0 + (index - 1) % 8)))  # restart markers count from 0 to 7
        target.write(coded[end : -len(_EOI)])
    target.write(_EOI)


def _metadata_options(metadata: Metadata) -> dict[str, object]:
    """Return options of Pillow's JPEG encoder; options without a value are left out."""
    options: dict[str, object] = {
        "icc_profile": metadata.icc,
        "exif": metadata.exif and b"Exif\0\0" + metadata.exif,
        "xmp": metadata.xmp,
    }
    if metadata.dpi:
        options["dpi"] = tuple(min(round(dots), 65535) for dots in metadata.dpi)
    most = SEGMENT_BYTES - 2
    comments = [text[at : at + most] for text in metadata.comments for at in range(0, len(text), most)]
    # Pillow writes the comment behind the extra segments.
    options["comment"] = comments[-1] if comments else None
    extra = [(b"\xff\xfe", text) for text in comments[:-1]]
    if metadata.iptc:
        extra.append((b"\xff\xed", b"Photoshop 3.0\0" + wrap_iptc(metadata.iptc)))  # APP13
    options["extra"] = b"".join(kind + (len(data) + 2).to_bytes(2, "big") + data for kind, data in extra)
    return {name: value for name, value in options.items() if value}


def _iter_segments(coded: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, offset and size of the segments up to the header of the scan, the last segment."""
    kind, at = 0, 2
    while kind != _SOS:
        kind, size = coded[at + 1], int.from_bytes(coded[at + 2 : at + 4], "big")
        yield kind, at, size
        at += 2 + size


# The luminance table of ITU-T T.81, Annex K.1, which the IJG's library scales by quality.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip


def estimate_quality(tables: Mapping[int, Sequence[int]]) -> int | None:
    """Return the IJG quality, 1 to 100, with the luminance table nearest to the table of a file.

    Tables of other encoders (cameras, Photoshop) are no scaled Annex K: for them the result is the IJG quality of
    about the same strength.

    Args:
        tables: Quantization tables by number, 64 values each; number 0 is luminance.

    Returns:
        The quality, or None without a luminance table.
    """
    if 0 not in tables or len(tables[0]) != len(_LUMINANCE):
        return None
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    scaled = np.clip((np.array(_LUMINANCE) * percent + 50) // 100, 1, 255)
    # Sorted, as decoders differ in whether they undo the zigzag; a 0 is damage that the decoder will report.
    table = np.sort(np.maximum(tables[0], 1.0))
    distances = np.abs(np.log(table / np.sort(scaled, axis=1))).sum(axis=1)
    return 1 + int(np.argmin(distances))
