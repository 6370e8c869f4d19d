"""TIFF out: pages, tiles, BigTIFF and byte order."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import HEIGHT, WIDTH, everything, exif_block, header_of, noise, read, read_still, rgb_profile, saved
from PIL import Image

from dsclora_cli.config import SaveOptions
from dsclora_cli.imaging.codecs.tiff_writer import write_tiff
from dsclora_cli.imaging.metadata import with_size
from dsclora_cli.imaging.types import Frame, Metadata, StreamedFrame
from dsclora_cli.imaging.writer import fit_format, write_picture


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pages_are_written_and_read_one_by_one(dtype):
    pages = [Frame(noise(3, dtype) // (2 if dtype is not np.float32 else 1)), Frame(noise(3, dtype))]
    metadata = Metadata(icc=rgb_profile(), dpi=(300, 300), xmp=b"<x/>")
    header, again = read(saved(header_of(pages[0].pixels, "TIFF", metadata, frames=2), iter(pages)))
    assert (header.frames, header.animated, header.metadata) == (2, False, metadata)
    for page, frame in zip(pages, again, strict=True):
        np.testing.assert_array_equal(frame.pixels, page.pixels)
        assert frame.duration_ms is None


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


@pytest.mark.parametrize("channels", [1, 3])
def test_bigtiff_is_written_where_32_bit_offsets_would_not_do(channels, monkeypatch):
    monkeypatch.setattr("dsclora_cli.imaging.codecs.tiff_writer._CLASSIC_LIMIT", 1000)

    pixels = noise(channels, np.uint16)
    data = saved(header_of(pixels, "TIFF", with_size(everything(), WIDTH, HEIGHT)), [Frame(pixels)])
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
def test_pixels_have_the_byte_order_of_the_exif(dtype, compression, tiled, monkeypatch):
    """Many cameras write big-endian EXIF, whose raw values need a big-endian TIFF."""
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
def test_large_pages_are_written_in_tiles_as_bands_arrive(channels, dtype, compression, monkeypatch):
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
