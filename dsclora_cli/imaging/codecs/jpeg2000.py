"""Still PNG, and JPEG 2000 deeper than 8 bits: of either, Pillow silently cuts 16 bits to 8."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import numpy as np

from dsclora_cli.imaging import isobmff
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.types import Frame, Header, Opened

_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


def open_still_png(file: BinaryIO) -> Opened | None:
    """Header and pixels of a still PNG: palettes as colours, tRNS as alpha, at least 8 bits.

    None for one that Pillow has to read: animated, or interlaced, of which this decoder warns on standard error.
    """
    once, metadata = png.scan(file)
    width, height, bits, kind, interlaced = struct.unpack(">IIBBxxB", once[b"IHDR"])
    if b"acTL" in once or (interlaced and bits < 16):
        return None
    channels = _PNG_CHANNELS[kind] + (b"tRNS" in once)
    depth: np.dtype[np.uint8 | np.uint16] = np.dtype("uint16" if bits == 16 else "uint8")
    return Opened(Header("PNG", width, height, channels, depth, metadata=metadata), partial(_png_frames, file))


def open_deep_jpeg2000(file: BinaryIO) -> Opened | None:
    """Header and pixels of a grey or RGB JPEG 2000 of 9 to 16 bits, stretched to the full 16; None for any other."""
    codestream = isobmff.jpeg2000_codestream(file)
    if not 8 < codestream.bits <= 16 or codestream.signed or codestream.channels > 4:
        return None
    header = Header(
        "JPEG2000",
        codestream.width,
        codestream.height,
        codestream.channels,
        np.dtype(np.uint16),
        metadata=isobmff.read_metadata(file),
    )
    return Opened(header, partial(_jpeg2000_frames, file, codestream.bits))


def _png_frames(file: BinaryIO) -> Iterator[Frame]:
    yield Frame(png.decode(file))


def _jpeg2000_frames(file: BinaryIO, bits: int) -> Iterator[Frame]:
    import imagecodecs

    file.seek(0)
    pixels = imagecodecs.jpeg2k_decode(file.read())
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    yield Frame(pixels if bits == 16 else np.rint(pixels * (65535 / (2**bits - 1))).astype(np.uint16))
