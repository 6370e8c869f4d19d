"""Whole files of kinds that no decoder here reads: told apart from damaged files."""

from __future__ import annotations

import io
import re
from typing import BinaryIO

from dsclora_cli.errors import ImageError

CONVERT = "convert it to PNG or TIFF with another program"

_WORDS = re.compile(
    r"unsupported|not supported|not implemented|unimplemented|cannot handle|unknown (pixel|image) mode|no codec"
    r"|unrecognized (raw )?mode|requires the '|does not support",
    re.IGNORECASE,
)
# Kinds of frames by the last digits of the marker (ITU-T T.81, table B.1); others are JPEG as everyone knows it.
_FRAMES = {
    0xC3: "lossless JPEG",
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "hierarchical JPEG",
    0xCB: "lossless JPEG",
    0xCD: "hierarchical JPEG",
    0xCE: "hierarchical JPEG",
    0xCF: "hierarchical JPEG",
    0xF7: "JPEG-LS",
}
_USUAL_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_MAX_SEGMENTS = 4096


def refuse_unsupported(file: BinaryIO, name: str) -> None:
    """Raise ImageError for a file of format `name` whose header tells of a kind that no decoder reads."""
    kind = None
    if name == "JPEG":
        kind = _unusual_jpeg(file)
    elif name == "PNG":
        file.seek(12)
        # Xcode writes PNG without zlib's header, and with colors in another order, into apps.
        kind = "Apple's own kind of PNG (CgBI)" if file.read(4) == b"CgBI" else None
    if kind:
        raise ImageError(f"{kind} is not supported", CONVERT)


def says_unsupported(error: Exception) -> bool:
    """Return whether a decoder's error is about an unsupported file, and not about damage."""
    return isinstance(error, NotImplementedError) or _WORDS.search(str(error)) is not None


def _unusual_jpeg(file: BinaryIO) -> str | None:
    """Return the kind of a JPEG that libjpeg does not decode to 8 bits; None for the usual kinds."""
    file.seek(2)
    for _ in range(_MAX_SEGMENTS):
        head = file.read(4)
        while head[:2] == b"\xff\xff":  # fill bytes
            head = head[1:] + file.read(1)
        if len(head) < 4 or head[0] != 0xFF:
            return None
        kind, size = head[1], int.from_bytes(head[2:], "big")
        if kind in _FRAMES:
            return _FRAMES[kind]
        if kind in _USUAL_FRAMES:
            frame = file.read(6)
            bits, channels = (frame[0], frame[5]) if len(frame) == 6 else (8, 3)
            if bits != 8:
                return f"JPEG with {bits} bits per channel"
            return f"JPEG with {channels} channels" if channels not in (1, 3, 4) else None
        file.seek(size - 2, io.SEEK_CUR)
    return None
