"""PBM, PGM and PPM: more than 8 bits in (Pillow would cut them to 8), and 8 or 16 bits out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import numpy as np

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.color import white_level
from dsclora_cli.imaging.types import Frame, Header, OpenedFile, Pixels

# Magic number, width, height and white level, separated by space and comments.
_TOKEN = rb"(?:\s|#[^\n]*\n)+(\d+)"
_HEAD = re.compile(rb"P([2356])" + _TOKEN * 3 + rb"(?:\s*#[^\n]*)?\s")
_COMMENT = re.compile(rb"#[^\n]*")


def open_deep_pnm(file: BinaryIO) -> OpenedFile | None:
    """Open a PGM or PPM of more than 8 bits, stretched to the full range of 16; return None for any other."""
    file.seek(0)
    match = _HEAD.match(file.read(4096))
    if match is None:
        return None
    kind, width, height, white = (int(group) for group in match.groups())
    if not 255 < white < 65536:
        return None
    channels = 3 if kind in (3, 6) else 1
    notes = further_picture(file, match.end() + 2 * width * height * channels) if kind in (5, 6) else ()
    header = Header("PPM", width, height, channels, np.dtype(np.uint16), notes=notes)
    return OpenedFile(header, partial(_decode, file, match.end(), header, white, kind in (2, 3)))


def further_picture(file: BinaryIO, end: int) -> tuple[str, ...]:
    """Return a sentence for the user where another picture begins at offset `end`, behind the first."""
    file.seek(end)
    follows = re.match(rb"\s*P[1-7]\s", file.read(16))
    return ("only the first picture in this PPM was read",) if follows else ()


def _decode(file: BinaryIO, start: int, header: Header, white: int, is_text: bool) -> Iterator[Frame]:
    """Yield the only frame, `(H, W, C)` uint16; `start` is the offset of the values, decimal text or 16-bit binary."""
    file.seek(start)
    count = header.width * header.height * header.channels
    if is_text:
        values = np.array(_COMMENT.sub(b"", file.read()).split()[:count], dtype=np.uint32)
    else:
        data = file.read(2 * count)
        values = np.frombuffer(data, ">u2", len(data) // 2).astype(np.uint32)
    if values.size < count:
        raise ImageError(f"the file is truncated: only {values.size} of {count} values are present")
    full = ((values * 65535 + white // 2) // white).astype(np.uint16)
    yield Frame(full.reshape(header.height, header.width, header.channels))


def write_pnm(target: BinaryIO, pixels: Pixels) -> None:
    """Write `(H, W, 1)` as binary PGM or `(H, W, 3)` as binary PPM, uint8 or uint16."""
    height, width, channels = pixels.shape
    kind = 5 if channels == 1 else 6
    target.write(b"P%d\n%d %d\n%d\n" % (kind, width, height, white_level(pixels.dtype)))
    target.write(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).tobytes())
