"""Strips and tiles of a TIFF that end too early: refused, whatever the compression, and salvaged as far as they go."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import tifffile
from pictures import noise, pillow_file, read, read_still, smooth
from PIL import Image

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.reader import open_picture

PIXELS = smooth(3, (64, 48)) // 2 + noise(3, size=(64, 48)) // 4
ONE_STRIP = {"rowsperstrip": 64}
KINDS = {
    "uncompressed": ONE_STRIP,
    "uncompressed tiles": {"tile": (32, 32)},
    "deflate": {"compression": "zlib", **ONE_STRIP},
    "deflate with predictor": {"compression": "zlib", "predictor": True, **ONE_STRIP},
    "lzw": {"compression": "lzw", **ONE_STRIP},
    "packbits": {"compression": "packbits", **ONE_STRIP},
    "lzma": {"compression": "lzma", **ONE_STRIP},
    "jpeg": {"compression": "jpeg", **ONE_STRIP},
    "jpeg strips": {"compression": "jpeg", "rowsperstrip": 16},
    "jpeg tiles": {"compression": "jpeg", "tile": (32, 32)},
    "jpeg rgb": {"compression": "jpeg", "compressionargs": {"outcolorspace": "rgb"}, **ONE_STRIP},
    "webp": {"compression": "webp", **ONE_STRIP},
    "jpeg 2000": {"compression": "jpeg2000", **ONE_STRIP},
}
NO_TRACE = ("uncompressed", "uncompressed tiles")


def tiff(**options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS, photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


def last_segment(data: bytes) -> tuple[int, int]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        return page.dataoffsets[-1], page.databytecounts[-1]


def salvaged(data: bytes) -> tuple[np.ndarray, str]:
    with open_picture(data, ReadOptions(salvage=True)) as picture:
        (frame,) = picture.frames()
        notes = [*picture.header.notes, *([frame.note] if frame.note else [])]
        return frame.pixels, " | ".join(note for note in notes if note.startswith("salvaged: "))


@pytest.mark.parametrize("padding", [False, True], ids=["cut", "zeros"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_strip_or_tile_is_refused_and_salvaged(kind, padding):
    data = tiff(**KINDS[kind])
    whole = read_still(data)[1]
    start, length = last_segment(data)
    kept = start + length * 6 // 10
    assert kept < len(data)
    part = data[:kept] + (bytes(len(data) - kept) if padding else b"")
    if padding and kind in NO_TRACE:
        pytest.skip("zeros leave no trace in uncompressed pixels")
    with pytest.raises(ImageError, match="damaged"):
        read(part)
    taken, note = salvaged(part)
    assert taken.shape == whole.shape
    # Of a small tile of a JPEG, the headers may be all that is there.
    match = re.fullmatch(r"salvaged: (?:about (\d+)% of the pixels|3 of 4 (?:strips|tiles)) of the TIFF", note)
    share = int(match[1] or 75) / 100
    assert 0.1 < share < 0.99
    # Of strips the first rows are there; a compression may be better on some rows than on others.
    rows = int(len(whole) * share) - 16
    if "tiles" not in kind and kind not in ("webp", "jpeg 2000"):
        np.testing.assert_array_equal(taken[: max(0, rows)], whole[: max(0, rows)])


@pytest.mark.parametrize("mode", ["CMYK", "P", "1", "LAB"])
def test_pixels_that_pillow_reads_are_salvaged_with_the_share(mode):
    data = pillow_file(Image.fromarray(PIXELS).convert(mode), "TIFF")
    whole = read_still(data)[1]
    start, length = last_segment(data)
    part = data[: start + length // 2]
    with pytest.raises(ImageError):
        read(part)
    taken, note = salvaged(part)
    assert note == "salvaged: about 50% of the pixels of the TIFF"
    np.testing.assert_array_equal(taken[:31], whole[:31])


def test_a_jpeg_tile_with_an_end_marker_inside_is_incomplete():
    data = bytearray(tiff(compression="jpeg", tile=(32, 32)))
    start, length = last_segment(bytes(data))
    middle = start + length * 7 // 10
    data[middle : middle + 2] = b"\xff\xd9"
    with pytest.raises(ImageError, match=r"1 of 4 tiles of the TIFF are incomplete .*--salvage"):
        read(bytes(data))


def test_a_jpeg_strip_without_a_byte_of_its_pixels_is_grey():
    data = bytearray(tiff(compression="jpeg", rowsperstrip=16))
    start, length = last_segment(bytes(data))
    data[start : start + length] = bytes(length)
    with pytest.raises(ImageError):
        read(bytes(data))
    taken, note = salvaged(bytes(data))
    assert note == "salvaged: 3 of 4 strips of the TIFF"
    np.testing.assert_array_equal(taken[:48], read_still(tiff(compression="jpeg", rowsperstrip=16))[1][:48])
    assert (taken[56:] == 128).mean() > 0.7


def test_pages_behind_a_cut_are_left_out_with_a_note():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for _ in range(3):
            writer.write(PIXELS, photometric="rgb", metadata=None, contiguous=False)
    data = buffer.getvalue()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        third = file.pages[2].offset
    part = data[:third] + bytes(len(data) - third)
    with pytest.raises(ImageError):
        read(part)
    with open_picture(part, ReadOptions(salvage=True)) as picture:
        assert (picture.header.frames, len(list(picture.frames()))) == (2, 2)
        assert "salvaged: 2 of 3 pages" in picture.header.notes


CLAIMS = {
    "jpeg": lambda data: re.sub(
        rb"(\xff\xc0..\x08)....", lambda found: found[1] + b"\x75\x30" * 2, data, flags=re.DOTALL
    ),
    # VP8L: 14 bits of the width minus 1 and 14 of the height behind the signature.
    "webp": lambda data: re.sub(rb"(VP8L....\x2f)...", lambda found: found[1] + b"\xff\xff\xff", data, flags=re.DOTALL),
    "jpeg 2000": lambda data: re.sub(
        rb"(ihdr|\xff\x4f\xff\x51....)........", lambda found: found[1] + b"\0\0\x75\x30" * 2, data, flags=re.DOTALL
    ),
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_a_strip_that_claims_more_pixels_than_the_page_is_never_decoded(kind, monkeypatch):
    """Decoders take the size from the picture in a strip, which could ask for gigabytes."""
    data = CLAIMS[kind](tiff(**KINDS[kind]))
    assert data != tiff(**KINDS[kind])
    decoded = []

    def decode(*arguments, **options):
        decoded.append(arguments)

    decode.__module__ = "imagecodecs"  # tifffile takes functions of no other module
    for name in ("jpeg_decode", "webp_decode", "jpeg2k_decode"):
        monkeypatch.setattr(f"imagecodecs.{name}", decode)
    with pytest.raises(ImageError, match=r"strip 1 of the TIFF claims [0-9]+ x [0-9]+ pixels"):
        read(data)
    with pytest.raises(ImageError, match=r"none of 1 strips of the TIFF can be read|damaged or truncated"):
        salvaged(data)
    assert decoded == []


def test_a_strip_that_states_a_length_of_gigabytes_is_not_filled():
    data = tiff(**KINDS["webp"])
    place = data.index(b"RIFF") + 4
    tracemalloc.start()
    with pytest.raises(ImageError, match="none of 1 strips of the TIFF can be read"):
        salvaged(data[:place] + b"\xf0\xff\xff\x3f" + data[place + 4 : place + 40] + bytes(60))
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_a_strip_of_another_library_that_states_gigabytes_is_not_filled():
    data = pillow_file(Image.new("LAB", (24, 16), (120, 5, 250)), "TIFF")
    long = re.sub(struct.pack("<HHII", 279, 4, 1, 24 * 16 * 3), struct.pack("<HHII", 279, 4, 1, 2**31), data)
    assert long != data
    tracemalloc.start()
    with suppress(ImageError):
        salvaged(long)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
