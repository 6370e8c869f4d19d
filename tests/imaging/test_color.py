"""Colors of photographs, CMYK to sRGB, and conversions of channels and depth."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from pictures import cmyk_profile, header_of, noise, pillow_file, read_still, saved, smooth, upscaled
from PIL import Image, ImageCms

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import color, profiles
from dsclora_cli.imaging.metadata import with_size
from dsclora_cli.imaging.reader import open_picture
from dsclora_cli.imaging.types import Frame
from dsclora_cli.imaging.writer import fit_format

INKS = {"paper": (0, 0, 0, 0), "cyan": (255, 0, 0, 0), "black": (0, 0, 0, 255), "mix": (255, 0, 255, 0)}


def lab_of(data: bytes) -> np.ndarray:
    """Return the mean CIE Lab of the pixels in a file, converted by Pillow with the profile in the file."""
    with Image.open(io.BytesIO(data)) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        lab = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("LAB"), outputMode="LAB")
    values = np.asarray(lab).reshape(-1, 3)
    return np.array([values[:, 0].mean() / 2.55, *values[:, 1:].view(np.int8).mean(axis=0)])


@pytest.mark.slow
@pytest.mark.parametrize("photo", ["canyon-wren", "dragonfly-on-lavender", "cave-opening"])
def test_photographs_keep_their_colors_in_every_format(shared: Path, photo):
    source = shared / "data" / "photos" / f"{photo}.jpg"
    with open_picture(source) as reader:
        header, frames = reader.header, list(reader.frames())
    crop = [Frame(np.ascontiguousarray(frames[0].pixels[::16, ::16]))]
    small = header_of(crop[0].pixels, header.format, header.metadata)
    original = pillow_file(Image.fromarray(crop[0].pixels), "PNG", icc_profile=header.metadata.icc)
    for format in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF"):
        data = saved(*upscaled(small, crop, 2), format)
        with Image.open(io.BytesIO(data)) as image, Image.open(source) as before:
            assert image.info["icc_profile"] == before.info["icc_profile"], format
        # libavif turns 8-bit RGB into YCbCr and back with a bias of up to half a level.
        assert np.linalg.norm(lab_of(data) - lab_of(original)) < (1.5 if format == "AVIF" else 0.5), format


@pytest.mark.parametrize("photo", ["canyon-wren", "dragonfly-on-lavender", "cave-opening"])
def test_photographs_keep_their_exif(shared: Path, photo):
    """Pillow reads the same EXIF in the written JPEG, but for size, orientation and thumbnail."""
    source = shared / "data" / "photos" / f"{photo}.jpg"
    with open_picture(source) as reader:
        header = replace(reader.header, width=48, height=32)
    written, _ = read_still(saved(header, [Frame(smooth(3, (32, 48)))]))
    assert written.metadata == with_size(header.metadata, 48, 32)
    with Image.open(source) as image:
        before = image.getexif()
    after = Image.Exif()
    after.load(written.metadata.exif)
    true = {tag: after[tag] for tag in (256, 257, 274) if tag in after}
    assert dict(after) == {**dict(before), **true} and true.items() <= {256: 48, 257: 32, 274: 1}.items()
    details = dict(before.get_ifd(0x8769))
    assert after.get_ifd(0x8769) == {**details, 40962: 48, 40963: 32}
    assert after.get_ifd(0x8825) == before.get_ifd(0x8825)


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
@pytest.mark.parametrize("ink", INKS)
def test_cmyk_is_converted_with_its_profile(format, ink):
    image, profile = Image.new("CMYK", (16, 16), INKS[ink]), cmyk_profile()
    options = {"quality": 100} if format == "JPEG" else {}
    header, pixels = read_still(pillow_file(image, format, icc_profile=profile, **options))
    assert header.channels == 3 and header.notes == ("CMYK was converted to sRGB through its own profile",)
    assert header.metadata.icc == profiles.srgb_profile()
    intent, black = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    expected = ImageCms.profileToProfile(image, source, target, intent, outputMode="RGB", flags=black)
    assert np.abs(pixels.astype(int) - np.asarray(expected)).max() <= 3
    if ink == "cyan":
        assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).max() > 50


@pytest.mark.parametrize("profile", [None, b"no profile at all", "RGB"])
@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_cmyk_without_a_usable_profile_is_converted_by_formula(format, profile):
    icc = profiles.srgb_profile() if profile == "RGB" else profile
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    header, pixels = read_still(pillow_file(image, format, icc_profile=icc))
    assert header.notes == ("CMYK was converted to sRGB by a plain formula: the file has no CMYK profile",)
    assert np.abs(pixels.astype(int) - (0, 255, 255)).max() <= 3


def test_the_srgb_profile_is_always_the_same_bytes():
    assert profiles.srgb_profile() == profiles.srgb_profile()
    profile = ImageCms.ImageCmsProfile(io.BytesIO(profiles.srgb_profile()))
    assert profile.profile.xcolor_space.strip() == "RGB" and "sRGB" in profile.profile.profile_description


@pytest.mark.slow
@given(some.integers(0, 65535))
def test_16_bits_are_rounded_to_the_nearest_8(value):
    pixels = np.full((1, 1, 1), value, np.uint16)
    assert color.convert_pixels(pixels, 1, np.uint8)[0, 0, 0] == round(value / 257)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_survives_a_deeper_dtype(dtype):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (color.convert_pixels(color.convert_pixels(levels, 1, np.uint16), 1, np.uint8) == levels).all()
    deep = color.convert_pixels(levels, 1, dtype)
    assert (color.convert_pixels(color.convert_pixels(deep, 1, np.float32), 1, dtype) == deep).all()


@pytest.mark.parametrize("value", [-0.01, 1.01, 300.0])
def test_floats_outside_0_to_1_are_refused_and_not_clipped(value):
    pixels = np.full((2, 2, 3), 0.5, np.float32)
    pixels[0, 0, 0] = value
    with pytest.raises(ImageError, match=r"do not fit 16 bits .write a TIFF, or rescale the values to"):
        saved(header_of(pixels, "TIFF"), [Frame(pixels)], "PNG")


def test_channels_are_added_and_removed():
    gray, white = noise(2), np.full((1, 1, 1), 255, np.uint8)
    assert (color.convert_pixels(gray, 4, np.uint8) == gray[..., [0, 0, 0, 1]]).all()
    assert (color.convert_pixels(white, 4, np.uint8) == 255).all()
    reds = np.array([[[255, 0, 0, 100]]], np.uint8)
    assert color.convert_pixels(reds, 2, np.uint8).tolist() == [[[76, 100]]]


def test_alpha_is_laid_on_white_with_a_warning():
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    header = header_of(pixels, "PNG")
    _, notes = fit_format(header, "BMP", strict=False)
    assert notes == ("BMP has no transparency: the picture is laid on white",)
    _, again = read_still(saved(header, [Frame(pixels)], "BMP"))
    assert again.tolist() == [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]


def test_gray_stays_gray_in_every_format_with_gray():
    for format in ("JPEG", "PNG", "TIFF", "JPEG2000", "GIF", "BMP", "PPM", "TGA"):
        assert read_still(saved(header_of(smooth(1), format), [Frame(smooth(1))]))[0].channels == 1, format
