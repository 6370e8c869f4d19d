"""Whether a JPEG holds all of its pixels: libjpeg fills what is missing with gray, and only counts a warning.

Pillow does not pass on the count. So a copy gets other bytes behind each part of the scan: where a part is complete, no
decoder looks at the bytes, and both copies show the same picture (ITU-T T.81, B.1.1.5 and E.2.4).
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

_SOS, _EOI, _DRI, _RST = 0xDA, 0xD9, 0xDD, range(0xD0, 0xD8)
_PROGRESSIVE = 0xC2
_FIRST_ARITHMETIC = 0xC9  # this coder leaves out zeros at the end, so the comparison would tell nothing
_FRAMES = {0xC0, 0xC1, _PROGRESSIVE, _FIRST_ARITHMETIC, 0xCA}
_BEHIND_A_SCAN = {_SOS, _EOI, _DRI, 0xC4, 0xDB, 0xDC, 0xFE, *range(0xE0, 0xF0)}
_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([\x01-\xfe])")
_FILLER = bytes((0x5A, 0x93, 0x2D, 0xB4)) * 16
_SURPLUS = 16  # zeros that no picture needs, where they can be replaced and nothing changes
_REDUCED_FROM = 2**22  # pixels; larger pictures are compared at an eighth of their size


@dataclass
class _Parts:
    """What a JPEG says of its scans, and where their parts end."""

    ends: list[int] = field(default_factory=list)
    """Offset behind each part of a scan, up to the end of the picture or up to the first marker out of place."""

    broken: bool = True
    """Whether a marker is out of place, or the end marker is missing."""

    absent: bool = False
    """Whether parts between restart markers are missing, or scans of a progressive picture."""

    arithmetic: bool = False
    """Whether the scans are coded arithmetically."""

    size: tuple[int, int] = (0, 0)
    """Height and width in pixels."""

    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Rows and columns of blocks in a unit, by component."""

    interval: int = 0
    """Units of a scan between two restart markers; 0 for none."""

    precision: dict[tuple[int, int], int] | None = None
    """In a progressive picture, the bits still missing, by component and 0 for the mean or 1 for the details."""

    def units(self, components: bytes) -> int:
        """Return the number of units in a scan of some components."""
        most = [max(factors) for factors in zip(*self.sampling.values(), strict=True)]
        if len(components) == 1 and len(self.sampling) > 1:
            # A scan of a single component counts blocks, and leaves out those outside the picture.
            own = self.sampling.get(components[0], (1, 1))
            blocks = [-(-side * mine // (8 * all_)) for side, mine, all_ in zip(self.size, own, most, strict=True)]
        else:
            blocks = [-(-side // (8 * factor)) for side, factor in zip(self.size, most, strict=True)]
            if len(self.sampling) == 1:
                blocks = [-(-side // 8) for side in self.size]
        return int(blocks[0] * blocks[1])


def count_whole_rows(data: bytes) -> tuple[int, int] | None:
    """Return how many rows of a JPEG are there, and of how many, where pixels are missing; None for a whole picture.

    Raises:
        Exception: Pillow cannot decode the JPEG at all.
    """
    parts = _find_parts(data)
    if not parts.ends or parts.arithmetic:
        return None
    pieces, at = [], 0
    for end in parts.ends:
        pieces += [data[at:end], _FILLER]
        at = end
    behind = _END if parts.broken else data[at:]
    stored = _decode(data[:at] + behind)
    rows = _first_difference(stored, _decode(b"".join((*pieces, behind))))
    # A long run of zeros is a part of the picture only where fewer zeros would change the picture.
    zeros = at - len(data[:at].rstrip(b"\0"))
    if rows is None and zeros >= len(_FILLER):
        fewer = _decode(data[: at - _SURPLUS] + _FILLER + behind)
        rows = len(stored) if _first_difference(stored, fewer) is None else None
    if rows is None and parts.absent:
        rows = 0
    return None if rows is None else (rows * parts.size[0] // len(stored), parts.size[0])


def repaired(data: bytes) -> bytes:
    """Return a JPEG up to the first marker out of place, with an end marker."""
    parts = _find_parts(data)
    return data[: parts.ends[-1]] + _END if parts.broken and parts.ends else data


def _first_difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int | None:
    """Return the first row that differs in two pictures `(H, W)` or `(H, W, C)`; None for equal pictures."""
    different = (one != other).reshape(len(one), -1).any(axis=1)
    return int(different.argmax()) if different.any() else None


def _decode(data: bytes) -> NDArray[np.uint8]:
    """Return the samples of a JPEG, reduced for a large picture."""
    image = JpegImageFile(io.BytesIO(data))
    if image.width * image.height > _REDUCED_FROM:
        image.draft(image.mode, (-(-image.width // 8), -(-image.height // 8)))
    return np.asarray(image)


def _find_parts(data: bytes) -> _Parts:
    """Walk over the markers of a JPEG."""
    parts, at = _Parts(), 2
    while marker := _MARKER.search(data, at):
        kind, at = marker[1][0], marker.end()
        if kind == _EOI:
            parts.broken = False
            break
        size = int.from_bytes(data[at : at + 2], "big")
        content, at = data[at + 2 : at + size], at + size
        if kind == _DRI:
            parts.interval = int.from_bytes(content[:2], "big")
        elif kind in _FRAMES:
            _read_frame(parts, kind, content)
        elif kind == _SOS:
            at = _walk_scan(parts, data, at, content)
            if at < 0:
                break
    if parts.precision is not None:
        parts.absent |= any(parts.precision.values())
    return parts


def _read_frame(parts: _Parts, kind: int, content: bytes) -> None:
    """Note what the header of the frame says."""
    parts.arithmetic = kind >= _FIRST_ARITHMETIC
    parts.size = int.from_bytes(content[1:3], "big"), int.from_bytes(content[3:5], "big")
    for number, factors in zip(content[6::3], content[7::3], strict=False):
        # A factor of 0 is damage, which the decoder refuses.
        parts.sampling[number] = factors & 15 or 1, factors >> 4 or 1
    if kind == _PROGRESSIVE:
        parts.precision = {(number, detail): 1 for number in parts.sampling for detail in (0, 1)}


def _walk_scan(parts: _Parts, data: bytes, at: int, content: bytes) -> int:
    """Note the parts of a scan that begins at an offset; return the offset behind, or -1 for a marker out of place."""
    components = content[1 : 1 + 2 * content[0] : 2] if content else b""
    if parts.precision is not None and len(content) >= 4:
        for number in components:
            parts.precision[number, int(content[-3] > 0)] = content[-1] & 15
    # Restart markers stand between the parts, and count from 0 to 7.
    count = 1
    while (marker := _MARKER.search(data, at)) and parts.interval and marker[1][0] == _RST[(count - 1) % 8]:
        parts.ends.append(marker.start())
        count, at = count + 1, marker.end()
    # Zeros behind the last marker are room that a download reserved; 0xFF at the end is half a marker.
    parts.ends.append(marker.start() if marker else max(at, len(data.rstrip(b"\0").rstrip(b"\xff"))))
    if parts.interval and parts.sampling:
        parts.absent |= count * parts.interval < parts.units(components)
    return marker.start() if marker and marker[1][0] in _BEHIND_A_SCAN else -1
