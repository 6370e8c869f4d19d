"""PPM and PGM deeper than 8 bits, which Pillow would cut, and writing both depths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import numpy as np

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.color import white_of
from dsclora_cli.imaging.types import Frame, Header, Opened, Pixels

_TOKEN = rb"(?:\s|#[^\n]*\n)+(\d+)"
_HEAD = re.compile(rb"P([2356])" + _TOKEN * 3 + rb"(?:\s*#[^\n]*)?\s")
_COMMENT = re.compile(rb"#[^\n]*")


def open_deep_pnm(file: BinaryIO) -> Opened | None:
    """Header and pixels of a PGM or PPM file with more than 8 bits, stretched to the full 16; None for any other."""
    file.seek(0)
    match = _HEAD.match(file.read(4096))
    if match is None:
        return None
    kind, width, height, white = (int(group) for group in match.groups())
    if not 255 < white < 65536:
        return None
    header = Header("PPM", width, height, 3 if kind in (3, 6) else 1, np.dtype(np.uint16))
    return Opened(header, partial(_frames, file, match.end(), header, white, kind in (2, 3)))


def write_pnm(target: BinaryIO, pixels: Pixels) -> None:
    """Write `(H, W, 1 | 3)` uint8 or uint16 as binary PGM or PPM."""
    height, width, channels = pixels.shape
    kind = 5 if channels == 1 else 6
    target.write(b"P%d\n%d %d\n%d\n" % (kind, width, height, white_of(pixels.dtype)))
    target.write(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).tobytes())


def _frames(file: BinaryIO, start: int, header: Header, white: int, text: bool) -> Iterator[Frame]:
    file.seek(start)
    count = header.width * header.height * header.channels
    if text:
        values = np.array(_COMMENT.sub(b"", file.read()).split()[:count], dtype=np.uint32)
    else:
        data = file.read(2 * count)
        values = np.frombuffer(data, ">u2", len(data) // 2).astype(np.uint32)
    if values.size < count:
        raise ImageError(f"the file is truncated: {values.size} of {count} values are there")
    full = ((values * 65535 + white // 2) // white).astype(np.uint16)
    yield Frame(full.reshape(header.height, header.width, header.channels))
