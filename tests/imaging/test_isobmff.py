"""Boxes of JPEG 2000, JPEG XL and AVIF."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
from pictures import everything, noise, read_still, saved_still, smooth

from dsclora_cli.imaging import isobmff
from dsclora_cli.imaging.codecs.coded_tail import present_share


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data) + 8, kind) + data


def test_boxes_of_all_kinds_of_length_are_found():
    long = struct.pack(">I4sQ", 1, b"long", 16 + 3) + b"abc"
    rest = struct.pack(">I4s", 0, b"rest") + b"to the end"
    file = io.BytesIO(box(b"plain"[:4], b"1234") + long + rest)
    found = [(part.kind, file.getvalue()[part.start : part.end]) for part in isobmff.iter_boxes(file)]
    assert found == [(b"plai", b"1234"), (b"long", b"abc"), (b"rest", b"to the end")]


@pytest.mark.parametrize("broken", [b"", b"\0\0\0", struct.pack(">I4s", 4, b"tiny"), struct.pack(">I4s", 1, b"long")])
def test_a_damaged_box_ends_the_search(broken):
    found = [part.kind for part in isobmff.iter_boxes(io.BytesIO(box(b"good", b"x") + broken))]
    assert found == [b"good"]
    assert isobmff.read_box_metadata(io.BytesIO(broken)).exif is None


def test_metadata_of_a_jp2_file_is_read_from_boxes():
    given = everything()
    data = saved_still(smooth(), "JPEG2000", given)
    found = isobmff.read_box_metadata(io.BytesIO(data))
    assert (found.icc, found.exif, found.xmp, found.iptc) == (given.icc, given.exif, given.xmp, given.iptc)
    kinds = [part.kind for part in isobmff.iter_boxes(io.BytesIO(data))]
    assert kinds == [b"jP  ", b"ftyp", b"jp2h", b"uuid", b"uuid", b"uuid", b"jp2c"]


def test_metadata_of_a_jpeg_xl_file_is_read_from_boxes():
    given = everything()
    file = box(b"JXL ", b"\r\n\x87\n") + box(b"Exif", bytes(4) + given.exif) + box(b"xml ", given.xmp)
    found = isobmff.read_box_metadata(io.BytesIO(file))
    assert (found.exif, found.xmp) == (given.exif, given.xmp)
    assert isobmff.fill_missing(isobmff.Metadata(xmp=b"own"), found) == isobmff.Metadata(exif=given.exif, xmp=b"own")


@pytest.mark.parametrize(("bits", "container"), [(8, "jp2"), (12, "jp2"), (16, "j2k")])
def test_the_codestream_states_size_channels_and_bits(bits, container):
    pixels = noise(3, np.uint16) >> (16 - bits)
    pixels = pixels.astype(np.uint8) if bits == 8 else pixels
    data = bytes(imagecodecs.jpeg2k_encode(pixels, level=0, codecformat=container, bitspersample=bits))
    stream = isobmff.read_codestream(io.BytesIO(data))
    assert stream == isobmff.Codestream(47, 33, 3, (bits - 1,) * 3)
    assert read_still(data)[0].dtype == (np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_the_bit_depth_of_avif_is_read(bits):
    flags = {8: 0, 10: 0x40, 12: 0x60}[bits]
    assert isobmff.read_avif_depth(io.BytesIO(bytes(50) + b"av1C" + bytes((0x81, 0, flags, 0)) + bytes(9))) == bits


def items_file(places):
    """Return a file with an item of the kind "av01", number 1, and the content of a box "iloc"."""
    entry = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"av01\0")
    info = box(b"iinf", bytes(4) + struct.pack(">H", 1) + entry)
    return io.BytesIO(box(b"meta", bytes(4) + info + box(b"iloc", places)))


def test_places_of_items_are_read_in_every_version():
    plain = bytes((0, 0, 0, 0, 0x44, 0x40)) + struct.pack(">HHHIH", 1, 1, 0, 1000, 2) + struct.pack(">4I", 5, 7, 20, 0)
    wide = bytes((2, 0, 0, 0, 0x48, 0x02)) + struct.pack(">IIHHH", 1, 1, 0, 0, 1) + struct.pack(">HIQ", 1, 9, 2**33)
    inside = bytes((1, 0, 0, 0, 0x44, 0)) + struct.pack(">HHHHH", 1, 1, 1, 0, 1) + struct.pack(">II", 0, 4)
    for places, expected in ((plain, [(1005, 7), (1020, 0)]), (wide, [(9, 2**33)]), (inside, [])):
        file = items_file(places)
        meta = isobmff.read_meta(file)
        assert list(isobmff.iter_items(file, meta)) == [(1, b"av01")]
        assert [(part.start, part.length) for part in isobmff.iter_item_parts(file, meta)] == expected


@pytest.mark.parametrize(
    "places",
    [
        b"",
        # Offsets of 15 bytes, beyond any file.
        bytes((0, 0, 0, 0, 0xFF, 0xF0)) + struct.pack(">HHH", 1, 1, 0) + b"\xff" * 15 + b"\0\1" + b"\xff" * 30,
        bytes((0, 0, 0, 0, 0x84, 0)) + struct.pack(">HHHHQI", 1, 1, 0, 1, 2**62, 9),
        # 65,535 parts in no bytes, for each of 999 items.
        bytes(6) + struct.pack(">H", 999) + struct.pack(">HHH", 1, 0, 0xFFFF) * 999,
    ],
    ids=["empty", "far", "beyond the file system", "many"],
)
def test_hostile_places_of_items_are_bounded(places, tmp_path):
    # In a file: a file system refuses offsets that memory takes.
    (tmp_path / "a.avif").write_bytes(items_file(places).getvalue())
    with (tmp_path / "a.avif").open("rb") as file:
        assert sum(1 for _ in isobmff.iter_item_parts(file, isobmff.read_meta(file))) <= 2**16
        assert present_share(file, "AVIF", 100) in (None, 0.0)


def test_bytes_that_many_parts_share_are_read_once():
    class Counted(io.BytesIO):
        count = 0

        def read(self, size=-1, /):
            data = super().read(size)
            self.count += len(data)
            return data

    # Each part reaches from another byte of the table to the end.
    parts = b"".join(struct.pack(">I", start) for start in range(1000))
    start = bytes((0, 0, 0, 0, 0x40, 0)) + struct.pack(">HHHH", 1, 1, 0, 1000)
    file = Counted(items_file(start + parts).getvalue() + bytes(range(1, 256)) * 1000)
    assert present_share(file, "AVIF", 100) is None
    assert file.count < 3 * len(file.getvalue())
