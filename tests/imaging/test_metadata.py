"""Metadata in files of every format, and updated for a resized picture."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from pictures import (
    HEIGHT,
    IPTC,
    MAKER_NOTE,
    THUMBNAIL,
    WIDTH,
    XMP,
    everything,
    exif_block,
    header_of,
    pillow_file,
    read_still,
    saved_still,
    smooth,
)
from PIL import ExifTags, Image

from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.types import Metadata
from dsclora_cli.imaging.writer import fit_format

WITH_EXIF = sorted(name for name, abilities in FORMATS.items() if "exif" in abilities.metadata and not abilities.extra)


def exif_of(block: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block)
    return exif


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [(4 * WIDTH, 4 * HEIGHT), (100_000, 70_000)])
def test_size_and_orientation_are_updated_and_the_rest_is_kept(order, size):
    metadata = blocks.with_size(Metadata(exif=exif_block(6, order), xmp=XMP, iptc=IPTC), *size)
    exif = exif_of(metadata.exif)
    assert exif[ExifTags.Base.Orientation] == 1 and exif[ExifTags.Base.Make] == "Cam"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert (details[40962], details[40963]) == size
    assert details[37500] == MAKER_NOTE and metadata.exif.index(MAKER_NOTE) == exif_block().index(MAKER_NOTE)
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N"}
    assert exif.get_ifd(ExifTags.IFD.Interop) == {1: "R98"}
    assert not exif.get_ifd(ExifTags.IFD.IFD1) and THUMBNAIL not in metadata.exif
    assert len(metadata.exif) < len(exif_block())
    text = metadata.xmp.decode()
    assert 'tiff:Orientation="1"' in text and f'tiff:ImageWidth="{size[0]}"' in text
    assert f"exif:PixelXDimension='{size[0]}'" in text and f"<tiff:ImageLength>{size[1]}</tiff:ImageLength>" in text
    assert "Thumbnails" not in text and "<dc:title>café</dc:title>" in text
    assert metadata.iptc == IPTC


def test_updating_the_size_twice_changes_nothing_more():
    once = blocks.with_size(everything(), 10, 20)
    assert blocks.with_size(once, 10, 20) == once


@pytest.mark.parametrize("broken", [b"", b"II*\0", b"II*\0\xff\xff\xff\x7f", b"text", exif_block()[:20]])
def test_broken_exif_is_left_out(broken):
    assert blocks.normalize_exif(broken) is None and blocks.read_orientation(Metadata(exif=broken)) == 1
    assert not blocks.with_size(Metadata(exif=broken), 1, 1).exif


@pytest.mark.parametrize("value", [0, -72, 1e12, float("nan"), float("inf")])
def test_a_resolution_that_no_device_has_is_left_out(value):
    assert blocks.normalize_dpi(value, 72) is None and blocks.normalize_dpi(72, value) is None
    assert blocks.normalize_dpi(72, 300.5) == (72.0, 300.5)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "JPEG"])
def test_an_absurd_resolution_of_a_tiff_does_not_stop_the_writer(format):
    absurd = pillow_file(Image.fromarray(smooth()), "TIFF", dpi=(4e9, 4e9))
    header, pixels = read_still(absurd)
    assert header.metadata.dpi is None
    assert read_still(saved_still(pixels, format, header.metadata))[0].format == format


def test_directories_that_point_at_each_other_are_read_once():
    loop = bytearray(exif_block())
    at = loop.index(struct.pack("<HHII", 40965, 4, 1, 300))
    loop[at + 8 : at + 12] = struct.pack("<I", 200)
    assert exif_of(blocks.with_size(Metadata(exif=bytes(loop)), 5, 6).exif)[ExifTags.Base.Orientation] == 1


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0", b"\0\0\0\0", b"\0\0\0\6Exif\0\0"])
def test_prefixes_of_containers_are_removed(prefix):
    assert blocks.normalize_exif(prefix + exif_block()) == exif_block()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("format", WITH_EXIF)
def test_every_block_survives_in_every_format_with_room(format, dtype):
    pixels = smooth().astype(dtype)
    held = FORMATS[format].metadata
    given = blocks.with_size(everything(), WIDTH, HEIGHT)
    header, _ = read_still(saved_still(pixels, format, given))
    kept = header.metadata
    assert kept.icc == given.icc and kept.xmp == given.xmp
    assert kept.iptc == (IPTC if "iptc" in held else None)
    if "dpi" in held:
        assert kept.dpi == pytest.approx((300, 150), abs=0.02)
    assert dict(kept.text).get("comment") == ("grüße" if {"text", "comment"} & set(held) else None)
    assert dict(kept.text).get("parameters") == ("steps 20 \u2603" if "text" in held else None)
    exif = exif_of(kept.exif)
    assert exif.get_ifd(ExifTags.IFD.Exif)[37500] == MAKER_NOTE
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N"} and exif.get_ifd(ExifTags.IFD.Interop) == {1: "R98"}
    if format != "TIFF":  # a TIFF's EXIF is spread over its directories
        assert kept.exif == (blocks.without_orientation(given.exif) if format == "AVIF" else given.exif)


@pytest.mark.parametrize("format", WITH_EXIF)
def test_pillow_reads_the_same_blocks(format):
    if format == "JPEG2000":
        pytest.skip("Pillow reads no metadata of JPEG 2000")
    given = blocks.with_size(everything(), WIDTH, HEIGHT)
    with Image.open(io.BytesIO(saved_still(smooth(), format, given))) as image:
        image.load()
        assert image.info["icc_profile"] == given.icc
        assert image.getexif()[ExifTags.Base.Make] == "Cam"
        assert image.getexif().get_ifd(ExifTags.IFD.Exif)[37500] == MAKER_NOTE
        xmp = image.tag_v2[700] if format == "TIFF" else image.info.get("xmp")
        assert xmp == given.xmp
        if format == "JPEG":
            assert image.info["photoshop"][0x0404] == IPTC and image.info["comment"] == "grüße".encode()


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_details_are_read_by_tifffile_in_either_byte_order(order):
    metadata = blocks.with_size(replace(everything(), exif=exif_block(1, order)), WIDTH, HEIGHT)
    data = saved_still(smooth(), "TIFF", metadata)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        assert tiff.byteorder == order and len(tiff.pages) == 1
        tags = tiff.pages[0].tags
        assert tags["ExifTag"].value["MakerNote"] == MAKER_NOTE and tags["GPSTag"].value["GPSLatitudeRef"] == "N"
        assert tags["Make"].value == "Cam" and bytes(tags[33723].value) == IPTC
        np.testing.assert_array_equal(tiff.pages[0].asarray(), smooth())
    header, pixels = read_still(data)
    np.testing.assert_array_equal(pixels, smooth())
    assert header.metadata.dpi == (300, 150)


def test_metadata_none_keeps_profile_and_color_chunks():
    chunks = ((b"gAMA", struct.pack(">I", 45455)),)
    metadata = replace(everything(), color_chunks=chunks)
    for format in WITH_EXIF:
        kept = read_still(saved_still(smooth(), format, metadata, metadata="none"))[0].metadata
        expected = Metadata(icc=metadata.icc, color_chunks=chunks if format == "PNG" else ())
        assert replace(kept, dpi=None) == expected


def test_png_color_chunks_and_compressed_text_are_kept():
    image = pillow_file(Image.fromarray(smooth()), "PNG")
    gamma = png.make_chunk(b"gAMA", struct.pack(">I", 100000))
    text = png.make_chunk(b"zTXt", b"long\0\0" + zlib.compress(b"x" * 5000))
    header, pixels = read_still(image[:33] + gamma + text + image[33:])
    assert header.metadata.color_chunks == ((b"gAMA", struct.pack(">I", 100000)),)
    assert header.metadata.text == (("long", "x" * 5000),)
    assert read_still(saved_still(pixels, "PNG", header.metadata))[0].metadata == header.metadata


def test_the_orientation_tag_is_removed_without_moving_the_rest():
    for order in "<>":
        exif = blocks.without_orientation(exif_block(6, order))
        assert len(exif) == len(exif_block()) and exif.index(MAKER_NOTE) == exif_block().index(MAKER_NOTE)
        assert ExifTags.Base.Orientation not in exif_of(exif) and exif_of(exif)[ExifTags.Base.Make] == "Cam"
        assert blocks.without_orientation(exif) == exif


def test_a_text_chunk_that_decompresses_to_too_much_is_left_out(monkeypatch):
    monkeypatch.setattr("dsclora_cli.imaging.containers.png_text._MAX_TEXT", 2**16)
    bomb = png.make_chunk(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(2**17)))
    image = saved_still(smooth(), "PNG")
    header = read_still(image[:33] + bomb + image[33:])[0]
    assert header.metadata.text == ()
    assert header.notes == ('texts that are damaged, double or too long were left out: "bomb"',)


def test_iptc_is_found_among_other_image_resources():
    other = b"8BIM" + struct.pack(">H", 0x03ED) + b"\3abc" + struct.pack(">I", 3) + b"xyz\0"
    assert blocks.extract_iptc(other + blocks.wrap_iptc(IPTC)) == IPTC
    assert blocks.extract_iptc(b"Photoshop 3.0\0" + other) is None
    assert blocks.extract_iptc(IPTC) == IPTC


@pytest.mark.parametrize("block", ["exif", "xmp", "iptc"])
def test_blocks_too_long_for_jpeg_are_left_out_with_a_note(block):
    long = exif_block() + bytes(70_000) if block == "exif" else b"\x1c" + bytes(70_000)
    header = header_of(smooth(), "JPEG", Metadata(**{block: long}))
    fitted, notes = fit_format(header, "JPEG", strict=True)
    assert getattr(fitted.metadata, block) is None
    assert notes == (f"JPEG has no room for {block.upper()} of that length",)
    assert getattr(read_still(saved_still(smooth(), "JPEG", header.metadata))[0].metadata, block) is None


def test_a_long_profile_is_split_over_jpeg_segments():
    profile = everything().icc + bytes(range(256)) * 1000
    assert read_still(saved_still(smooth(), "JPEG", Metadata(icc=profile)))[0].metadata.icc == profile


def test_the_extended_part_of_jpeg_xmp_is_left_out_with_the_link_to_it():
    xmp = b'<x:xmpmeta xmpNote:HasExtendedXMP="0123" a="b"/>'
    payload = b"http://ns.adobe.com/xmp/extension/\0" + bytes(60)
    extra = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    header, _ = read_still(pillow_file(Image.fromarray(smooth()), "JPEG", xmp=xmp, extra=extra))
    assert header.metadata.xmp == b'<x:xmpmeta a="b"/>'
    assert header.notes == ("the extended part of the XMP was left out",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        b" " * 10,
        b"\n",
        b"<tiff:ImageWidth ",
        b"<tiff:ImageWidth>",
        b"<xmp:Thumbnails>",
        b"<xmp:Thumbnails ",
        b"xmpNote:HasExtendedXMP ",
        b"xmpNote:HasExtendedXMP='",
        b"tiff:Orientation =",
    ],
)
def test_long_xmp_takes_linear_time(part):
    """Megabytes of blanks or of unfinished properties pass through; a quadratic search would take hours."""
    xmp = b"<x:xmpmeta>" + part * (2**21 // len(part)) + b"</x:xmpmeta>"
    kept = blocks.with_size(Metadata(xmp=blocks.normalize_xmp(xmp)), 5, 4).xmp
    assert kept is not None and kept.startswith(b"<x:xmpmeta>") and kept.endswith(b"</x:xmpmeta>")


def test_thumbnails_are_removed_from_xmp_wherever_they_end():
    inner = b"<a/><xmp:Thumbnails>1<b/></xmp:Thumbnails>2<xmp:Thumbnails x='1'/>3<xmp:Thumbnails>4"
    assert blocks.with_size(Metadata(xmp=inner), 5, 4).xmp == b"<a/>23<xmp:Thumbnails>4"


def jpeg_with(exif: bytes = b"", xmp: bytes = b"") -> bytes:
    """Return a JPEG with raw blocks, as other programs write them."""
    data = pillow_file(Image.fromarray(smooth()), "JPEG")
    parts = (b"Exif\0\0" + exif if exif else b"", b"http://ns.adobe.com/xap/1.0/\0" + xmp if xmp else b"")
    segments = (b"\xff\xe1" + struct.pack(">H", len(part) + 2) + part for part in parts if part)
    return data[:2] + b"".join(segments) + data[2:]


def one_tag(kind: int, count: int, value: bytes, order: str = "<", claimed: int = 1) -> bytes:
    """Return EXIF with an orientation of any type, in a directory that claims any number of entries."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, claimed)
    long_value = struct.pack(order + "I", 26) if len(value) > 4 else value.ljust(4, b"\0")
    return (
        head + struct.pack(order + "HHI", 274, kind, count) + long_value + bytes(4) + (value if len(value) > 4 else b"")
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [(1, b"\6"), (2, b"6\0"), (3, b"\0\6"), (4, b"\0\0\0\6"), (5, b"\0\0\0\6\0\0\0\1"), (7, b"\6"), (9, b"\0\0\0\6")],
)
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_an_orientation_of_any_type_turns_the_picture_and_is_reset(kind, value, format):
    count = len(value) if kind in (1, 2, 7) else 1
    if format == "JPEG":
        data = jpeg_with(one_tag(kind, count, value, ">"))
    else:
        buffer = io.BytesIO()
        # Numbers of the file are little-endian.
        stored = {2: value, 5: value[3::-1] + value[:3:-1]}.get(kind, value[::-1])
        tifffile.imwrite(buffer, smooth(), photometric="rgb", extratags=[(274, kind, count, stored, True)])
        data = buffer.getvalue()
    header, pixels = read_still(data)
    assert pixels.shape == (WIDTH, HEIGHT, 3) and (header.width, header.height) == (HEIGHT, WIDTH)
    assert blocks.read_orientation(header.metadata) == 1


@pytest.mark.parametrize("form", ['tiff:Orientation="6"', "t:Orientation='6' xmlns:t='http://ns.adobe.com/tiff/1.0/'"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_orientation_in_xmp_alone_turns_the_picture(format, form):
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {form}/></x:xmpmeta>'.encode()
    header, pixels = read_still(saved_still(smooth(), format, Metadata(xmp=packet)))
    assert pixels.shape == (WIDTH, HEIGHT, 3)
    assert b"6" not in header.metadata.xmp.split(b"xmlns:t")[0] and blocks.read_orientation(header.metadata) == 1
    # EXIF comes before XMP.
    if format in ("JPEG", "WEBP"):
        both = Metadata(exif=exif_block(1), xmp=packet)
        assert read_still(saved_still(smooth(), format, both))[1].shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("claimed", [2, 9, 4000])
def test_exif_that_claims_more_entries_than_there_are_is_read_and_mended(claimed):
    header, pixels = read_still(jpeg_with(one_tag(3, 1, b"\6\0", claimed=claimed)))
    assert pixels.shape == (WIDTH, HEIGHT, 3) and header.notes == ()
    assert exif_of(header.metadata.exif)[ExifTags.Base.Orientation] == 1 and header.metadata.exif[8:10] == b"\1\0"


@pytest.mark.parametrize("broken", [b"II*\0\xff\xff\xff\x7f", b"nothing", b"II+\0\x08\0\0\0\x10" + bytes(24)])
def test_damaged_exif_is_left_out_and_told(broken):
    header, _ = read_still(jpeg_with(broken))
    assert header.metadata.exif is None and header.notes == ("EXIF is damaged and was left out",)


def places(order: str = "<") -> bytes:
    """Return EXIF with the resolution of the sensor, and the place of the subject, in pixels."""
    entries = {
        41486: tiff_ifd.Entry(5, struct.pack(order + "II", 1000, 1)),
        41487: tiff_ifd.Entry(5, struct.pack(order + "II", 500, 3)),
        37396: tiff_ifd.Entry(3, struct.pack(order + "4H", 10, 20, 6, 4)),
        41492: tiff_ifd.Entry(3, struct.pack(order + "2H", 10, 20)),
    }
    return tiff_ifd.pack_exif({tiff_ifd.EXIF_IFD: tiff_ifd.Entry(4, bytes(4), sub=entries)}, order)


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_counts_pixels_in_exif_is_scaled_and_turned(order):
    grown = blocks.with_size(Metadata(exif=places(order)), 80, 60, (40, 30))
    details = exif_of(grown.exif).get_ifd(ExifTags.IFD.Exif)
    assert (details[41486], details[41487]) == (2000, pytest.approx(1000 / 3))
    assert (details[37396], details[41492]) == ((20, 40, 12, 8), (20, 40))
    turned = blocks.with_size(Metadata(exif=places(order)), 30, 40, orientation=6)
    details = exif_of(turned.exif).get_ifd(ExifTags.IFD.Exif)
    assert (details[41486], details[41487]) == (pytest.approx(500 / 3), 1000)
    assert (details[37396], details[41492]) == ((10, 10, 4, 6), (10, 10))


def test_all_comments_are_kept_with_their_bytes():
    comments = (b"first", "Café à Zürich".encode("latin-1"), "grüße".encode(), b"x" * 70_000)
    data = pillow_file(Image.fromarray(smooth()), "JPEG")
    parts = [comment[at : at + 65531] for comment in comments for at in range(0, len(comment), 65531)]
    segments = b"".join(b"\xff\xfe" + struct.pack(">H", len(part) + 2) + part for part in parts)
    header, _ = read_still(data[:2] + segments + data[2:])
    assert header.metadata.comments == parts
    for format in ("JPEG", "GIF"):
        written = saved_still(smooth(), format, header.metadata)
        assert all(comment in written for comment in comments[:3])
    again, _ = read_still(saved_still(smooth(), "JPEG", header.metadata))
    assert sorted(again.metadata.comments) == sorted(parts)
    texts = read_still(saved_still(smooth(), "PNG", header.metadata))[0].metadata.text
    assert [value for _, value in texts][:3] == ["first", "Café à Zürich", "grüße"]


def test_texts_of_a_png_are_kept_with_their_language_and_repeated_keywords():
    chunks = [b"Comment\0first", b"Comment\0second"]
    language = b"Title\0\0\0de\0Titel\0Ansicht"
    extra = b"".join(png.make_chunk(b"tEXt", data) for data in chunks) + png.make_chunk(b"iTXt", language)
    data = saved_still(smooth(), "PNG")
    header, _ = read_still(data[:33] + extra + data[33:])
    written = saved_still(smooth(), "PNG", header.metadata)
    assert all(part in written for part in (*chunks, language))
    assert fit_format(header, "JPEG", strict=False)[1] == ('JPEG has no room for text "Title"',)


def test_exif_whose_directory_lies_over_its_header_is_left_out():
    """The number of entries is written anew, which would damage the header: no writer could read the block again."""
    block = b"II*\0" + struct.pack("<I", 3) + bytes.fromhex("0402000102000400000043616d00120103000100") + bytes(9300)
    assert tiff_ifd.parse_exif(block)[1].entries is not None
    assert blocks.normalize_exif(b"Exif\0\0" + block) is None
