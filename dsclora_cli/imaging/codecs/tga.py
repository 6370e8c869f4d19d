"""TGA: what the alpha of a file means, which Pillow does not look at."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

_FOOTER, _EXTENSION = 26, 495  # bytes
_MEANINGS = {3: "straight", 4: "premultiplied"}  # 0 to 2: no alpha, or values to be ignored


def read_tga_alpha(file: BinaryIO) -> str:
    """Return "none", "straight" or "premultiplied" (Truevision TGA 2.0, fields 5.6 and 24).

    A file that states 0 attribute bits has no alpha, even with 32 bits a pixel: many programs leave zeros there.
    """
    file.seek(0)
    head = file.read(18)
    file.seek(max(0, file.seek(0, io.SEEK_END) - _FOOTER))
    footer = file.read(_FOOTER)
    if footer[8:].startswith(b"TRUEVISION-XFILE"):
        (place,) = struct.unpack_from("<I", footer)
        file.seek(place)
        extension = file.read(_EXTENSION) if place else b""
        if len(extension) == _EXTENSION and int.from_bytes(extension[:2], "little") >= _EXTENSION:
            return _MEANINGS.get(extension[-1], "none")
    return "straight" if len(head) == 18 and head[17] & 0x0F else "none"
