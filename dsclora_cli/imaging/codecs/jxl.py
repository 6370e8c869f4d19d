"""JPEG XL: facts in the header of the codestream, of which the decoder tells only some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from dsclora_cli.imaging.color import pixels_to_image
from dsclora_cli.imaging.isobmff import iter_boxes

_SIGNATURE = b"\xff\x0a"
_ENOUGH = 4096  # bytes of a codestream that hold the facts
_RATIOS = ((0, 0), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA, _SPOT, _COLOR_FILTER, _BLACK = 0, 2, 5, 4  # kinds of extra channels
_EXTRA = {1: "depth", _SPOT: "spot colour", 3: "selection", _BLACK: "black ink", _COLOR_FILTER: "sensor", 6: "heat"}


@dataclass(frozen=True)
class JxlFacts:
    """Facts about a JPEG XL picture (ISO/IEC 18181-1, Annex D)."""

    width: int
    """Pixels as stored, as `height`."""

    height: int

    orientation: int = 1
    """EXIF orientation that a decoder applies."""

    animated: bool = False

    bits: int = 8
    """Bits of a color sample."""

    floats: bool = False
    """Whether samples are floating-point numbers."""

    extra: tuple[str, ...] = ()
    """Kinds of the extra channels, alpha apart."""

    cmyk: bool = False

    alphas: int = 0
    """Number of alpha channels."""

    premultiplied: bool = False
    """Whether color is multiplied by the first alpha."""


def read_jxl_facts(file: BinaryIO) -> JxlFacts | None:
    """Return the facts in the header of a JPEG XL, bare or in boxes; None for damage."""
    bits = _Bits(_read_codestream(file))
    if bits.take(16) != int.from_bytes(_SIGNATURE, "little"):
        return None
    width, height = _read_size(bits)
    fields: dict[str, int] = {}
    if not bits.take(1):  # else: 8 bits, nothing special
        _read_details(bits, fields)
    if bits.at > bits.length:
        return None
    return JxlFacts(width, height, **fields)  # type: ignore[arg-type]


def read_first_frame(file: BinaryIO) -> Image.Image:
    """Return the first frame of an animation, turned, with 8 bits: the plugin returns the last one."""
    import imagecodecs

    file.seek(0)
    array = imagecodecs.jpegxl_decode(file.read(), index=0)
    if array.dtype.kind == "f":
        array = np.rint(np.clip(array, 0, 1) * 255)
    elif array.dtype == np.uint16:
        array = np.rint(array / 257)
    return pixels_to_image(array.astype(np.uint8).reshape(*array.shape[:2], -1))


def _read_codestream(file: BinaryIO) -> bytes:
    """Return the first bytes of the codestream."""
    file.seek(0)
    if file.read(2) == _SIGNATURE:
        file.seek(0)
        return file.read(_ENOUGH)
    parts = b""
    for box in iter_boxes(file):
        # A codestream in parts has 4 bytes of count before each part; the first part may be tiny.
        if box.kind in (b"jxlc", b"jxlp") and len(parts) < _ENOUGH:
            file.seek(box.start + (4 if box.kind == b"jxlp" else 0))
            parts += file.read(max(0, min(box.end - file.tell(), _ENOUGH)))
    return parts


class _Bits:
    """Bits of a codestream, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self.length, self.at = int.from_bytes(data, "little"), 8 * len(data), 0

    def take(self, count: int) -> int:
        """Return the next bits as a number."""
        value = self._value >> self.at & (1 << count) - 1
        self.at += count
        return value

    def choose(self, *choices: tuple[int, int]) -> int:
        """Return a number that is coded by one of four choices: a first value, and bits to add."""
        first, count = choices[self.take(2)]
        return first + self.take(count)

    def kind(self) -> int:
        """Return a number of an enumeration."""
        return self.choose((0, 0), (1, 0), (2, 4), (18, 6))


def _read_size(bits: _Bits) -> tuple[int, int]:
    """Return width and height."""
    small = bits.take(1)

    def side() -> int:
        return (bits.take(5) + 1) * 8 if small else bits.choose((1, 9), (1, 13), (1, 18), (1, 30))

    height = side()
    across, down = _RATIOS[bits.take(3)]
    return (height * across // down if down else side()), height


def _read_details(bits: _Bits, fields: dict[str, int]) -> None:
    """Read what stands behind the size into the fields of `JxlFacts`."""
    if bits.take(1):
        fields["orientation"] = bits.take(3) + 1
        if bits.take(1):
            _read_size(bits)  # a size for display
        if bits.take(1):
            _skip_preview(bits)
        fields["animated"] = bits.take(1)
        if fields["animated"]:
            bits.choose((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.choose((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.choose((0, 0), (0, 3), (0, 16), (0, 32))
            bits.take(1)
    fields["bits"], fields["floats"] = _read_depth(bits)
    bits.take(1)
    kinds = []
    for _ in range(bits.choose((0, 0), (1, 0), (2, 4), (1, 12))):
        kind, premultiplied = _read_extra_channel(bits)
        if kind == _ALPHA and _ALPHA not in kinds:
            fields["premultiplied"] = premultiplied
        kinds.append(kind)
        if bits.at > bits.length:
            return
    fields |= {"alphas": kinds.count(_ALPHA), "cmyk": _BLACK in kinds}
    fields["extra"] = tuple(_EXTRA.get(kind, "other") for kind in kinds if kind != _ALPHA)  # type: ignore[assignment]


def _read_depth(bits: _Bits) -> tuple[int, int]:
    """Return the bits of a sample, and 1 for floating point."""
    if not bits.take(1):
        return bits.choose((8, 0), (10, 0), (12, 0), (1, 6)), 0
    depth = bits.choose((32, 0), (16, 0), (24, 0), (1, 6))
    bits.take(4)
    return depth, 1


def _read_extra_channel(bits: _Bits) -> tuple[int, int]:
    """Return the kind of an extra channel, and 1 where color is multiplied by the channel."""
    if bits.take(1):
        return _ALPHA, 0
    kind = bits.kind()
    _read_depth(bits)
    bits.choose((0, 0), (3, 0), (4, 0), (1, 3))
    name = bits.choose((0, 0), (0, 4), (16, 5), (48, 10))
    bits.take(8 * name)
    if kind == _SPOT:
        bits.take(4 * 16)
    elif kind == _COLOR_FILTER:
        bits.choose((1, 0), (0, 2), (3, 4), (19, 8))
    return kind, bits.take(1) if kind == _ALPHA else 0


def _skip_preview(bits: _Bits) -> None:
    by_eight = bits.take(1)

    def side() -> None:
        if by_eight:
            bits.choose((16, 0), (32, 0), (1, 5), (33, 9))
        else:
            bits.choose((1, 6), (65, 8), (321, 10), (1345, 12))

    side()
    if not bits.take(3):
        side()
