"""PNG: chunks of other programs, bands, palettes, and damage."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import (
    IPTC,
    XMP,
    animation,
    exif_block,
    header_of,
    noise,
    pillow_file,
    read,
    read_still,
    rgb_profile,
    saved,
    saved_still,
    smooth,
)
from PIL import Image

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Metadata, StreamedFrame


def with_chunks(*chunks: bytes, at_end: bool = False) -> bytes:
    """Return a PNG with chunks added after IHDR or before IEND."""
    data = saved_still(smooth(), "PNG")
    place = len(data) - 12 if at_end else 33
    return data[:place] + b"".join(chunks) + data[place:]


def with_wrong_checksum(chunk: bytes) -> bytes:
    """Return a chunk whose content does not match its checksum."""
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


def raw_profile(kind: str, data: bytes) -> bytes:
    """Return a metadata block as ImageMagick and ExifTool hide it in text."""
    text = f"\n{kind}\n{len(data):8}\n{data.hex()}\n".encode()
    return png.make_chunk(b"zTXt", f"Raw profile type {kind}".encode() + b"\0\0" + zlib.compress(text))


@pytest.mark.parametrize("at_end", [False, True])
def test_metadata_before_and_after_the_pixels(at_end):
    xmp = png.make_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    title = png.make_chunk(b"tEXt", b"Title\0caf\xe9")
    density = png.make_chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1))
    header, pixels = read_still(with_chunks(xmp, title, density, png.make_chunk(b"eXIf", exif_block()), at_end=at_end))
    metadata = header.metadata
    assert b"dc:title" in metadata.xmp and metadata.text == (("Title", "café"),)
    assert metadata.dpi == pytest.approx((300, 150), abs=0.02) and metadata.exif
    np.testing.assert_array_equal(pixels, smooth())


def test_raw_profiles_are_read_as_metadata_and_not_as_text():
    resources = blocks.wrap_iptc(IPTC)
    header, _ = read_still(with_chunks(raw_profile("iptc", resources), raw_profile("exif", b"Exif\0\0" + exif_block())))
    assert header.metadata.iptc == IPTC and header.metadata.text == ()
    assert blocks.normalize_exif(header.metadata.exif) == header.metadata.exif
    damaged = png.make_chunk(b"tEXt", b"Raw profile type iptc\0\niptc\n 4\nnothex\n")
    assert read_still(with_chunks(damaged))[0].metadata.iptc is None


@pytest.mark.parametrize(
    "chunk",
    [
        png.make_chunk(b"iCCP", b"name\0\0" + b"not compressed"),
        png.make_chunk(b"pHYs", struct.pack(">IIB", 1, 1, 0)),
        png.make_chunk(b"pHYs", b"short"),
        png.make_chunk(b"eXIf", b"nonsense"),
        png.make_chunk(b"zTXt", b"key\0\0" + b"damaged"),
    ],
)
def test_damaged_metadata_is_left_out(chunk):
    header, pixels = read_still(with_chunks(chunk))
    metadata = header.metadata
    assert metadata.icc is None and metadata.dpi is None and metadata.exif is None and metadata.text == ()
    np.testing.assert_array_equal(pixels, smooth())


@pytest.mark.parametrize(
    "chunk",
    [
        png.make_chunk(b"gAMA", struct.pack(">I", 100_000)),
        png.make_chunk(b"cICP", bytes((9, 16, 0, 1))),
        png.make_chunk(b"iCCP", b"name\0\0" + zlib.compress(rgb_profile())),
        png.make_chunk(b"pHYs", struct.pack(">IIB", 11811, 5906, 1)),
        png.make_chunk(b"eXIf", exif_block(6)),
        png.make_chunk(b"tEXt", b"Title\0text"),
        png.make_chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"text")),
        png.make_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        raw_profile("iptc", IPTC),
    ],
    ids=lambda chunk: chunk[4:8].decode(),
)
@pytest.mark.parametrize("at_end", [False, True])
def test_metadata_with_a_wrong_checksum_is_left_out_and_told(chunk, at_end):
    whole, _ = read_still(with_chunks(chunk, at_end=at_end))
    assert whole.metadata != Metadata() and whole.notes == ()
    header, pixels = read_still(with_chunks(with_wrong_checksum(chunk), at_end=at_end))
    assert header.metadata == Metadata()
    assert header.notes == (f"damaged chunks of the PNG were left out: {chunk[4:8].decode()}",)
    np.testing.assert_array_equal(pixels, smooth())
    # A chunk of the same kind that is whole counts, and damage in a chunk that is never read needs no word.
    unread = with_wrong_checksum(png.make_chunk(b"tIME", bytes(7)))
    both, _ = read_still(with_chunks(with_wrong_checksum(chunk), chunk, unread, at_end=at_end))
    assert both.metadata == whole.metadata and both.notes == header.notes


# The damaged control of the last frame leaves open where the frame before ends.
@pytest.mark.parametrize(("kind", "left"), [(b"acTL", 1), (b"fcTL", 2)])
def test_an_animation_with_a_damaged_control_is_an_error_and_salvaged_as_far_as_it_goes(kind, left):
    frames, _ = animation(count=4)
    data = saved(header_of(frames[0].pixels, "PNG", frames=4, animated=True), frames)
    at = data.rindex(kind)
    size = int.from_bytes(data[at - 4 : at], "big")
    damaged = data[: at - 4] + with_wrong_checksum(data[at - 4 : at + size + 8]) + data[at + size + 8 :]
    with pytest.raises(ImageError, match="the pixels of this PNG are damaged"):
        read(damaged)
    with open_picture(damaged, ReadOptions(salvage=True)) as reader:
        salvaged = list(reader.frames())
    assert len(salvaged) == left and any("salvaged" in note for note in reader.header.notes)
    np.testing.assert_array_equal(salvaged[0].pixels, frames[0].pixels)


@pytest.mark.parametrize("compression", [0, 1, 2, 6, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_do_not_depend_on_the_bands(channels, dtype, compression, monkeypatch):
    monkeypatch.setattr(png, "_PART", 1000)
    pixels = noise(channels, dtype, (150, 70))
    for cuts in ([], [1], [40, 41, 149]):
        file = io.BytesIO()
        png.write_png(file, StreamedFrame(pixels.shape, np.split(pixels, cuts)), Metadata(), compression)
        header, read = read_still(file.getvalue())
        np.testing.assert_array_equal(read, pixels)
        assert (header.channels, header.dtype) == (channels, dtype)
        Image.open(file).load()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_a_wrong_checksum_of_a_chunk_with_pixels_is_an_error(kind):
    data = bytearray(saved_still(smooth(), "PNG"))
    at = data.index(kind)
    (size,) = struct.unpack_from(">I", data, at - 4)
    data[at + 4 + size] ^= 1
    with pytest.raises(ImageError, match="the pixels of this PNG are damaged"):
        read_still(bytes(data))


def test_interlaced_pictures_are_read_without_a_message(capfd):
    """All passes but the first of a 1 x 1 picture are empty, so the data are the same without interlacing."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 1)
    data = (
        png.make_chunk(b"IHDR", head)
        + png.make_chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
        + png.make_chunk(b"IEND", b"")
    )
    assert read_still(png.SIGNATURE + data)[1].ravel().tolist() == [1, 2, 3]
    assert capfd.readouterr().err == ""


def test_long_keywords_are_cut_and_empty_ones_replaced():
    written = png.metadata_chunks(blocks.Metadata(text=(("k" * 100, "v"), ("", "x"))))
    kinds = list(png.read_chunks(io.BytesIO(png.SIGNATURE + written + png.make_chunk(b"IEND", b""))))
    assert [data for _, data in kinds[:2]] == [b"k" * 79 + b"\0v", b"Comment\0x"]


def test_palettes_small_depths_and_transparent_colors_are_read_as_pillow_reads_them():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    color = Image.fromarray(np.stack([gray, gray.T, 255 - gray], axis=2))
    cases = {
        "1-bit": (Image.fromarray(gray).convert("1"), {}, "L"),
        "palette": (color.quantize(200), {}, "RGB"),
        "palette with holes": (color.quantize(16), {"transparency": bytes(range(0, 160, 10))}, "RGBA"),
        "gray with a hole": (Image.fromarray(gray), {"transparency": 7}, "LA"),
        "RGB with a hole": (color, {"transparency": (0, 0, 255)}, "RGBA"),
    }
    for name, (image, options, mode) in cases.items():
        data = pillow_file(image, "PNG", **options)
        header, pixels = read_still(data)
        with Image.open(io.BytesIO(data)) as again:
            expected = np.asarray(again.convert(mode)).reshape(16, 16, -1)
        assert header.channels == len(mode), name
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


def test_a_transparent_color_of_16_bits_becomes_alpha():
    pixels = noise(3, np.uint16)
    pixels[3, 4] = (1000, 2000, 3000)
    data = saved_still(pixels, "PNG")
    hole = struct.pack(">HHH", 1000, 2000, 3000)
    header, again = read_still(data[:33] + png.make_chunk(b"tRNS", hole) + data[33:])
    assert (header.channels, header.dtype) == (4, np.uint16)
    np.testing.assert_array_equal(again[..., :3], pixels)
    assert np.argwhere(again[..., 3] == 0).tolist() == [[3, 4]] and set(np.unique(again[..., 3])) == {0, 65535}


@pytest.mark.slow
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 3000), st.integers(0, 9))
def test_compressed_bytes_do_not_depend_on_the_bands(heights: list[int], part: int, compression: int) -> None:
    picture = noise(3, size=(sum(heights), 17))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "_PART", part)
        bands = np.split(picture, np.cumsum(heights)[:-1])
        parts = list(png.compress_rows(iter(bands), compression))
        assert parts == list(png.compress_rows(iter([picture]), compression))


@pytest.mark.parametrize("surplus", ["rows", "bytes", "both", "many bytes"])
def test_more_pixels_than_the_size_are_left_out_and_libpng_prints_nothing(surplus, capfd):
    pixels = smooth()
    rows = np.concatenate([np.zeros((len(pixels), 1), np.uint8), pixels.reshape(len(pixels), -1)], axis=1).tobytes()
    rows += bytes(300) * (surplus in ("rows", "both"))
    data = zlib.compress(rows) + b"behind" * (0 if surplus == "rows" else 20000 if surplus == "many bytes" else 1)
    head = png.header_chunk(pixels.shape, pixels.dtype)
    parts = (png.SIGNATURE, head, png.make_chunk(b"IDAT", data), png.make_chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_still(b"".join(parts))[1], pixels)
    assert capfd.readouterr().err == ""
