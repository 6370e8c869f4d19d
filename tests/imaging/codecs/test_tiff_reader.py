"""TIFF of every kind people have: depths, layouts, photometrics, pages, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import (
    HEIGHT,
    WIDTH,
    exif_block,
    header_of,
    noise,
    pillow_file,
    read,
    read_still,
    rgb_profile,
    saved,
    smooth,
)
from PIL import Image

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs.tiff_writer import write_tiff
from dsclora_cli.imaging.types import Frame, Metadata, StreamedFrame
from dsclora_cli.imaging.writer import fit_format, write_picture


def tiff(pixels, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zstd"},
        {"tile": (16, 32)},
        {"rowsperstrip": 5},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"planarconfig": "separate"},
    ],
    ids=str,
)
def test_layouts(dtype, options):
    pixels = noise(3, dtype)
    stored = np.moveaxis(pixels, 2, 0) if "planarconfig" in options else pixels
    header, again = read_still(tiff(stored, photometric="rgb", **options))
    assert header.dtype == dtype and again.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_white_as_zero_is_turned_round(dtype):
    pixels = noise(1, dtype)
    white = 1 if dtype is np.float32 else np.iinfo(dtype).max
    _, again = read_still(tiff(pixels[..., 0], photometric="miniswhite"))
    np.testing.assert_array_equal(again, white - pixels)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32_with_a_note(dtype):
    pixels = (noise(3, np.float32) * 7 - 2).astype(dtype)
    header, again = read_still(tiff(pixels, photometric="rgb"))
    assert header.dtype == np.float32
    assert header.notes == (f"{np.dtype(dtype).name} samples were converted to float32",)
    np.testing.assert_array_equal(again, pixels.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    pixels = noise(1, np.float32)
    pixels[3, 4] = bad
    with pytest.raises(ImageError, match="holds NaN or infinity"):
        read(tiff(pixels[..., 0]))


@pytest.mark.parametrize("dtype", [np.uint32, np.int16, np.int8, np.complex64])
def test_other_samples_are_refused_by_name(dtype):
    with pytest.raises(ImageError, match=f"{np.dtype(dtype).name} samples is not supported") as caught:
        read(tiff(np.zeros((9, 9), dtype)))
    assert caught.value.hint == "convert it to 16-bit or to float"


def test_layouts_that_nothing_reads_are_named():
    with pytest.raises(ImageError, match="TIFF with 32-bit CIELAB samples is not supported"):
        read(tiff(noise(3, np.float32), photometric="cielab"))


def test_premultiplied_colour_is_divided_by_its_alpha():
    pixels = noise(4, np.uint16)
    pixels[..., 3] = np.maximum(pixels[..., 3], 20_000)
    pixels[0, 0] = 0
    shares = pixels[..., 3:] / 65535
    stored = np.concatenate([np.rint(pixels[..., :3] * shares).astype(np.uint16), pixels[..., 3:]], axis=2)
    _, again = read_still(tiff(stored, photometric="rgb", extrasamples=["assocalpha"]))
    assert np.abs(again.astype(int) - pixels).max() <= 2 and (again[0, 0] == 0).all()


def test_further_channels_are_left_out_with_a_note():
    pixels = np.concatenate([noise(4), noise(2)], axis=2)
    header, again = read_still(tiff(pixels, photometric="rgb"))
    assert header.channels == 4 and header.notes == ("2 extra channels of the TIFF were left out",)
    np.testing.assert_array_equal(again, pixels[..., :4])


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw", "packbits"])
def test_1_bit(compression):
    image = Image.fromarray(smooth()).convert("1")
    header, pixels = read_still(pillow_file(image, "TIFF", compression=compression))
    assert header.channels == 1
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(image.convert("L")))


def test_jpeg_in_tiff_is_read_as_colours():
    header, pixels = read_still(pillow_file(Image.fromarray(smooth()), "TIFF", compression="jpeg", quality=95))
    assert header.channels == 3 and np.abs(pixels.astype(int) - smooth()).mean() < 3


def test_ycbcr_and_lab():
    image = Image.fromarray(smooth())
    header, pixels = read_still(pillow_file(image.convert("YCbCr"), "TIFF"))
    assert header.channels == 3 and header.notes == ()
    assert np.abs(pixels.astype(int) - smooth()).max() <= 3
    lab = Image.new("LAB", (4, 3), (255, 128, 128))
    header, pixels = read_still(pillow_file(Image.merge("LAB", lab.split()), "TIFF"))
    assert header.notes == ("Lab was converted to sRGB",) and header.metadata.icc
    assert pixels.shape == (3, 4, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "P"])
def test_orientation_of_both_ways_of_reading(mode, orientation):
    """RGB is read by tifffile and turned here, a palette by Pillow, which turns it itself."""
    image = Image.fromarray(smooth()).quantize(64)
    data = pillow_file(image.convert(mode), "TIFF", tiffinfo={274: orientation})
    with Image.open(io.BytesIO(data)) as theirs:
        theirs.load()
        expected = np.asarray(theirs.convert("RGB"))
    header, pixels = read_still(data)
    assert (header.height, header.width) == expected.shape[:2]
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_come_back_one_by_one(dtype):
    pages = [Frame(noise(3, dtype) // (2 if dtype is not np.float32 else 1)), Frame(noise(3, dtype))]
    metadata = Metadata(icc=rgb_profile(), dpi=(300, 300), xmp=b"<x/>")
    header, again = read(saved(header_of(pages[0].pixels, "TIFF", metadata, frames=2), iter(pages)))
    assert (header.frames, header.animated, header.metadata) == (2, False, metadata)
    for page, frame in zip(pages, again, strict=True):
        np.testing.assert_array_equal(frame.pixels, page.pixels)
        assert frame.duration_ms is None


def test_pages_of_different_channels_become_the_widest_of_them():
    buffer = io.BytesIO()
    grey, colours = noise(1), noise(4, np.uint16)
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(grey[..., 0])
        writer.write(colours, photometric="rgb", extrasamples=["unassalpha"])
    header, frames = read(buffer.getvalue())
    assert (header.channels, header.dtype, header.frames) == (4, np.uint16, 2)
    np.testing.assert_array_equal(frames[0].pixels[..., :3], (grey.astype(np.uint16) * 257).repeat(3, axis=2))
    assert (frames[0].pixels[..., 3] == 65535).all()
    np.testing.assert_array_equal(frames[1].pixels, colours)


def test_pages_of_different_sizes_are_read_and_written_each_as_it_is(tmp_path: Path):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(noise(1)[:9, :, 0])
        writer.write(noise(1)[..., 0])
    header, frames = read(buffer.getvalue())
    assert (header.width, header.height, header.frames) == (WIDTH, HEIGHT, 2)
    assert [frame.pixels.shape for frame in frames] == [(9, WIDTH, 1), (HEIGHT, WIDTH, 1)]
    write_picture(tmp_path / "pages.tif", header, frames, SaveOptions())
    with tifffile.TiffFile(tmp_path / "pages.tif") as tiff:
        for page, frame in zip(tiff.pages, frames, strict=True):
            np.testing.assert_array_equal(page.asarray(), frame.pixels[..., 0])
    fitted, notes = fit_format(header, "PNG", strict=False)
    write_picture(tmp_path / "first.png", fitted, frames, SaveOptions())
    assert "only the first of 2 pages" in notes[0]
    assert Image.open(tmp_path / "first.png").size == (WIDTH, 9)


def test_thumbnails_and_masks_are_no_pages():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(smooth()[::4, ::4], photometric="rgb", subfiletype=1)
        writer.write(smooth(), photometric="rgb")
    header, pixels = read_still(buffer.getvalue())
    assert (header.width, header.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(pixels, smooth())


def test_what_programs_note_for_themselves_is_not_kept():
    header, _ = read_still(tiff(smooth(), photometric="rgb", metadata={"axes": "YXS"}))
    assert b"shape" not in (header.metadata.exif or b"")


def test_resolution_in_centimetres_is_told_in_inches():
    data = tiff(smooth(), photometric="rgb", resolution=(100, 50), resolutionunit="centimeter")
    assert read_still(data)[0].metadata.dpi == pytest.approx((254, 127))


@pytest.mark.parametrize("channels", [1, 3])
def test_big_tiff_is_written_where_offsets_would_not_fit(channels, monkeypatch):
    monkeypatch.setattr("dsclora_cli.imaging.codecs.tiff_writer._CLASSIC_LIMIT", 1000)
    from pictures import everything

    pixels = noise(channels, np.uint16)
    data = saved(header_of(pixels, "TIFF", everything()), [Frame(pixels)])
    header, again = read_still(data)
    assert data[:4] == b"II+\0"
    np.testing.assert_array_equal(again, pixels)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.is_bigtiff and file.pages[0].tags["ExifTag"].value["MakerNote"].startswith(b"Maker")
        assert file.pages[0].tags["GPSTag"].value["GPSLatitudeRef"] == "N"
    assert header.metadata.xmp and header.metadata.iptc


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_get_the_byte_order_of_the_exif(dtype, compression, tiled, monkeypatch):
    """Cameras of several makers write big-endian EXIF; the raw values in a TIFF must have the order of the file."""
    monkeypatch.setattr("dsclora_cli.imaging.codecs.tiff_writer._TILED_FROM", 0 if tiled else 10**9)
    pixels = noise(3, dtype)
    metadata = Metadata(exif=exif_block(1, ">"))
    data = saved(header_of(pixels, "TIFF", metadata), [Frame(pixels)], compression=compression)
    assert data[:4] == b"MM\0*"
    np.testing.assert_array_equal(read_still(data)[1], pixels)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(data)), pixels)


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_large_pages_are_tiled_as_their_bands_come(channels, dtype, compression, monkeypatch):
    monkeypatch.setattr("dsclora_cli.imaging.codecs.tiff_writer._TILED_FROM", 500)
    monkeypatch.setattr("dsclora_cli.imaging.codecs.tiff_writer._TILE", 16)
    pages = [noise(channels, dtype, size) for size in ((40, 50), (33, 16))]
    header = replace(header_of(pages[0], "TIFF"), frames=2)
    frames = [StreamedFrame(page.shape, np.split(page, [7, 30])) for page in pages]
    buffer = io.BytesIO()
    write_tiff(buffer, header, frames, compression)
    _, again = read(buffer.getvalue())
    for page, frame in zip(pages, again, strict=True):
        np.testing.assert_array_equal(frame.pixels, page)
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as file:
        assert [page.is_tiled and page.tile for page in file.pages] == [(16, 16)] * 2
