"""Headers of AV1 that are written bit by bit: branches that the encoder of Pillow never takes."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest

from dsclora_cli.imaging.codecs.av1 import Quantizer, read_quantizer

Fields = list[tuple[int, int]]
"""Numbers to write, each with the bits that the number takes."""

KEY_FRAME = [(0, 1), (0, 2), (1, 1)]
"""No frame is shown again; a key frame; the frame is shown."""

ONE_TILE = [(1, 1)]
"""Tiles of even size, and no room for more than one."""

NO_MODEL = [(0, 1), (0, 1), (0, 5), (0, 12), (8, 5), (0, 1)]
"""No timing, no delays; one operating point without layers, at a level that has a tier."""

NO_TOOLS = [(0, 4), (0, 1), (0, 1), (0, 1)]
"""No order of frames; neither tools for screen content nor a choice."""

GRAY = [(0, 1), (1, 1), (0, 1), (0, 1)]
"""8 bits, gray, no numbers of colors, limited range."""


def pack(*fields: tuple[int, int]) -> bytes:
    """Return numbers one behind the other, the highest bit first, and zeros up to a whole byte."""
    text = "".join(f"{value:0{bits}b}" for value, bits in fields if bits)
    return int(text.ljust(-len(text) // 8 * -8, "0"), 2).to_bytes(-(-len(text) // 8), "big")


def obu(kind: int, content: bytes, layers: int | None = None, *, sized: bool = True) -> bytes:
    """Return a unit; `layers` holds temporal and spatial layer in the bits of the extension."""
    extension = b"" if layers is None else bytes([layers])
    size = len(content)
    length = bytes([size & 127 | 128, size >> 7]) if sized else b""
    return bytes([kind << 3 | (layers is not None) << 2 | sized << 1]) + extension + length + content


def size(width: int, height: int, bits: int = 16) -> Fields:
    return [(width - 1, bits), (height - 1, bits)]


def reduced_sequence(width: int, height: int, *, large: int = 0, superres: int = 0, colors: Fields = GRAY) -> bytes:
    """Return the sequence header of a still picture in the short form."""
    start = [(0, 3), (1, 1), (1, 1), (0, 5), (15, 4), (15, 4), *size(width, height)]
    return obu(1, pack(*start, (large, 1), (0, 2), (superres, 1), (0, 2), *colors, (0, 1), (1, 1)))


def full_sequence(
    model: Fields = NO_MODEL,
    tools: Fields = NO_TOOLS,
    *,
    ids: tuple[tuple[int, int], ...] = ((0, 1),),
    superres: int = 0,
) -> bytes:
    """Return the sequence header of a video of 64 x 48 pixels, the width and height in 8 bits."""
    start = [(0, 3), (0, 1), (0, 1), *model, (7, 4), (7, 4), *size(64, 48, 8), *ids, (0, 1), (0, 2)]
    return obu(1, pack(*start, *tools, (superres, 1), (0, 2), *GRAY, (0, 1), (1, 1)))


def gray_rest(index: int, *, matrices: int = 0, varies: int = 0) -> Fields:
    """Return everything from the quantizer of a gray frame on, as far as the parser reads."""
    return [(index, 8), (0, 1), (matrices, 1), (0x77, 8 * matrices), (0, 1), (varies, 1)]


def read(*units: bytes, configuration: bytes = b"") -> Quantizer:
    """Read units behind other bytes of a file."""
    data = b"".join(units)
    return read_quantizer(BytesIO(b"before" + data + b"behind"), 6, len(data), configuration)


def reduced_frame(*fields: tuple[int, int], index: int = 99) -> bytes:
    """Return a frame of a reduced sequence without screen content; `fields` follow the size for display."""
    return obu(6, pack((0, 1), (0, 1), (0, 1), *fields, *gray_rest(index)))


def test_a_short_header_is_read() -> None:
    assert read(reduced_sequence(64, 48), reduced_frame(*ONE_TILE)) == Quantizer(99, has_iq_tools=False)


def test_a_unit_without_a_length_reaches_to_the_end() -> None:
    frame = obu(3, pack((0, 1), (0, 1), (0, 1), *ONE_TILE, *gray_rest(7)), sized=False)
    assert read(reduced_sequence(64, 48), frame).index == 7


@pytest.mark.parametrize("configuration", [b"", b"\x81\0\x0c\0" + reduced_sequence(64, 48)])
def test_the_sequence_header_may_stand_in_the_configuration_alone(configuration: bytes) -> None:
    frame = reduced_frame(*ONE_TILE)
    if configuration:
        assert read(frame, configuration=configuration).index == 99
    else:
        with pytest.raises(ValueError, match="no sequence header"):
            read(frame)


def test_screen_content_and_a_size_for_display_are_passed_over() -> None:
    # Screen content: vectors of whole pixels, and copies inside the picture.
    frame = obu(6, pack((0, 1), (1, 1), (1, 1), (1, 1), *size(640, 480), (1, 1), *ONE_TILE, *gray_rest(31)))
    assert read(reduced_sequence(64, 48), frame).index == 31


def test_superres_makes_the_coded_frame_narrower() -> None:
    sequence = reduced_sequence(1000, 48, superres=1)
    # 1,000 pixels in superblocks of 64: up to 16 tiles. 8/16 of the width: 500 pixels, so up to 8.
    whole = obu(6, pack((0, 1), (0, 1), (0, 1), (0, 1), (1, 1), *[(1, 1)] * 4, (0, 4 + 2), *gray_rest(60)))
    half = obu(6, pack((0, 1), (0, 1), (1, 1), (7, 3), (0, 1), (1, 1), *[(1, 1)] * 3, (0, 3 + 2), *gray_rest(60)))
    # Copies inside the picture are possible only without superres.
    screen = obu(6, pack((0, 1), (1, 1), (1, 1), (1, 1), (7, 3), (0, 1), (1, 1), (0, 1), *gray_rest(60)))
    assert [read(sequence, frame).index for frame in (whole, half, screen)] == [60, 60, 60]


@pytest.mark.parametrize(
    ("shape", "large", "tiles"),
    [
        # Even tiles, as few as allowed: a stop bit for columns and for rows.
        ((500, 300), 0, [(1, 1), (0, 1), (0, 1)]),
        ((500, 300), 1, [(1, 1), (0, 1), (0, 1)]),
        # 8 columns of 64 and 4 of 128 pixels: nothing says that there are not more.
        ((500, 48), 0, [(1, 1), (7, 3), (0, 3 + 2)]),
        ((500, 48), 1, [(1, 1), (3, 2), (0, 2 + 2)]),
        # 2 columns and 4 rows.
        ((500, 300), 0, [(1, 1), (0b10, 2), (0b110, 3), (0, 1 + 2 + 2)]),
        # Wider than a tile may be, 4,096: two columns at least, and their number takes a bit.
        ((5000, 48), 0, [(1, 1), (0, 1), (0, 1 + 2)]),
        # More pixels than a tile may have, 4,096 x 2,304: two rows at least.
        ((4096, 3000), 0, [(1, 1), (0, 1), (0, 1), (0, 1 + 2)]),
        # Columns of 1, 3 and 4 superblocks of 8: numbers below 8, 7 and 4. One row of 1.
        ((500, 48), 0, [(0, 1), (0, 3), (0b011, 3), (0b11, 2), (0, 2 + 2)]),
        # Of 7 superblocks, the numbers from 0 on: 0 to 0 in 2 bits, the others in 3. 6 are 7 superblocks.
        ((440, 48), 0, [(0, 1), (0b111, 3)]),
        # One column, rows of 2 and 3 superblocks of 5: numbers below 5 in 2 or 3 bits, then below 3.
        ((64, 300), 0, [(0, 1), (0b01, 2), (0b11, 2), (0, 1 + 2)]),
    ],
)
def test_tiles_are_passed_over(shape: tuple[int, int], large: int, tiles: Fields) -> None:
    for index in (1, 85, 170, 255):
        assert read(reduced_sequence(*shape, large=large), reduced_frame(*tiles, index=index)).index == index


@pytest.mark.parametrize(
    ("profile", "colors", "rest"),
    [
        # 4:2:0 of 8 bits, with numbers of colors; chroma may not differ.
        (0, [(0, 1), (0, 1), (1, 1), (1, 8), (13, 8), (6, 8), (1, 1), (0, 2), (0, 1)], [(0, 2)]),
        # 4:4:4 of 10 bits; both chroma channels have differences of their own.
        (1, [(1, 1), (0, 1), (0, 1), (1, 1)], [(1, 1), (1, 1), (5, 7), (1, 1), (9, 7), (0, 1), (1, 1), (3, 7)]),
        # sRGB by numbers says range and planes.
        (1, [(0, 1), (1, 1), (1, 8), (13, 8), (0, 8), (0, 1)], [(0, 2)]),
        # 12 bits of 4:2:0, 4:2:2 and 4:4:4, and 10 bits of 4:2:2.
        (2, [(1, 1), (1, 1), (0, 1), (0, 1), (0, 1), (0b11, 2), (2, 2), (0, 1)], [(0, 2)]),
        (2, [(1, 1), (1, 1), (0, 1), (0, 1), (0, 1), (0b10, 2), (0, 1)], [(0, 2)]),
        (2, [(1, 1), (1, 1), (0, 1), (0, 1), (0, 1), (0, 1), (1, 1)], [(0, 1), (0, 2)]),
        (2, [(1, 1), (0, 1), (0, 1), (0, 1), (0, 1), (0, 1)], [(0, 2)]),
    ],
)
def test_matrices_and_quantizers_of_blocks_are_found_behind_any_colors(
    profile: int, colors: Fields, rest: Fields
) -> None:
    start = [(profile, 3), (1, 1), (1, 1), (0, 5), (7, 4), (7, 4), *size(64, 48, 8), (0, 3), (0, 3)]
    sequence = obu(1, pack(*start, *colors, (0, 1), (1, 1)))
    separate = colors[-1] == (1, 1)
    for matrices in (0, 1):
        for varies in (0, 1):
            levels = [(matrices, 1), (0, (12 if separate else 8) * matrices)]
            # Two segments have features: a quantizer of 9 bits with sign, and a flag without a value.
            segments = [(1, 1), (1, 1), (300, 9), (0, 7), (0, 7), (1, 1), *[(0, 8)] * 6]
            fields = [(0, 3), *ONE_TILE, (44, 8), (1, 1), (3, 7), *rest, *levels, *segments, (varies, 1)]
            found = read(sequence, obu(6, pack(*fields)))
            differs = (1, 1) in rest[1:]
            assert found == Quantizer(44, has_iq_tools=bool(matrices and (varies or differs)))


def test_a_full_header_is_read() -> None:
    frame = obu(6, pack(*KEY_FRAME, (0, 1), (0, 1), (0, 1), (0, 1), *ONE_TILE, *gray_rest(12)))
    assert read(obu(2, b""), full_sequence(), frame).index == 12


def test_a_full_header_with_every_tool_is_read() -> None:
    # Order of frames in 7 bits; the sequence decides for screen content, and for vectors of whole pixels.
    tools = [(0, 4), (1, 1), (0, 2), (0, 1), (1, 1), (0, 1), (1, 1), (6, 3)]
    ids = ((1, 1), (3, 4), (2, 3))  # numbers of frames: 3 + 2 bits of difference, 2 + 1 more
    sequence = full_sequence(tools=tools, ids=ids, superres=1)
    number, order, own_size = (200, 8), (77, 7), (1, 1)
    start = [*KEY_FRAME, (1, 1), number, own_size, order, *size(32, 16, 8)]
    # No superres, no size for display, no copies; statistics are off, so that nothing says whether they are kept.
    assert read(sequence, obu(6, pack(*start, (0, 1), (0, 1), (0, 1), *ONE_TILE, *gray_rest(150)))).index == 150


TIMES = [(1, 1), (1, 32), (25, 32)]
"""Timing: units in a tick, ticks in a second."""

MODEL = [(1, 1), (9, 5), (1, 32), (11, 5), (6, 5)]
"""Model of the decoder: delays in 10 bits, times of removal in 12, of showing in 7."""


@pytest.mark.parametrize(
    "even", [[(0, 1)], [(1, 1), (0b00101, 5)]]
)  # at even times a number follows: 2 zeros, 1, 2 bits
def test_timing_and_operating_points_are_passed_over(even: Fields) -> None:
    # Of three points, two state delays, the last for other layers than those of the frame.
    points = [(0x101, 12), (3, 5), (1, 1), (0, 21), (1, 1), (5, 4)], [(0, 12), (9, 5), (1, 1), (1, 1), (0, 21), (0, 1)]
    last = [(0x202, 12), (3, 5), (1, 1), (0, 21), (0, 1)]
    model = [*TIMES, *even, *MODEL, (1, 1), (2, 5), *points[0], *points[1], *last]
    shown_at = [(0, 7)] if even[0] == (0, 1) else []
    frame = [*KEY_FRAME, *shown_at, (0, 1), (0, 1), (1, 1), (0, 12 * 2), (0, 1), (0, 1), *ONE_TILE, *gray_rest(201)]
    assert read(full_sequence(model), obu(6, pack(*frame), layers=0)).index == 201
    # In a layer that no point with delays names, only the point for all layers counts.
    other = [*KEY_FRAME, *shown_at, (0, 1), (0, 1), (1, 1), (0, 12), (0, 1), (0, 1), *ONE_TILE, *gray_rest(201)]
    assert read(full_sequence(model), obu(6, pack(*other), layers=2 << 5)).index == 201


def test_other_frames_than_a_single_shown_key_frame_have_no_quantizer() -> None:
    sequence, rest = reduced_sequence(64, 48), [(0, 1), (0, 1), (0, 1), (0, 1), *ONE_TILE, *gray_rest(9)]
    with pytest.raises(ValueError, match="second frame"):
        read(sequence, reduced_frame(*ONE_TILE), reduced_frame(*ONE_TILE))
    with pytest.raises(ValueError, match="no frame"):
        read(sequence)
    for start in ([(1, 1), (0, 3)], [(0, 1), (1, 2), (1, 1)], [(0, 1), (2, 2), (1, 1)], [(0, 1), (0, 2), (0, 1)]):
        with pytest.raises(ValueError, match="not a shown key frame"):
            read(full_sequence(), obu(6, pack(*start, *rest)))


def test_cut_and_damaged_headers_end_in_an_error_that_is_documented() -> None:
    data = reduced_sequence(5000, 3000) + reduced_frame((0, 1), (0, 7), (0, 40))
    for length in range(len(data)):
        with pytest.raises((EOFError, ValueError)):
            read(data[:length])
    rng = np.random.default_rng(0)
    for _ in range(300):
        full = bytes([0x0A, 40]) + rng.bytes(40) + bytes([0x32, 60]) + rng.bytes(60)
        with suppress(EOFError, ValueError):
            assert 0 <= read(full).index <= 255


def test_only_the_first_units_are_looked_at() -> None:
    # A file of empty units would take minutes.
    with pytest.raises(ValueError, match="no frame"):
        read(reduced_sequence(64, 48), bytes([0x2A, 0]) * 100, reduced_frame(*ONE_TILE))
