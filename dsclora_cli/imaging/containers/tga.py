"""TGA: the meaning of alpha, texts, gamma and the shape of pixels, all unknown to Pillow."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from dsclora_cli.imaging.metadata import pixel_density
from dsclora_cli.imaging.types import Metadata

_FOOTER, _EXTENSION = 26, 495  # bytes
_MEANINGS = {3: "straight", 4: "premultiplied"}  # 0 to 2: no alpha, or values to be ignored
_TEXTS = {"Author": (2, 41), "Job": (379, 41), "Software": (426, 41)}  # offset and length in the extension
_COMMENT_LINES = [(43 + 81 * line, 81) for line in range(4)]
_GAMMA = 2.2  # nearly that of sRGB


def read_tga_alpha(file: BinaryIO) -> str:
    """Return "none", "straight" or "premultiplied" (Truevision TGA 2.0, fields 5.6 and 24).

    A file that states 0 attribute bits has no alpha, even with 32 bits a pixel: many programs leave zeros there.
    """
    head, extension, _ = _read_parts(file)
    if extension:
        return _MEANINGS.get(extension[-1], "none")
    return "straight" if len(head) == 18 and head[17] & 0x0F else "none"


def read_tga_metadata(file: BinaryIO) -> Metadata:
    """Return texts and the shape of the pixels, and a note about gamma and other unread parts."""
    head, extension, developer = _read_parts(file)
    file.seek(18)
    texts = [("comment", _text(file.read(head[0] if head else 0)))]
    notes = ["the developer area of the TGA was left out"] if developer else []
    density = None
    if extension:
        lines = [_text(extension[at : at + length]) for at, length in _COMMENT_LINES]
        texts += [("comment", "\n".join(line for line in lines if line))]
        texts += [(key, _text(extension[at : at + length])) for key, (at, length) in _TEXTS.items()]
        wide, high, top, bottom, table = struct.unpack_from("<4HI", extension, 474)
        density = pixel_density(high, wide)
        if top and bottom and abs(top / bottom - _GAMMA) > _GAMMA / 20:
            notes.append(f"the gamma that the TGA states, {top / bottom:.3g}, was left out: sRGB is assumed")
        if table:
            notes.append("the colour correction table of the TGA was left out")
    return Metadata(text=tuple((key, text) for key, text in texts if text), density=density, notes=tuple(notes))


def _read_parts(file: BinaryIO) -> tuple[bytes, bytes, bool]:
    """Return the head, the extension area (empty without one), and whether there is a developer area."""
    file.seek(0)
    head = file.read(18)
    file.seek(max(0, file.seek(0, io.SEEK_END) - _FOOTER))
    footer = file.read(_FOOTER)
    if not footer[8:].startswith(b"TRUEVISION-XFILE"):
        return head, b"", False
    place, developer = struct.unpack_from("<II", footer)
    file.seek(place)
    extension = file.read(_EXTENSION) if place else b""
    whole = len(extension) == _EXTENSION and int.from_bytes(extension[:2], "little") >= _EXTENSION
    return head, extension if whole else b"", bool(developer)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].strip().decode("utf-8", "surrogateescape")
