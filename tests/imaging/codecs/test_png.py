"""PNG chunks, as other programs write them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import IPTC, XMP, exif_block, noise, read_still, saved_still, smooth
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.types import Metadata, StreamedFrame


def with_chunks(*chunks: bytes, at_end: bool = False) -> bytes:
    """A PNG with chunks after its IHDR, or before its IEND."""
    data = saved_still(smooth(), "PNG")
    place = len(data) - 12 if at_end else 33
    return data[:place] + b"".join(chunks) + data[place:]


def raw_profile(kind: str, data: bytes) -> bytes:
    """How ImageMagick and ExifTool hide a block in text."""
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


def test_raw_profiles_are_blocks_and_no_text():
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
def test_damaged_metadata_does_not_cost_the_picture(chunk):
    header, pixels = read_still(with_chunks(chunk))
    metadata = header.metadata
    assert metadata.icc is None and metadata.dpi is None and metadata.exif is None and metadata.text == ()
    np.testing.assert_array_equal(pixels, smooth())


@pytest.mark.parametrize("compression", [0, 1, 2, 6, 9])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_bands_make_the_same_pixels(channels, dtype, compression, monkeypatch):
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
def test_checksums_of_what_pixels_need_are_checked(kind):
    data = bytearray(saved_still(smooth(), "PNG"))
    at = data.index(kind)
    (size,) = struct.unpack_from(">I", data, at - 4)
    data[at + 4 + size] ^= 1
    with pytest.raises(ImageError, match="the pixels of this PNG are damaged"):
        read_still(bytes(data))


def test_interlaced_pictures_are_read_in_silence(capfd):
    """A 1 x 1 picture is the same in all its passes but the first, which are empty."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 1)
    data = (
        png.make_chunk(b"IHDR", head)
        + png.make_chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
        + png.make_chunk(b"IEND", b"")
    )
    assert read_still(png.SIGNATURE + data)[1].ravel().tolist() == [1, 2, 3]
    assert capfd.readouterr().err == ""


def test_keywords_keep_to_their_length():
    written = png.metadata_chunks(blocks.Metadata(text=(("k" * 100, "v"), ("", "x"))))
    kinds = list(png.read_chunks(io.BytesIO(png.SIGNATURE + written + png.make_chunk(b"IEND", b""))))
    assert [data for _, data in kinds[:2]] == [b"k" * 79 + b"\0v", b"Comment\0x"]
