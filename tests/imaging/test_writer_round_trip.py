"""Every format, depth and number of channels, written and read back, here and by other readers."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as some
from pictures import HEIGHT, WIDTH, header_of, noise, read_still, saved_still, smooth
from PIL import Image

from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.writer import fit_format

PHOTO = Path(__file__).parents[2] / "examples" / "photo.png"
LOSSLESS = (
    {("PNG", depth, channels) for depth in (np.uint8, np.uint16) for channels in (1, 2, 3, 4)}
    | {("TIFF", depth, channels) for depth in (np.uint8, np.uint16, np.float32) for channels in (1, 2, 3, 4)}
    | {("JPEG2000", depth, channels) for depth in (np.uint8, np.uint16) for channels in (1, 2, 3, 4)}
    | {("PPM", depth, channels) for depth in (np.uint8, np.uint16) for channels in (1, 3)}
    | {("BMP", np.uint8, channels) for channels in (1, 3)}
    | {("TGA", np.uint8, channels) for channels in (1, 2, 3, 4)}
    | {("GIF", np.uint8, 1)}
)
IDS = {"ids": lambda value: getattr(value, "__name__", str(value))}


@pytest.mark.parametrize(("format", "dtype", "channels"), sorted(LOSSLESS, key=str), **IDS)
def test_lossless_formats_return_every_value(format, dtype, channels):
    pixels = noise(channels, dtype)
    header, again = read_still(saved_still(pixels, format))
    assert header.format == format and (header.width, header.height) == (WIDTH, HEIGHT)
    assert header.channels == channels and header.dtype == again.dtype == dtype
    np.testing.assert_array_equal(again, pixels)


@pytest.mark.parametrize("channels", [3, 4])
def test_webp_of_quality_100_is_lossless_under_transparency_too(channels):
    pixels = noise(channels)
    if channels == 4:
        pixels[:10, :, 3] = 0
    np.testing.assert_array_equal(read_still(saved_still(pixels, "WEBP", quality=100))[1], pixels)


@pytest.mark.parametrize(
    ("format", "channels"), [("JPEG", 1), ("JPEG", 3), ("WEBP", 3), ("WEBP", 4), ("AVIF", 1), ("AVIF", 3), ("AVIF", 4)]
)
def test_lossy_formats_stay_close(format, channels):
    pixels = smooth(channels)
    header, again = read_still(saved_still(pixels, format))
    assert header.channels == channels
    assert np.abs(again.astype(int) - pixels).mean() < 1.5


@settings(max_examples=40, deadline=None)
@given(
    height=some.integers(1, 9),
    width=some.integers(1, 9),
    channels=some.sampled_from((1, 2, 3, 4)),
    dtype=some.sampled_from((np.uint8, np.uint16, np.float32)),
    format=some.sampled_from(sorted(name for name, abilities in FORMATS.items() if not abilities.extra)),
)
def test_the_file_holds_what_fit_format_promises(height, width, channels, dtype, format):
    pixels = noise(channels, dtype, (height, width))
    promised, _ = fit_format(header_of(pixels, format), format, strict=False)
    header, again = read_still(saved_still(pixels, format))
    assert (header.format, header.channels, header.dtype) == (format, promised.channels, promised.dtype)
    assert again.shape == (height, width, promised.channels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_readers_read_the_same_values(dtype, channels):
    pixels = noise(channels, dtype)
    flat = pixels[..., 0] if channels == 1 else pixels
    np.testing.assert_array_equal(imagecodecs.png_decode(saved_still(pixels, "PNG")), flat)
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(saved_still(pixels, "TIFF"))), flat)
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(saved_still(pixels, "JPEG2000")), flat)
    if dtype is np.uint8:
        for format in ("PNG", "TIFF", "JPEG2000", "TGA"):
            with Image.open(io.BytesIO(saved_still(pixels, format))) as image:
                assert image.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
                np.testing.assert_array_equal(np.asarray(image), flat)


def test_defaults_are_as_documented():
    pixels = smooth()
    with Image.open(io.BytesIO(saved_still(pixels, "JPEG"))) as image:
        assert image.layer == [(1, 1, 1, 0), (2, 1, 1, 1), (3, 1, 1, 1)]  # 4:4:4
        best = image.quantization
    with Image.open(io.BytesIO(saved_still(pixels, "JPEG", quality=60))) as image:
        assert sum(image.quantization[0]) > sum(best[0])
    photo = np.asarray(Image.open(PHOTO).convert("RGB"))
    sizes = [len(saved_still(photo, "PNG", compression=level)) for level in (0, 1, 2, 3, 9)]
    assert sizes[0] > sizes[1] == sizes[2] > sizes[3] > sizes[4]
    with tifffile.TiffFile(io.BytesIO(saved_still(pixels, "TIFF"))) as tiff:
        page = tiff.pages[0]
        assert (page.compression.name, page.predictor.name) == ("ADOBE_DEFLATE", "HORIZONTAL")
    with tifffile.TiffFile(io.BytesIO(saved_still(pixels, "TIFF", compression=0))) as tiff:
        assert tiff.pages[0].compression == 1
