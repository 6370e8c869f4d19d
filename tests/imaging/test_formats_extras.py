"""HEIF and JPEG XL, where their optional packages are installed."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pictures import (
    HEIGHT,
    WIDTH,
    assert_marks_the_spot,
    everything,
    exif_block,
    header_of,
    marked,
    noise,
    pillow_file,
    read_still,
    saved_still,
    smooth,
)
from PIL import ExifTags, Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.formats import format_of_suffix
from dsclora_cli.imaging.metadata import with_size
from dsclora_cli.imaging.profiles import profile_space
from dsclora_cli.imaging.writer import fit_format


def test_heif_keeps_pixels_profile_and_details():
    pytest.importorskip("pillow_heif", reason='needs pip install "dsclora[heif]"')
    assert format_of_suffix(".heic") == "HEIF"
    given = with_size(everything(), WIDTH, HEIGHT)
    for channels in (1, 3, 4):
        header, pixels = read_still(saved_still(smooth(channels), "HEIF", given))
        assert (header.format, header.channels, header.width, header.height) == ("HEIF", channels, WIDTH, HEIGHT)
        assert np.abs(pixels.astype(int) - smooth(channels)).mean() < 2
        assert header.metadata.xmp == given.xmp
        # Gray pixels get a gray profile.
        assert header.metadata.icc == given.icc or (channels == 1 and profile_space(header.metadata.icc) == "GRAY")
        exif = Image.Exif()
        exif.load(header.metadata.exif)
        assert exif[ExifTags.Base.Make] == "Cam"


def test_a_picture_too_thin_for_the_encoder_of_heif_is_refused_with_the_next_step():
    pytest.importorskip("pillow_heif", reason='needs pip install "dsclora[heif]"')
    with pytest.raises(ImageError, match=r"HEIF refuses a picture of 8200 x 4 pixels: .+ .choose another format"):
        saved_still(np.zeros((4, 8200, 3), np.uint8), "HEIF")


def test_heif_orientation_is_applied_only_once():
    pytest.importorskip("pillow_heif", reason='needs pip install "dsclora[heif]"').register_heif_opener()
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "HEIF", quality=95, exif=b"Exif\0\0" + exif_block(6))
    header, pixels = read_still(buffer.getvalue())
    expected = np.asarray(Image.fromarray(smooth()).transpose(Image.Transpose.ROTATE_270))
    assert (header.height, header.width) == expected.shape[:2]
    assert np.abs(pixels.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "AVIF", "HEIF"])
def test_places_in_metadata_turn_with_the_picture(format, orientation):
    if format == "HEIF":
        pytest.importorskip("pillow_heif", reason='needs pip install "dsclora[heif]"').register_heif_opener()
    pixels, metadata = marked(orientation)
    # The encoders of AVIF and HEIF move the orientation of EXIF into the container.
    file = pillow_file(Image.fromarray(pixels), format, exif=b"Exif\0\0" + metadata.exif, xmp=metadata.xmp)
    assert_marks_the_spot(*read_still(file))


def test_jpeg_xl_is_lossless_at_100_and_keeps_details():
    pytest.importorskip("pillow_jxl", reason='needs pip install "dsclora[jxl]"')
    assert format_of_suffix(".jxl") == "JXL"
    given = with_size(everything(), WIDTH, HEIGHT)
    fitted, notes = fit_format(header_of(smooth(), "PNG", given), "JXL", strict=True)
    assert "the colour profile" in notes[0] and fitted.metadata.icc is None
    for channels in (1, 2, 3, 4):
        header, pixels = read_still(saved_still(noise(channels), "JXL", given, quality=100))
        assert header.channels == channels
        np.testing.assert_array_equal(pixels, noise(channels))
        assert header.metadata.exif == given.exif and header.metadata.xmp == given.xmp
    close = read_still(saved_still(smooth(), "JXL"))[1]
    assert np.abs(close.astype(int) - smooth()).mean() < 2
