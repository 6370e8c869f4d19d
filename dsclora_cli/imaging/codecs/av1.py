"""AV1: read the headers of a still picture up to the quantizer (AV1 Bitstream & Decoding Process Specification)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6  # kinds of OBUs, the units of an AV1 stream
_KEY_FRAME = 0
_BY_FRAME = 2  # each frame says whether a tool is used
_SRGB = (1, 13, 0)  # numbers of primaries, transfer and matrix that say all of the format
_SEGMENT_BITS = (9, 7, 7, 7, 7, 3, 0, 0)  # of the features of a segment, with sign
_MOST = 1024  # bytes of an OBU that are looked at; the longest headers take fewer up to the quantizer
_MAX_OBUS = 64
_CONFIGURATION = 4  # bytes of an "av1C" box before the OBUs


@dataclass(frozen=True)
class Quantizer:
    """Quantizer of a frame."""

    index: int
    """`base_q_idx`: 0 (lossless) to 255 (coarsest)."""

    has_iq_tools: bool
    """True for matrices together with other quantizers for chroma or some blocks: libaom with the option tune=iq."""


def read_quantizer(file: BinaryIO, start: int, length: int, configuration: bytes) -> Quantizer:
    """Return the quantizer of the only frame of a coded picture.

    Args:
        file: The file.
        start: Offset of the coded picture in the file.
        length: Bytes of the coded picture, as the file states.
        configuration: Content of the box "av1C" of the picture; a sequence header may stand there alone.

    Raises:
        EOFError: A header is cut.
        ValueError: The picture has no frame or several, or a frame of another kind than a shown key frame.
    """
    sequence, found = None, None
    before = _iter_obus(io.BytesIO(configuration), _CONFIGURATION, len(configuration) - _CONFIGURATION)
    for obu in (*before, *_iter_obus(file, start, length)):
        if obu.kind == _SEQUENCE_HEADER:
            sequence = _read_sequence(obu.bits)
        elif obu.kind in (_FRAME_HEADER, _FRAME):
            if sequence is None or found is not None:
                raise ValueError("no sequence header, or a second frame")
            found = _read_frame(obu.bits, sequence, obu.layers)
    if found is None:
        raise ValueError("no frame")
    return found


@dataclass(frozen=True)
class _Obu:
    kind: int
    """Number of the kind, such as `_FRAME`."""

    layers: int
    """Bits of the temporal and of the spatial layer in the number of an operating point."""

    bits: _Bits
    """Content, the first `_MOST` bytes."""


def _iter_obus(file: BinaryIO, start: int, length: int) -> Iterator[_Obu]:
    """Yield the units of an AV1 stream in a part of a file (AV1, 5.3); stop at the end of a cut file."""
    end = min(start + length, file.seek(0, io.SEEK_END))
    for _ in range(_MAX_OBUS):
        if start >= end:
            return
        file.seek(start)
        data = file.read(min(_MOST, end - start))
        bits = _Bits(data)
        bits.skip(1)
        kind, has_layers, has_size = bits.number(4), bits.flag(), bits.flag()
        bits.skip(1)
        temporal, spatial = (bits.number(3), bits.number(2)) if has_layers else (0, 0)
        bits.skip(3 * has_layers)
        # Only the last unit may leave its size out.
        size = bits.leb128() if has_size else end - start
        at = bits.at // 8
        yield _Obu(kind, 1 << temporal | 1 << spatial + 8, _Bits(data[at : at + size]))
        start += at + size


@dataclass(frozen=True)
class _DecoderModel:
    """Facts about the timing of a stream, which a frame header depends on."""

    presentation_bits: int = 0
    """Bits of the time when a frame is shown, 0 for none."""

    removal_bits: int = 0
    """Bits of the time when a frame leaves the decoder's buffer."""

    points: tuple[int, ...] | None = None
    """Layers of the operating points that have such times; None for a stream without."""


@dataclass(frozen=True)
class _Tools:
    """Facts about coding tools, which a frame header depends on."""

    screen: int = _BY_FRAME
    """Tools for screen content: 0, 1 or `_BY_FRAME`."""

    integer_vectors: int = _BY_FRAME
    """Vectors of whole pixels: 0, 1 or `_BY_FRAME`."""

    order_bits: int = 0
    """Bits of the place of a frame in the order of showing."""


@dataclass(frozen=True)
class _Sequence:
    """Facts of a sequence header, which a frame header depends on (AV1, 5.5.1)."""

    is_reduced: bool
    """True for the short headers of still pictures."""

    model: _DecoderModel
    size_bits: tuple[int, int]
    size: tuple[int, int]
    """Width and height in pixels."""

    id_bits: int
    large_blocks: bool
    """True for superblocks of 128 x 128 pixels, False for 64 x 64."""

    tools: _Tools
    superres: bool
    is_gray: bool
    separate_chroma: bool
    """True where the two chroma channels may have different quantizers."""


def _read_sequence(bits: _Bits) -> _Sequence:
    """Read a sequence header up to the colors. Raises EOFError."""
    profile = bits.number(3)
    bits.skip(1)  # still picture
    is_reduced = bits.flag()
    if is_reduced:
        bits.skip(5)  # level
    model = _DecoderModel() if is_reduced else _read_decoder_model(bits)
    size_bits = bits.number(4) + 1, bits.number(4) + 1
    size = bits.number(size_bits[0]) + 1, bits.number(size_bits[1]) + 1
    id_bits = 0 if is_reduced or not bits.flag() else bits.number(4) + 2 + bits.number(3) + 1
    large_blocks = bits.flag()
    bits.skip(2)  # filters of intra prediction
    tools = _Tools() if is_reduced else _read_tools(bits)
    superres = bits.flag()
    bits.skip(2)  # filters behind the decoder
    colors = _read_colors(bits, profile)
    return _Sequence(is_reduced, model, size_bits, size, id_bits, large_blocks, tools, superres, *colors)


def _read_decoder_model(bits: _Bits) -> _DecoderModel:
    """Read timing and operating points (AV1, 5.5.1 to 5.5.5)."""
    delay_bits = removal_bits = presentation_bits = 0
    has_model = False
    if bits.flag():
        bits.skip(2 * 32)
        are_even = bits.flag()
        if are_even:
            bits.skip_uvlc()
        has_model = bits.flag()
        if has_model:
            delay_bits = bits.number(5) + 1
            bits.skip(32)
            removal_bits, presentation_bits = bits.number(5) + 1, bits.number(5) + 1
            presentation_bits = 0 if are_even else presentation_bits
    has_delays, points = bits.flag(), []
    for _ in range(bits.number(5) + 1):
        layers = bits.number(12)
        if bits.number(5) > 7:
            bits.skip(1)  # tier, of the higher levels only
        if has_model and bits.flag():
            bits.skip(2 * delay_bits + 1)
            points.append(layers)
        if has_delays and bits.flag():
            bits.skip(4)
    return _DecoderModel(presentation_bits, removal_bits, tuple(points) if has_model else None)


def _read_tools(bits: _Bits) -> _Tools:
    """Read which tools are enabled, from those for motion on (AV1, 5.5.1)."""
    bits.skip(4)  # compounds, warped motion, filters
    has_order = bits.flag()
    bits.skip(2 * has_order)
    screen = _BY_FRAME if bits.flag() else bits.number(1)
    integer_vectors = _BY_FRAME if not screen or bits.flag() else bits.number(1)
    return _Tools(screen, integer_vectors, bits.number(3) + 1 if has_order else 0)


def _read_colors(bits: _Bits, profile: int) -> tuple[bool, bool]:
    """Read the format of the pixels; return `is_gray` and `separate_chroma` (AV1, 5.5.2)."""
    is_deep = bits.flag()
    has_twelve = profile == 2 and is_deep and bits.flag()
    is_gray = profile != 1 and bits.flag()
    numbers = (bits.number(8), bits.number(8), bits.number(8)) if bits.flag() else None
    if numbers != _SRGB or is_gray:
        bits.skip(1)  # range
        # The place of chroma is stated for 4:2:0: always in profile 0, never in 1, and in 2 for some of 12 bits.
        if not is_gray and (profile == 0 or (has_twelve and bits.flag() and bits.flag())):
            bits.skip(2)
    return is_gray, not is_gray and bits.flag()


def _read_frame(bits: _Bits, sequence: _Sequence, layers: int) -> Quantizer:
    """Read the header of a shown key frame up to the quantizer (AV1, 5.9.2).

    Raises:
        EOFError: The header is cut.
        ValueError: The frame is of another kind.
    """
    if not sequence.is_reduced:
        if bits.flag() or bits.number(2) != _KEY_FRAME or not bits.flag():
            raise ValueError("not a shown key frame")
        bits.skip(sequence.model.presentation_bits)
    # The specification calls the flag `disable_cdf_update`: a second flag about statistics follows only without it.
    keeps_statistics = bits.flag()
    has_screen_tools = bits.number(1) if sequence.tools.screen == _BY_FRAME else sequence.tools.screen
    if has_screen_tools and sequence.tools.integer_vectors == _BY_FRAME:
        bits.skip(1)
    bits.skip(sequence.id_bits)
    has_size = not sequence.is_reduced and bits.flag()
    bits.skip(sequence.tools.order_bits)
    # A shown key frame depends on no other frame, so no references are stated here.
    _skip_removal_times(bits, sequence.model, layers)
    width, height = (bits.number(each) + 1 for each in sequence.size_bits) if has_size else sequence.size
    coded_width = _read_coded_width(bits, width) if sequence.superres else width
    if bits.flag():
        bits.skip(2 * 16)  # size for display
    if has_screen_tools and coded_width == width:
        bits.skip(1)  # copies inside the picture
    if not (sequence.is_reduced or keeps_statistics):
        bits.skip(1)
    _skip_tiles(bits, coded_width, height, sequence.large_blocks)
    return _read_quantization(bits, sequence)


def _skip_removal_times(bits: _Bits, model: _DecoderModel, layers: int) -> None:
    """Pass over the times when the frame leaves the buffer, a time for each operating point of the frame's layers."""
    if model.points is None or not bits.flag():
        return
    # A point that names no layers is for all of them.
    timed = [point for point in model.points if not point or point & layers == layers]
    bits.skip(len(timed) * model.removal_bits)


def _read_coded_width(bits: _Bits, width: int) -> int:
    """Return the width of the coded pixels, which decoders enlarge to `width` ("superres", AV1, 5.9.8)."""
    if not bits.flag():
        return width
    eighths = bits.number(3) + 9
    return (width * 8 + eighths // 2) // eighths


def _read_quantization(bits: _Bits, sequence: _Sequence) -> Quantizer:
    """Read the quantizer of a frame, and how quantizers vary (AV1, 5.9.12, 5.9.14 and 5.9.17)."""
    index = bits.number(8)
    _read_differences(bits, 1)  # of luma
    differs = False
    if not sequence.is_gray:
        differs = _read_differences(bits, 4 if sequence.separate_chroma and bits.flag() else 2)
    # A level for luma and a level for chroma, or a level for each chroma channel.
    has_matrices = bits.flag()
    if has_matrices:
        bits.skip(12 if sequence.separate_chroma else 8)
    if bits.flag():  # segments; a key frame states the features of all eight
        for width in 8 * _SEGMENT_BITS:
            if bits.flag():
                bits.skip(width)
    varies = index > 0 and bits.flag()
    # Noise needs no other quantizers for blocks, and gray has no chroma.
    return Quantizer(index, has_matrices and (varies or differs))


def _read_differences(bits: _Bits, count: int) -> bool:
    """Pass over differences to the quantizer of the frame; return whether there are any."""
    found = False
    for _ in range(count):
        if bits.flag():
            bits.skip(7)
            found = True
    return found


def _skip_tiles(bits: _Bits, width: int, height: int, large_blocks: bool) -> None:
    """Read how a frame is divided into tiles (AV1, 5.9.15)."""
    edge = 128 if large_blocks else 64
    # How many bits follow depends on the size: a tile has at most 4,096 columns and 4,096 x 2,304 pixels.
    # The specification counts in units of 4 pixels, an even number of them.
    columns, rows = (-(-(-(-side // 8) * 8) // edge) for side in (width, height))
    widest, largest = 4096 // edge, 4096 * 2304 // edge**2
    least_columns = _log2(widest, columns)
    least = max(least_columns, _log2(largest, rows * columns))
    if bits.flag():
        columns_log2 = _read_increments(bits, least_columns, _log2(1, min(columns, 64)))
        rows_log2 = _read_increments(bits, max(least - columns_log2, 0), _log2(1, min(rows, 64)))
    else:
        widths = _read_sizes(bits, columns, widest)
        area = rows * columns >> least + 1 if least else rows * columns
        heights = _read_sizes(bits, rows, max(area // max(widths), 1))
        columns_log2, rows_log2 = _log2(1, len(widths)), _log2(1, len(heights))
    if columns_log2 or rows_log2:
        bits.skip(columns_log2 + rows_log2 + 2)


def _read_increments(bits: _Bits, least: int, most: int) -> int:
    """Return a number that starts at `least` and grows with each set flag, at most up to `most`."""
    while least < most and bits.flag():
        least += 1
    return least


def _read_sizes(bits: _Bits, whole: int, most: int) -> list[int]:
    """Return the widths or heights of tiles of different size, in superblocks."""
    sizes: list[int] = []
    while whole > 0:
        sizes.append(bits.below(min(whole, most)) + 1)
        whole -= sizes[-1]
    return sizes


def _log2(unit: int, target: int) -> int:
    """Return the smallest power of 2 by which `unit` grows to `target` or more."""
    power = 0
    while unit << power < target:
        power += 1
    return power


class _Bits:
    """Reader of the numbers in AV1 headers (AV1, 4.10); every method raises EOFError behind the end of the data."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._length = 8 * len(data)
        self.at = 0
        """Bits read so far."""

    def number(self, bits: int) -> int:
        """Return an unsigned number of `bits` bits, the highest first."""
        self.skip(bits)
        return self._value >> self._length - self.at & (1 << bits) - 1

    def flag(self) -> bool:
        """Return the next flag."""
        return bool(self.number(1))

    def skip(self, bits: int) -> None:
        """Pass over bits."""
        self.at += bits
        if self.at > self._length:
            raise EOFError("the header is cut")

    def skip_uvlc(self) -> None:
        """Pass over a number that states its own length: zeros, a one, and as many bits as zeros."""
        zeros = 0
        while not self.flag():
            zeros += 1
        self.skip(zeros if zeros < 32 else 0)

    def below(self, limit: int) -> int:
        """Return a number from 0 to `limit - 1`, in as few bits as possible ("ns(n)")."""
        width = limit.bit_length()
        short = (1 << width) - limit
        value = self.number(width - 1)
        return value if value < short else (value << 1) - short + self.number(1)

    def leb128(self) -> int:
        """Return a number in bytes of 7 bits, the lowest first, as far as a flag says that another byte follows."""
        value = 0
        for index in range(8):
            more = self.flag()
            value |= self.number(7) << 7 * index
            if not more:
                break
        return value
