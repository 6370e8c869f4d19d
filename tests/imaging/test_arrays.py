"""Pillow images and arrays become pixels, and results get the type of the input."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import cmyk_profile, gray_profile, rgb_profile
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.arrays import to_pixels
from dsclora_cli.imaging.profiles import srgb_profile


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


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 2, 5), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros((4, 4), np.int32), "int32"),
        (np.full((4, 4), np.nan), "NaN"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        to_pixels(array)
