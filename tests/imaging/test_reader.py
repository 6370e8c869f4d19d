"""Opening pictures: recognised by content, read lazily, upright, whole."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pictures import (
    HEIGHT,
    WIDTH,
    exif_block,
    noise,
    pillow_file,
    read_still,
    saved_still,
    smooth,
)
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.formats import FORMATS, detect_format, is_picture_name
from dsclora_cli.imaging.reader import open_picture

PLAIN = sorted(name for name, held in FORMATS.items() if not held.extra)


@pytest.mark.parametrize("format", PLAIN)
def test_the_name_does_not_matter_and_the_file_is_closed(format, tmp_path: Path):
    path = tmp_path / ("bild ä漢.tga" if format == "TGA" else "bild ä漢.txt")
    path.write_bytes(saved_still(smooth(), format))
    with open_picture(path) as reader:
        header = reader.header
        assert (header.format, header.width, header.height) == (format, WIDTH, HEIGHT)
        assert next(reader.frames()).pixels.shape == (HEIGHT, WIDTH, 3)
    assert reader._file.closed
    path.rename(tmp_path / "moved")  # Windows refuses while a file is open


def test_the_header_comes_before_any_pixel(tmp_path: Path):
    """Each file is cut in its pixels: opening succeeds, decoding is an error that names the file."""
    large = noise(3, np.uint8, (200, 300))
    for format in ("JPEG", "BMP", "PPM", "TGA", "JPEG2000"):
        data = saved_still(large, format)
        path = tmp_path / f"cut.{format.lower()}"
        path.write_bytes(data[: len(data) // 2])
        with open_picture(path) as reader:
            assert (reader.header.width, reader.header.height) == (300, 200)
            with pytest.raises(ImageError, match=re.escape(str(path))):
                list(reader.frames())


def test_no_limit_of_pillow_applies_below_it(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for format in ("JPEG", "PNG", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA"):
        assert read_still(saved_still(smooth(), format))[1].shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_applied_and_reset(format, orientation):
    pixels = smooth()
    if format == "TIFF":
        data = pillow_file(Image.fromarray(pixels), format, tiffinfo={274: orientation})
    else:
        options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
        exif = b"Exif\0\0" + exif_block(orientation)
        data = pillow_file(Image.fromarray(pixels), format, exif=exif, **options)
    expected = Image.fromarray(pixels)
    if orientation > 1:
        turn = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
        turn |= {6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
        expected = expected.transpose(Image.Transpose[turn[orientation]])
    header, upright = read_still(data)
    assert (header.width, header.height) == expected.size
    assert np.abs(upright.astype(int) - np.asarray(expected)).max() <= (3 if format == "JPEG" else 0)
    again, _ = read_still(saved_still(upright, format, header.metadata))
    assert (again.width, again.height) == expected.size


def test_small_and_palette_pngs_keep_what_they_are():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = Image.fromarray(np.stack([grey, grey.T, 255 - grey], axis=2))
    cases = {
        "1-bit": (Image.fromarray(grey).convert("1"), {}, "L"),
        "palette": (colour.quantize(200), {}, "RGB"),
        "palette with holes": (colour.quantize(16), {"transparency": bytes(range(0, 160, 10))}, "RGBA"),
        "grey with a hole": (Image.fromarray(grey), {"transparency": 7}, "LA"),
        "RGB with a hole": (colour, {"transparency": (0, 0, 255)}, "RGBA"),
    }
    for name, (image, options, mode) in cases.items():
        data = pillow_file(image, "PNG", **options)
        header, pixels = read_still(data)
        with Image.open(io.BytesIO(data)) as again:
            expected = np.asarray(again.convert(mode)).reshape(16, 16, -1)
        assert header.channels == len(mode), name
        np.testing.assert_array_equal(pixels, expected, err_msg=name)


def test_a_transparent_colour_of_16_bits_becomes_alpha():
    pixels = noise(3, np.uint16)
    pixels[3, 4] = (1000, 2000, 3000)
    data = saved_still(pixels, "PNG")
    hole = struct.pack(">HHH", 1000, 2000, 3000)
    header, again = read_still(data[:33] + png.make_chunk(b"tRNS", hole) + data[33:])
    assert (header.channels, header.dtype) == (4, np.uint16)
    np.testing.assert_array_equal(again[..., :3], pixels)
    assert np.argwhere(again[..., 3] == 0).tolist() == [[3, 4]] and set(np.unique(again[..., 3])) == {0, 65535}


@pytest.mark.parametrize("format", ["GIF", "BMP", "TGA", "TIFF"])
def test_palettes_and_1_bit_of_other_formats(format):
    colour = Image.fromarray(smooth())
    header, pixels = read_still(pillow_file(colour.quantize(16), format))
    assert header.channels == 3
    np.testing.assert_array_equal(pixels, np.asarray(colour.quantize(16).convert("RGB")))
    bits = colour.convert("1")
    header, pixels = read_still(pillow_file(bits, format))
    assert header.channels == 1
    np.testing.assert_array_equal(pixels[..., 0], np.asarray(bits.convert("L")))


@pytest.mark.parametrize(("bits", "channels"), [(10, 1), (12, 3), (16, 3)])
def test_jpeg_2000_of_more_than_8_bits_uses_the_full_16(bits, channels):
    pixels = noise(channels, np.uint16) >> (16 - bits)
    flat = pixels[..., 0] if channels == 1 else pixels
    data = imagecodecs.jpeg2k_encode(flat, level=0, codecformat="jp2", reversible=True, bitspersample=bits)
    header, again = read_still(bytes(data))
    assert header.dtype == np.uint16 and header.notes == ()
    np.testing.assert_array_equal(again, np.rint(pixels * (65535 / (2**bits - 1))).astype(np.uint16))


@pytest.mark.parametrize(
    "data",
    [
        b"P6 2 1 65535\n" + struct.pack(">6H", 0, 1, 2, 300, 65534, 65535),
        b"P3\n# a comment\n2 1\n# another\n65535\n0 1 2 # here too\n300 65534 65535\n",
    ],
)
def test_deep_ppm_keeps_its_values(data):
    header, pixels = read_still(data)
    assert (header.format, header.dtype) == ("PPM", np.uint16)
    assert pixels.ravel().tolist() == [0, 1, 2, 300, 65534, 65535]


def test_ppm_with_another_white_is_stretched():
    assert read_still(b"P5\n3 1\n1023\n" + struct.pack(">3H", 0, 512, 1023))[1].ravel().tolist() == [0, 32800, 65535]


def test_depth_that_is_cut_is_said():
    data = imagecodecs.avif_encode(noise(3, np.uint16) >> 6, level=90, bitspersample=10)
    header, _ = read_still(bytes(data))
    assert header.dtype == np.uint8 and header.notes == ("10 bits per channel were reduced to 8",)


def test_a_second_picture_in_a_jpeg_is_no_animation():
    data = io.BytesIO()
    first, second = Image.fromarray(smooth()), Image.fromarray(smooth()[::-1].copy())
    first.save(data, "MPO", save_all=True, append_images=[second])
    header, pixels = read_still(data.getvalue())
    assert header.format == "JPEG" and "second picture" in header.notes[0]
    assert np.abs(pixels.astype(int) - smooth()).mean() < 3


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", None),
        (b"P6 2", "PPM"),
        (b"Plain text", None),
    ],
)
def test_sniffing(head, name):
    assert detect_format(head, b"", ".jpg") == name


def test_picture_names():
    assert all(is_picture_name(Path(name)) for name in ("a.JPG", "b.tiff", "c.heic", "d.jxl", "é.webp"))
    assert not any(is_picture_name(Path(name)) for name in ("Thumbs.db", ".DS_Store", "a.txt", "b", "jpg"))


def test_importing_the_reader_loads_no_heavy_library():
    code = (
        "import sys, dsclora_cli.imaging.reader\n"
        "heavy = {'tifffile', 'imagecodecs', 'torch', 'PIL.ImageCms', 'PIL.JpegImagePlugin', 'pillow_heif'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_metadata_of_an_open_picture_is_already_true():
    data = pillow_file(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0" + exif_block(6))
    header, _ = read_still(data)
    exif = Image.Exif()
    exif.load(header.metadata.exif)
    assert exif[274] == 1 and exif.get_ifd(34665)[40962] == HEIGHT
