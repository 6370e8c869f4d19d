"""Pillow images and NumPy arrays of a caller as pixels, and results back in the type that the caller gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.imaging.color import image_to_pixels
from dsclora_cli.imaging.profiles import fitting_profile, srgb_profile
from dsclora_cli.imaging.types import Pixels

InMemory = TypeVar("InMemory", Image.Image, NDArray[Any])
"""A Pillow image or a NumPy array."""

_DIRECT_MODES = {"L", "LA", "RGB", "RGBA", "F"}
_SIMPLE_MODES = {"1": "L", "La": "LA"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}


@overload
def to_pixels(picture: NDArray[Any]) -> tuple[Pixels, Callable[[Pixels], NDArray[Any]]]: ...


@overload
def to_pixels(picture: Image.Image) -> tuple[Pixels, Callable[[Pixels], Image.Image]]: ...


def to_pixels(picture: NDArray[Any] | Image.Image) -> tuple[Pixels, Callable[[Pixels], Any]]:
    """Return a picture in memory as pixels `(H, W, C)`, and a function that converts a result back.

    Args:
        picture: An array `(H, W)` or `(H, W, C)`, C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGBA, of uint8, uint16 or
            floats, nominally in [0, 1]; or a Pillow image of any mode.

    Returns:
        Pixels of uint8, uint16 or float32, and the function from pixels `(h, w, C)` to the type of `picture`. An array
        gets back its number of dimensions and its dtype. A Pillow image keeps resolution and ICC profile, and the modes
        L, LA, RGB, RGBA, F, I and I;16; 1-bit becomes L, a palette RGB or RGBA, any other mode RGB. CMYK and Lab become
        sRGB, with an sRGB profile.

    Raises:
        UsageError: `picture` is something else.
        ImageError: The array has another shape or dtype, or holds NaN or infinity, or a 32-bit integer image holds
            values outside 0 to 65535.
    """
    if isinstance(picture, Image.Image):
        return _image_to_pixels(picture)
    if not isinstance(picture, np.ndarray):
        hint = "give a path, a Pillow image or a NumPy array (H, W) or (H, W, 1 to 4)"
        raise UsageError(f"an object of type {type(picture).__name__} is no picture", hint)
    return _array_to_pixels(picture)


def _image_to_pixels(image: Image.Image) -> tuple[Pixels, Callable[[Pixels], Image.Image]]:
    """Do the work of `to_pixels` for a Pillow image; pixels are `(H, W, C)`."""
    icc = image.info.get("icc_profile")
    if image.mode in _SIXTEEN_BIT_MODES:
        array: NDArray[Any] = np.asarray(image).astype(np.uint16)
    elif image.mode == "I":
        array = _whole_numbers(image)
    elif image.mode in _DIRECT_MODES:
        array = np.asarray(image)
    elif image.mode in ("CMYK", "LAB"):
        array, icc = image_to_pixels(image, 3, icc), srgb_profile()
    else:
        simple = _SIMPLE_MODES.get(image.mode) or ("RGBA" if image.has_transparency_data else "RGB")
        array = np.asarray(image.convert(simple))
    pixels, array_back = _array_to_pixels(array)
    profile = fitting_profile(icc, pixels.shape[2])

    def back(result: Pixels) -> Image.Image:
        upscaled = Image.fromarray(array_back(result).astype(np.int32) if image.mode == "I" else array_back(result))
        # Not EXIF: size and orientation there describe the old picture.
        kept = {"icc_profile": profile, "dpi": image.info.get("dpi")}
        upscaled.info.update({key: value for key, value in kept.items() if value})
        return upscaled

    return pixels, back


def _whole_numbers(image: Image.Image) -> NDArray[np.uint16]:
    """Return the pixels of an image of 32-bit integers, which Pillow uses for 16 bits."""
    array = np.asarray(image)
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    if low < 0 or high > 65535:
        raise ImageError(
            f"32-bit integers from {low} to {high} do not fit 16 bits", "rescale them to 0 to 65535, or give floats"
        )
    return array.astype(np.uint16)


def _array_to_pixels(array: NDArray[Any]) -> tuple[Pixels, Callable[[Pixels], NDArray[Any]]]:
    """Do the work of `to_pixels` for an array `(H, W)` or `(H, W, C)`."""
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 2, 3, 4}) or array.size == 0:
        raise ImageError(f"an array of shape {array.shape} is not a picture", "give (H, W) or (H, W, 1 to 4)")
    if array.dtype not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        raise ImageError(f"an array of {array.dtype} is not a picture", "give uint8, uint16 or floats in [0, 1]")
    pixels = array.reshape(*array.shape[:2], -1)
    if array.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
        if not np.isfinite(pixels).all():
            raise ImageError("the array holds NaN or infinity", "replace these values first")

    def back(result: Pixels) -> NDArray[Any]:
        shaped: NDArray[Any] = result.astype(array.dtype, copy=False)
        return shaped[:, :, 0] if array.ndim == 2 else shaped

    return np.ascontiguousarray(pixels), back
