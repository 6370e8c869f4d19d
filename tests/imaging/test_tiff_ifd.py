"""TIFF directories in both byte orders, with 32-bit and 64-bit offsets, and damaged."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as some
from pictures import MAKER_NOTE, exif_block

from dsclora_cli.imaging import tiff_ifd

LAYOUTS = some.builds(tiff_ifd.Layout, some.sampled_from("<>"), some.booleans())
VALUES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8}


@some.composite
def directories(draw, depth: int = 0) -> dict[int, tiff_ifd.Entry]:
    entries = {}
    for tag in draw(some.lists(some.integers(1, 30_000), max_size=6, unique=True)):
        type_ = draw(some.sampled_from(sorted(VALUES)))
        count = draw(some.integers(1, 20))
        entries[tag] = tiff_ifd.Entry(
            type_, draw(some.binary(min_size=VALUES[type_] * count, max_size=VALUES[type_] * count))
        )
    if depth < 2 and draw(some.booleans()):
        tag = (tiff_ifd.EXIF_IFD, tiff_ifd.INTEROP_IFD)[depth]
        entries[tag] = tiff_ifd.Entry(tiff_ifd.LONG, b"", sub=draw(directories(depth + 1)))
    return entries


def plain(entries) -> dict:
    """Return entries without offsets, which differ from file to file."""
    return {
        tag: plain(entry.sub) if entry.sub is not None else (entry.type, entry.data) for tag, entry in entries.items()
    }


@given(entries=directories(), layout=LAYOUTS, offset=some.integers(0, 40).map(lambda half: 2 * half))
def test_packed_directories_are_read_back(entries, layout, offset):
    stream = io.BytesIO(bytes(offset) + tiff_ifd.pack_directory(entries, layout, offset, following=1234))
    again = tiff_ifd.read_directory(stream, layout, offset)
    assert plain(again.entries) == plain(entries) and again.next == 1234
    assert len(stream.getvalue()) % 2 == 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_packed_and_read_back(order):
    layout, first = tiff_ifd.parse_exif(exif_block(6, order))
    assert layout == tiff_ifd.Layout(order) and tiff_ifd.read_integer(first.entries[274], order) == 6
    packed = tiff_ifd.pack_exif(first.entries, order)
    _, again = tiff_ifd.parse_exif(packed)
    assert plain(again.entries) == plain(first.entries) and again.next == 0
    assert again.entries[tiff_ifd.EXIF_IFD].sub[37500].data == MAKER_NOTE


@given(some.binary(max_size=80))
def test_random_bytes_are_a_directory_or_a_value_error(data):
    for head in (b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0"):
        try:
            _, directory = tiff_ifd.parse_exif(head + data)
        except ValueError:
            continue
        assert len(directory.entries) <= 4096


@pytest.mark.parametrize("size", [2**62, 2**64 - 1])
def test_sizes_of_64_bits_are_damage_and_no_other_exception(size):
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", 16)
    for data in (struct.pack("<Q", size), struct.pack("<QHHQQ", 1, 271, 2, size, 8)):
        stream = io.BytesIO(head + data)
        layout, first = tiff_ifd.parse_header(head)
        with pytest.raises(ValueError, match="a directory"):
            list(tiff_ifd.iter_pages(stream, layout, first if len(data) == 8 else size))


def test_damaged_entries_are_left_out():
    good = struct.pack("<HHII", 271, 2, 2, 0x41)
    unknown_type = struct.pack("<HHII", 272, 99, 1, 0)
    out_of_file = struct.pack("<HHII", 305, 2, 100, 5000)
    huge = struct.pack("<HHII", 306, 12, 2**31, 8)
    body = struct.pack("<H", 4) + good + unknown_type + out_of_file + huge
    assert list(tiff_ifd.read_directory(io.BytesIO(body), tiff_ifd.Layout(), 0).entries) == [271]


def test_an_integer_is_read_from_every_type_that_can_hold_one():
    cases = {1: b"\6", 2: b"6\0", 3: b"\0\6", 4: b"\0\0\0\6", 5: struct.pack(">II", 12, 2), 6: b"\6", 7: b"\0\6"}
    cases |= {
        8: b"\0\6",
        9: b"\0\0\0\6",
        10: struct.pack(">ii", 6, 1),
        11: struct.pack(">f", 6),
        12: struct.pack(">d", 6),
    }
    cases |= {13: b"\0\0\0\6", 16: bytes(7) + b"\6", 17: bytes(7) + b"\6"}
    for kind, data in cases.items():
        assert tiff_ifd.read_integer(tiff_ifd.Entry(kind, data), ">") == 6
    assert tiff_ifd.read_integers(tiff_ifd.Entry(tiff_ifd.SHORT, b"\1\0\2\0"), "<") == [1, 2]
    wrong = ((2, b"six\0"), (12, struct.pack("<d", float("nan"))), (99, b"1"))
    for entry in (None, *(tiff_ifd.Entry(kind, data) for kind, data in wrong)):
        assert tiff_ifd.read_integer(entry, "<") is None


@pytest.mark.parametrize("big", [False, True])
def test_pages_that_follow_themselves_are_damage(big):
    layout = tiff_ifd.Layout("<", big)
    first = tiff_ifd.pack_directory({}, layout, 16, following=64).ljust(48, b"\0")
    second = tiff_ifd.pack_directory({}, layout, 64, following=16)
    last = second[: -(8 if big else 4)] + bytes(8)
    assert list(tiff_ifd.iter_pages(io.BytesIO(bytes(16) + first + last), layout, 16)) == [16, 64]
    with pytest.raises(ValueError, match="follows itself"):
        list(tiff_ifd.iter_pages(io.BytesIO(bytes(16) + first + second), layout, 16))


def test_directories_that_point_at_each_other_are_read_once():
    """Thousands of entries with the same sub-directory, which lie over each other, would multiply at each level."""
    count = 4000
    entry = struct.pack("<HHII", tiff_ifd.EXIF_IFD, tiff_ifd.LONG, 1, 8)
    others = [struct.pack("<HHII", tiff_ifd.EXIF_IFD, tiff_ifd.LONG, 1, 8 + 12 * n) for n in range(1, count)]
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + entry + b"".join(others)
    _, directory = tiff_ifd.parse_exif(block + bytes(60_000))
    assert list(directory.entries) == [tiff_ifd.EXIF_IFD]


def test_values_together_have_a_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        tiff_ifd._Walk, "__init__", lambda walk: walk.__dict__.update(visited=set(), budget=150, entries=9, repeated=[])
    )
    entries = {tag: tiff_ifd.Entry(tiff_ifd.BYTE, bytes(60)) for tag in range(1, 6)}
    _, directory = tiff_ifd.parse_exif(tiff_ifd.pack_exif(entries, "<"))
    assert list(directory.entries) == [1, 2]
