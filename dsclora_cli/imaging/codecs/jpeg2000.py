"""JPEG 2000: more than 8 bits in (Pillow would silently cut them to 8), and lossless JP2 files out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import numpy as np

from dsclora_cli.imaging.isobmff import add_jp2_metadata, read_box_metadata, read_codestream
from dsclora_cli.imaging.types import Frame, Header, Metadata, OpenedFile, Pixels


def open_deep_jpeg2000(file: BinaryIO) -> OpenedFile | None:
    """Open a gray or RGB JPEG 2000 of 9 to 16 bits, stretched to the full range of 16; return None for any other."""
    stream = read_codestream(file)
    if not 8 < stream.bits <= 16 or stream.signed or stream.channels > 4:
        return None
    depth = np.dtype(np.uint16)
    metadata = read_box_metadata(file)
    header = Header("JPEG2000", stream.width, stream.height, stream.channels, depth, metadata=metadata)
    return OpenedFile(header, partial(_decode, file, stream.bits))


def _decode(file: BinaryIO, bits: int) -> Iterator[Frame]:
    """Yield the only frame, `(H, W, C)` uint16."""
    import imagecodecs

    file.seek(0)
    pixels = imagecodecs.jpeg2k_decode(file.read())
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    yield Frame(pixels if bits == 16 else np.rint(pixels * (65535 / (2**bits - 1))).astype(np.uint16))


def write_jpeg2000(target: BinaryIO, pixels: Pixels, metadata: Metadata) -> None:
    """Write a lossless JP2 file of `(H, W, C)` uint8 or uint16, C = 1 to 4."""
    import imagecodecs

    array = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    coded = imagecodecs.jpeg2k_encode(array, level=0, codecformat="jp2", reversible=True)
    # OpenJPEG does not declare the last channel as alpha: other readers would see an extra color.
    alpha = pixels.shape[2] - 1 if pixels.shape[2] in (2, 4) else None
    target.write(add_jp2_metadata(bytes(coded), metadata, alpha))
