"""PBM, PGM, PPM and PFM: text, uncommon depths and floats in, and 8 or 16 bits out.

Pillow would cut more than 8 bits to 8, and would clip samples above the maximum that the file states.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

import numpy as np

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.color import white_level
from dsclora_cli.imaging.types import Frame, Header, LossNote, Metadata, OpenedFile, Pixels

# Magic number, width, height and white level, separated by space and comments.
_TOKEN = rb"(?:\s|#[^\n]*\n)+(\d+)"
_HEAD = re.compile(rb"P([2356])" + _TOKEN * 3 + rb"(?:\s*#[^\n]*)?\s")
_FLOAT_HEAD = re.compile(rb"P([fF])" + _TOKEN * 2 + rb"(?:\s|#[^\n]*\n)+([-+]?\d[\d.eE+-]{,20}|[-+]?\.\d+)\s")
_ANY_HEAD = re.compile(rb"P[1-6fF]" + _TOKEN * 2 + rb"(?:\s|#[^\n]*\n)*")
_LONGEST_HEAD = 2**16
_BINARY = (5, 6)
_COMMENT = re.compile(rb"#[^\n]*")


def open_pnm(file: BinaryIO, salvage: bool = False) -> OpenedFile | None:
    """Open a PGM or PPM stretched to the full range of 8 or 16 bits; None for a file that Pillow reads as well.

    Pillow reads bitmaps, and binary files whose maximum is 255, so that no sample can be above. `salvage` makes missing
    samples 0, and samples above the maximum white.
    """
    file.seek(0)
    head = file.read(4096)
    if floats := _FLOAT_HEAD.match(head):
        return _open_floats(file, floats, salvage)
    match = _HEAD.match(head)
    if match is None:
        return None
    kind, width, height, white = (int(group) for group in match.groups())
    if not 0 < white < 65536 or (kind in _BINARY and white == 255):
        return None
    channels = 3 if kind in (3, 6) else 1
    depth: np.dtype[np.uint8 | np.uint16] = np.dtype("uint16" if white > 255 else "uint8")
    size = width * height * channels * depth.itemsize
    notes = further_picture(file, match.end() + size) if kind in _BINARY and size < 2**60 else ()
    metadata = Metadata(text=read_pnm_comments(file))
    header = Header("PPM", width, height, channels, depth, metadata=metadata, notes=notes)
    return OpenedFile(header, partial(_decode, file, match.end(), header, white, kind not in _BINARY, salvage))


def _open_floats(file: BinaryIO, head: re.Match[bytes], salvage: bool) -> OpenedFile:
    """Open a PFM, `head` being the match of `_FLOAT_HEAD`: floats, rows from bottom to top."""
    try:
        width, height, scale = int(head[2]), int(head[3]), float(head[4])
    except ValueError as error:
        raise ImageError(f"the file is damaged: the PFM states the scale {head[4].decode()}") from error
    shape = height, width, 3 if head[1] == b"F" else 1
    notes = () if abs(scale) == 1 else (f"the scale that the PFM states, {abs(scale):g}, was left out",)
    metadata = Metadata(text=read_pnm_comments(file))
    header = Header("PPM", width, height, shape[2], np.dtype(np.float32), metadata=metadata, notes=notes)

    def decode() -> Iterator[Frame]:
        file.seek(head.end())
        count, note = math.prod(shape), None
        data = file.read(4 * count)
        if len(data) < 4 * count:
            there = len(data) // 4
            if not salvage:
                raise ImageError(f"the file is truncated: only {there} of {count} values are present")
            data, note = data.ljust(4 * count, b"\0"), f"salvaged: {there} of {count} values"
        values = np.frombuffer(data, "<f4" if scale < 0 else ">f4").reshape(shape)[::-1]
        if not np.isfinite(values).all():
            raise ImageError("the PFM holds NaN or infinity", "replace them with numbers")
        yield Frame(np.ascontiguousarray(values, np.float32), note=note)

    return OpenedFile(header, decode)


def read_pnm_comments(file: BinaryIO) -> tuple[tuple[str, str], ...]:
    """Return the comments in the head of a file, each with the keyword "comment"."""
    file.seek(0)
    head = _ANY_HEAD.match(file.read(_LONGEST_HEAD))
    comments = _COMMENT.findall(head[0]) if head else []
    return tuple(("comment", text[1:].strip().decode("utf-8", "surrogateescape")) for text in comments)


def further_picture(file: BinaryIO, end: int) -> tuple[LossNote, ...]:
    """Return a sentence for the user where another picture begins at offset `end`, behind the first."""
    file.seek(end)
    follows = re.match(rb"\s*P[1-7]\s", file.read(16))
    return (LossNote("only the first picture in this PPM was read"),) if follows else ()


def _decode(file: BinaryIO, start: int, header: Header, white: int, is_text: bool, salvage: bool) -> Iterator[Frame]:
    """Yield the only frame, `(H, W, C)` uint8 or uint16.

    `start` is the offset of the values, decimal text or binary.
    """
    file.seek(start)
    count = header.width * header.height * header.channels
    if is_text:
        text = _COMMENT.sub(b"", file.read()).split(maxsplit=count)[:count]
        try:
            values = np.array(text, dtype=np.int64)
        except (ValueError, OverflowError) as error:  # also for thousands of digits
            raise ImageError("the file is damaged: a value is no whole number of a usual size") from error
    else:
        size = header.dtype.itemsize
        data = file.read(size * count)
        values = np.frombuffer(data, f">u{size}", len(data) // size).astype(np.uint32)
    note = None
    if values.size < count:
        if not salvage:
            raise ImageError(f"the file is truncated: only {values.size} of {count} values are present")
        note = f"salvaged: {values.size} of {count} values"
        values = np.pad(values, (0, count - values.size))
    above = int(((values > white) | (values < 0)).sum())
    if above:
        if not salvage:
            raise ImageError(f"the file is damaged: {above} values are above the stated maximum of {white}")
        note = f"salvaged: {above} of {count} values were above the stated maximum of {white}"
        values = np.clip(values, 0, white)
    most = int(white_level(header.dtype))
    full = ((values.astype(np.uint32) * most + white // 2) // white).astype(header.dtype)
    yield Frame(full.reshape(header.height, header.width, header.channels), note=note)


def write_pnm(target: BinaryIO, pixels: Pixels, metadata: Metadata) -> None:
    """Write `(H, W, 1)` as binary PGM or `(H, W, 3)` as binary PPM, uint8 or uint16, with comments."""
    height, width, channels = pixels.shape
    kind = 5 if channels == 1 else 6
    lines = [line for text in metadata.comments for line in re.split(rb"[\r\n]+", text)]
    comments = b"".join(b"# %s\n" % line for line in lines)
    target.write(b"P%d\n%s%d %d\n%d\n" % (kind, comments, width, height, white_level(pixels.dtype)))
    target.write(np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).tobytes())
