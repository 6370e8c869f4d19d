"""Opening pictures: detection by content, headers without pixels, orientation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.reader import open_picture

PLAIN = sorted(name for name, abilities in FORMATS.items() if not abilities.extra)


@pytest.mark.parametrize("format", PLAIN)
def test_the_name_of_a_file_does_not_matter_and_the_file_is_closed(format, tmp_path: Path):
    path = tmp_path / ("bild ä漢.tga" if format == "TGA" else "bild ä漢.txt")
    path.write_bytes(saved_still(smooth(), format))
    with open_picture(path) as reader:
        header = reader.header
        assert (header.format, header.width, header.height) == (format, WIDTH, HEIGHT)
        assert next(reader.frames()).pixels.shape == (HEIGHT, WIDTH, 3)
    assert reader._file.closed
    path.rename(tmp_path / "moved")  # Windows refuses while a file is open


def test_the_header_is_read_without_decoding_pixels(tmp_path: Path):
    """Each file is cut within the pixels: opening succeeds, decoding is an error that names the file."""
    large = noise(3, np.uint8, (200, 300))
    for format in ("JPEG", "BMP", "PPM", "TGA", "JPEG2000"):
        data = saved_still(large, format)
        path = tmp_path / f"cut.{format.lower()}"
        path.write_bytes(data[: len(data) // 2])
        with open_picture(path) as reader:
            assert (reader.header.width, reader.header.height) == (300, 200)
            with pytest.raises(ImageError, match=re.escape(str(path))):
                list(reader.frames())


def test_the_limit_of_pillow_on_pixels_does_not_apply(monkeypatch):
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


def test_importing_the_reader_imports_no_heavy_library():
    code = (
        "import sys, dsclora_cli.imaging.reader\n"
        "heavy = {'tifffile', 'imagecodecs', 'torch', 'PIL.ImageCms', 'PIL.JpegImagePlugin', 'pillow_heif'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_metadata_of_an_open_picture_describes_the_upright_picture():
    data = pillow_file(Image.fromarray(smooth()), "JPEG", exif=b"Exif\0\0" + exif_block(6))
    header, _ = read_still(data)
    exif = Image.Exif()
    exif.load(header.metadata.exif)
    assert exif[274] == 1 and exif.get_ifd(34665)[40962] == HEIGHT


@pytest.mark.parametrize("suffix", [".nef", ".CR2", ".dng", ".raf"])
@pytest.mark.parametrize("content", ["TIFF", None])
def test_a_file_named_as_a_camera_raw_is_refused(suffix, content, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(saved_still(smooth(), content) if content else b"anything else")
    with pytest.raises(ImageError, match="camera RAW") as caught:
        open_picture(path)
    assert "develop it first" in caught.value.hint


@pytest.mark.parametrize(
    "head",
    [
        *(b"II*\0\x10\0\0\0CR\2\0", b"IIRO\x08\0\0\0", b"IIU\0\x18\0\0\0", b"FUJIFILMCCD-RAW 0201", b"\0MRM\0\0\0\0"),
        *(b"FOVb\0\0\2\0", b"II\x1a\0\0\0HEAPCCDR", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom"),
    ],
)
def test_a_camera_raw_of_any_maker_is_known_by_its_first_bytes(head):
    with pytest.raises(ImageError, match="camera RAW"):
        open_picture(head + bytes(64))
