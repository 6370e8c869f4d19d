"""Pillow images and arrays become pixels, and results get the type of the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import cmyk_profile, gray_profile, rgb_profile
from PIL import Image

from dsclora_cli.errors import ImageError, ImageUnreadable, UsageError
from dsclora_cli.imaging.arrays import to_pixels
from dsclora_cli.imaging.profiles import srgb_profile
from dsclora_cli.imaging.reader import open_picture


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 2), (4, 5, 3), (4, 5, 4)])
def test_arrays_keep_dtype_and_dimensions(dtype: type, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    pixels, back = to_pixels(array)
    assert pixels.ndim == 3 and pixels.dtype in (np.uint8, np.uint16, np.float32)
    result = back(pixels)
    assert (result.dtype, result.shape) == (array.dtype, shape)
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "F", "I;16", "I"])
def test_images_keep_their_mode_profile_and_resolution(mode: str) -> None:
    image = Image.new(mode, (6, 4), 1 if mode in {"L", "F", "I;16", "I"} else None)
    profile = rgb_profile() if mode.startswith("RGB") else gray_profile()
    image.info.update(icc_profile=profile, dpi=(300, 300), exif=b"stale")
    pixels, back = to_pixels(image)
    assert pixels.shape[:2] == (4, 6)
    result = back(pixels)
    assert (result.mode, result.size) == (mode, (6, 4))
    assert result.info == {"icc_profile": profile, "dpi": (300, 300)}
    assert result.tobytes() == image.tobytes()


def test_32_bit_integers_are_16_bits_and_others_are_refused() -> None:
    values = np.linspace(0, 65535, 24).astype(np.int32).reshape(4, 6)
    pixels, back = to_pixels(Image.fromarray(values))
    assert pixels.dtype == np.uint16 and (pixels[..., 0] == values).all()
    np.testing.assert_array_equal(np.asarray(back(pixels)), values)
    for wrong in (values - 1, values + 1):
        with pytest.raises(ImageError, match="do not fit 16 bits"):
            to_pixels(Image.fromarray(wrong))


def test_cmyk_is_converted_with_its_profile_and_gets_the_profile_of_srgb() -> None:
    image = Image.new("CMYK", (3, 2), (255, 0, 0, 0))
    image.info["icc_profile"] = cmyk_profile()
    pixels, back = to_pixels(image)
    assert pixels[0, 0, 0] > pixels[0, 0, 2]  # cyan prints dark red
    assert back(pixels).info["icc_profile"] == srgb_profile()


@pytest.mark.parametrize(("mode", "becomes"), [("1", "L"), ("P", "RGB"), ("CMYK", "RGB"), ("YCbCr", "RGB")])
def test_other_modes_become_gray_or_rgb(mode: str, becomes: str) -> None:
    pixels, back = to_pixels(Image.new(mode, (3, 2)))
    assert back(pixels).mode == becomes


def test_a_palette_with_transparency_keeps_it() -> None:
    image = Image.new("P", (3, 2), 1)
    image.info["transparency"] = 1
    pixels, _ = to_pixels(image)
    assert pixels.shape == (2, 3, 4) and (pixels[:, :, 3] == 0).all()


@pytest.mark.parametrize(("mode", "color", "becomes"), [("L", 7, "LA"), ("RGB", (7, 8, 9), "RGBA"), ("1", 1, "LA")])
def test_a_transparent_color_becomes_alpha(mode: str, color: object, becomes: str) -> None:
    image = Image.new(mode, (3, 2))
    image.putpixel((1, 0), color)
    image.info["transparency"] = 255 if mode == "1" else color
    pixels, back = to_pixels(image)
    assert pixels[:, :, -1].tolist() == [[255, 0, 255], [255] * 3]
    result = back(pixels)
    assert result.mode == becomes and "transparency" not in result.info


def test_a_transparent_gray_of_16_bits_is_refused_and_not_lost() -> None:
    image = Image.new("I;16", (3, 2))
    image.info["transparency"] = 7
    with pytest.raises(UsageError, match="16-bit gray has a transparent gray"):
        to_pixels(image)


@pytest.mark.parametrize(("mode", "becomes"), [("La", "LA"), ("RGBa", "RGBA"), ("I;16B", "I;16"), ("PA", "RGBA")])
def test_modes_with_another_name_keep_alpha_and_depth(mode: str, becomes: str) -> None:
    pixels, back = to_pixels(Image.new(mode, (3, 2)))
    assert back(pixels).mode == becomes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_with_an_orientation_is_upright_as_its_file_is(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "photo.png"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, dpi=(100, 200))
    with Image.open(path) as opened, open_picture(path) as reader:
        pixels, back = to_pixels(opened)
        (frame,) = reader.frames()
        np.testing.assert_array_equal(pixels, np.concatenate(list(frame.bands())))
        dpi = tuple(round(each) for each in back(pixels).info["dpi"])
    assert dpi == ((100, 200) if orientation < 5 else (200, 100))


def test_an_image_that_pillow_reads_late_may_be_damaged_or_closed(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(whole)
    cut.write_bytes(whole.read_bytes()[:900])
    closed = Image.open(whole)
    closed.close()
    for image in (Image.open(cut), closed):
        with pytest.raises(ImageUnreadable, match=r"the image cannot be read: .* \(open the file again"):
            to_pixels(image)


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">f4", ">f8"])
def test_arrays_of_any_byte_order_are_pictures(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    pixels, back = to_pixels(array)
    assert pixels.dtype.isnative and (pixels[:, :, 0] == np.arange(12).reshape(3, 4)).all()
    assert back(pixels).dtype == np.dtype(dtype)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_subclasses_of_arrays_become_plain_arrays() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for array in (np.asmatrix(values), np.ma.masked_array(values)):
        pixels, back = to_pixels(array)
        assert type(back(pixels)) is np.ndarray and (back(pixels) == values).all()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 2, 5), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros((4, 4), np.int32), "int32"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), -1e300), r"values up to 1e\+300 do not fit float32 \(rescale them"),
        (np.ma.masked_less(np.ones((4, 4)), 2), r"masked values \(give them a value first"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        to_pixels(array)


@pytest.mark.parametrize("is_removed", [True, False])
def test_an_orientation_that_the_program_has_dealt_with_is_not_applied(tmp_path: Path, is_removed: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 5)).save(tmp_path / "a.jpg", exif=exif)
    image = Image.open(tmp_path / "a.jpg")
    if is_removed:
        del image.getexif()[0x0112]
    else:
        image.getexif()[0x0112] = 1
    assert to_pixels(image)[0].shape == (5, 9, 3)
    assert to_pixels(Image.open(tmp_path / "a.jpg"))[0].shape == (9, 5, 3)
