"""The quality of a lossy AVIF, estimated from the quantizer in the headers."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from dsclora_cli.imaging.codecs.avif import estimate_avif_quality
from dsclora_cli.imaging.isobmff import iter_item_parts, make_box, primary_item, read_meta
from dsclora_cli.imaging.reader import open_picture

PHOTO = Path(__file__).parents[3] / "examples" / "photo.png"
QUALITIES = (0, 1, 2, 5, 10, 30, 50, 53, 54, 60, 75, 80, 90, 95, 98, 99)


def _saved(picture: Image.Image, **settings: object) -> BytesIO:
    file = BytesIO()
    picture.save(file, "AVIF", **{"speed": 10, "max_threads": 1, **settings})
    return file


def _stream(file: BytesIO) -> bytes:
    """Return the coded primary picture of a file."""
    meta = read_meta(file)
    (part,) = (part for part in iter_item_parts(file, meta) if part.item == primary_item(file, meta))
    return file.getvalue()[part.start : part.start + part.length]


# Without an option, libavif takes tune=iq from version 1.4 on, and earlier versions take tune=ssim.
@pytest.mark.parametrize("tune", [{}, {"advanced": {"tune": "ssim"}}])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_the_estimate_is_the_quality_of_pillow(subsampling: str, tune: dict[str, object]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8))
    photo = Image.open(PHOTO).convert("RGB").crop((0, 0, 32, 32))
    for picture in (photo, noise, Image.new("RGB", (16, 16), (90, 20, 60)), photo.convert("L"), photo.convert("RGBA")):
        chroma = {} if picture.mode == "L" else {"subsampling": subsampling}
        found = [estimate_avif_quality(_saved(picture, quality=quality, **chroma, **tune)) for quality in QUALITIES]
        assert found == pytest.approx(QUALITIES, abs=1)


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_pictures_have_the_same_quality(bits: int) -> None:
    pixels = np.array(Image.open(PHOTO).convert("RGB").crop((0, 0, 32, 32))).astype(np.uint16) << (bits - 8)
    qualities = (10, 50, 90)
    files = [imagecodecs.avif_encode(pixels, each, speed=9, bitspersample=bits, numthreads=1) for each in qualities]
    assert [estimate_avif_quality(BytesIO(file)) for file in files] == pytest.approx(qualities, abs=1)


def test_the_header_of_a_picture_holds_the_estimate_and_none_for_a_lossless_one() -> None:
    qualities = []
    for quality in (50, 80, 100):
        with open_picture(_saved(Image.open(PHOTO), quality=quality).getvalue()) as picture:
            qualities.append(picture.header.lossy_quality)
    assert qualities[:2] == pytest.approx([50, 80], abs=1) and qualities[2] is None


def test_the_first_frame_of_an_animation_counts_with_and_without_a_primary_picture() -> None:
    frames = [Image.open(PHOTO).convert("RGB").crop((0, 0, 64, 64)).rotate(angle) for angle in (0, 90)]
    data = _saved(frames[0], quality=40, save_all=True, append_images=frames[1:]).getvalue()
    estimate = estimate_avif_quality(BytesIO(data))
    assert estimate == pytest.approx(40, abs=12)
    tracks_only = data.replace(b"meta", b"free")
    assert estimate_avif_quality(BytesIO(tracks_only)) == estimate
    # The first track may be one of sound, or of transparency.
    for kind in (b"soun", b"auxv"):
        assert estimate_avif_quality(BytesIO(tracks_only.replace(b"pict", kind))) is None
    assert estimate_avif_quality(BytesIO(tracks_only.replace(b"av01", b"hvc1"))) is None
    # A table of samples with 64-bit offsets, of samples of the same size.
    (offset,) = struct.unpack_from(">I", data, data.index(b"stco") + 12)
    size = struct.unpack_from(">I", data, data.index(b"stsz") + 16)[0]
    description = make_box(b"stsd", bytes(4) + struct.pack(">I", 1) + make_box(b"av01", bytes(78)))
    places = make_box(b"co64", bytes(4) + struct.pack(">IQ", 1, offset))
    table = make_box(b"stbl", description + places + make_box(b"stsz", bytes(4) + struct.pack(">II", size, 1)))
    handler = make_box(b"hdlr", bytes(8) + b"pict" + bytes(13))
    track = make_box(b"trak", make_box(b"mdia", handler + make_box(b"minf", table)))
    wide = tracks_only.replace(b"moov", b"free") + make_box(b"moov", track)
    assert estimate_avif_quality(BytesIO(wide)) == estimate
    far = wide.replace(struct.pack(">IQ", 1, offset), struct.pack(">IQ", 1, 2**64 - 1))
    assert estimate_avif_quality(BytesIO(far)) is None


def _container(items: list[tuple[bytes, list[bytes]]], primary: int, references: bytes = b"", wide: int = 0) -> bytes:
    """Return an AVIF.

    Args:
        items: Kind and coded parts of each item; numbers begin at 1.
        primary: Number of the primary item.
        references: Content of the box "iref", none without.
        wide: 1 for item numbers of 32 bits.
    """
    number = ">I" if wide else ">H"
    entries, places, data = b"", b"", b""
    start = 4096  # of the data, behind the boxes
    for item, (kind, parts) in enumerate(items, 1):
        entry = bytes([2 + wide, 0, 0, 0]) + struct.pack(number, item) + bytes(2) + kind + b"\0"
        entries += make_box(b"infe", entry)
        places += struct.pack(number, item) + (b"\0\0" if wide else b"") + struct.pack(">HH", 0, len(parts))
        for part in parts:
            places += struct.pack(">II", start + len(data), len(part))
            data += part
    count = struct.pack(number, len(items))
    boxes = make_box(b"pitm", bytes([wide, 0, 0, 0]) + struct.pack(number, primary))
    boxes += make_box(b"iinf", bytes(4) + struct.pack(">H", len(items)) + entries)
    boxes += make_box(b"iloc", bytes([2 * wide, 0, 0, 0, 0x44, 0]) + count + places)
    boxes += make_box(b"iref", references) if references else b""
    return make_box(b"meta", bytes(4) + boxes).ljust(start, b"\0") + data


@pytest.mark.parametrize("wide", [0, 1])
def test_of_a_grid_the_first_tile_counts(wide: int) -> None:
    photo = Image.open(PHOTO).convert("RGB").crop((0, 0, 64, 64))
    tiles = [[_stream(_saved(photo, quality=quality))] for quality in (20, 70)]
    items = [(b"grid", [b"\0\0\0\1\0\x40\0\x40"]), *((b"av01", tile) for tile in tiles)]
    number = ">I" if wide else ">H"
    numbers = struct.pack(number, 1) + struct.pack(">H", 2) + struct.pack(number, 3) + struct.pack(number, 2)
    references = bytes([wide, 0, 0, 0]) + make_box(b"thmb", numbers) + make_box(b"dimg", numbers)
    assert estimate_avif_quality(BytesIO(_container(items, 1, references, wide))) == pytest.approx(70, abs=1)
    assert estimate_avif_quality(BytesIO(_container(items, 2, references, wide))) == pytest.approx(20, abs=1)
    # A grid without tiles, a grid of grids, an item that nothing describes.
    assert estimate_avif_quality(BytesIO(_container(items, 1, b"", wide))) is None
    assert estimate_avif_quality(BytesIO(_container([items[0], *items], 1, references[:-6] + bytes(6), wide))) is None
    assert estimate_avif_quality(BytesIO(_container(items, 9, references, wide))) is None


def test_a_picture_in_layers_has_no_quality() -> None:
    stream = _stream(_saved(Image.open(PHOTO).convert("RGB").crop((0, 0, 64, 64)), quality=30))
    assert estimate_avif_quality(BytesIO(_container([(b"av01", [stream])], 1))) == pytest.approx(30, abs=1)
    # The first layer is coarser than the picture that readers show, and later ones have other headers.
    for parts in ([stream, stream], [stream * 2]):
        assert estimate_avif_quality(BytesIO(_container([(b"av01", parts)], 1))) is None


def test_the_sequence_header_in_the_properties_of_the_item_counts_where_the_stream_has_none() -> None:
    file = _saved(Image.open(PHOTO).convert("RGB").crop((0, 0, 64, 64)), quality=30)
    stream = _stream(file)
    assert stream[:2] == b"\x12\0" and stream[2] == 0x0A  # a delimiter, then the sequence header
    sequence, frame = stream[2 : 4 + stream[3]], stream[4 + stream[3] :]
    data = _container([(b"av01", [frame])], 1)
    assert estimate_avif_quality(BytesIO(data)) is None
    properties = make_box(b"ipco", make_box(b"av1C", b"\x81\0\x0c\0" + sequence))
    owners = make_box(b"ipma", bytes(4) + struct.pack(">IHBB", 1, 1, 1, 0x81))
    boxes = data[8:4096].rstrip(b"\0")
    inside = boxes[4 : struct.unpack(">I", data[:4])[0] - 8]
    meta = make_box(b"meta", bytes(4) + inside + make_box(b"iprp", properties + owners))
    whole = meta.ljust(4096, b"\0") + frame
    assert estimate_avif_quality(BytesIO(whole)) == pytest.approx(30, abs=1)


def test_boxes_in_boxes_of_a_movie_are_bounded() -> None:
    class Counted(BytesIO):
        count = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.count += 1
            return super().read(size)

    empty = make_box(b"free", b"")
    media = make_box(b"mdia", empty * 200)
    file = Counted(make_box(b"moov", make_box(b"trak", empty * 200 + media) * 50 + make_box(b"trak", media) * 200))
    assert estimate_avif_quality(file) is None
    assert file.count < 64 * 2 * 64 + 100


def test_a_file_that_is_cut_or_damaged_has_no_quality_or_any_and_never_fails() -> None:
    photo = Image.open(PHOTO).convert("RGB").crop((0, 0, 48, 48))
    still = _saved(photo, quality=75).getvalue()
    moving = _saved(photo, quality=75, save_all=True, append_images=[photo.rotate(90)]).getvalue()
    rng = np.random.default_rng(0)
    for data in (still, moving.replace(b"meta", b"free")):
        for length in range(0, len(data), 7):
            estimate_avif_quality(BytesIO(data[:length]))
        for _ in range(150):
            damaged = bytearray(data)
            for at in rng.integers(0, 700, 3):
                damaged[at % len(data)] = rng.integers(256)
            assert estimate_avif_quality(BytesIO(damaged)) in (None, *range(101))
