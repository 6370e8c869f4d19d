"""Pillow images and NumPy arrays of a caller as pixels, and results back in the type that the caller gave."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.errors import ImageError, ImageUnreadable, UsageError
from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.codecs.pillow import UPRIGHT_ALREADY
from dsclora_cli.imaging.color import apply_orientation, image_to_pixels
from dsclora_cli.imaging.profiles import fitting_profile, srgb_profile
from dsclora_cli.imaging.types import Pixels

InMemory = TypeVar("InMemory", Image.Image, NDArray[Any])
"""A Pillow image or a NumPy array."""

_DIRECT_MODES = {"L", "LA", "RGB", "RGBA", "F"}
_TRANSPARENT_MODES = {"1": "LA", "L": "LA", "RGB": "RGBA"}
"""Modes that may name one color as transparent, with the modes for alpha."""
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
        gets back its number of dimensions and its dtype; a subclass of arrays becomes a plain array. A Pillow image
        keeps resolution and ICC profile, and the modes L, LA, RGB, RGBA, F, I and I;16. A transparent color of L or RGB
        becomes alpha; 1-bit becomes L, a palette RGB or RGBA, La LA, RGBa RGBA, I;16B I;16, any other mode RGB. CMYK
        and Lab become sRGB, with an sRGB profile. An image is turned upright, as its EXIF says.

    Raises:
        UsageError: `picture` is something else, or a Pillow image of 16-bit gray with a transparent gray.
        ImageUnreadable: An image that Pillow reads at first use is damaged or closed.
        ImageError: The array has another shape or dtype, or holds NaN, infinity, numbers too large for float32 or
            masked values, or a 32-bit integer image holds values outside 0 to 65535.
    """
    if isinstance(picture, Image.Image):
        return _image_to_pixels(picture)
    if not isinstance(picture, np.ndarray):
        hint = "give a path, a Pillow image or a NumPy array (H, W) or (H, W, 1 to 4)"
        raise UsageError(f"an object of type {type(picture).__name__} is no picture", hint)
    return _array_to_pixels(picture)


def _image_to_pixels(image: Image.Image) -> tuple[Pixels, Callable[[Pixels], Image.Image]]:
    """Do the work of `to_pixels` for a Pillow image; pixels are `(H, W, C)`."""
    _load(image)
    icc = image.info.get("icc_profile")
    turn, dpi = _orientation(image), image.info.get("dpi")
    if turn >= 5 and dpi:
        dpi = dpi[::-1]
    if image.mode in _TRANSPARENT_MODES and "transparency" in image.info:
        image = image.convert(_TRANSPARENT_MODES[image.mode])
    if image.mode in _SIXTEEN_BIT_MODES:
        if "transparency" in image.info:  # Pillow has no mode for 16-bit gray with alpha
            hint = "give the path of the file, or an array (H, W, 2); `del image.info['transparency']` drops it"
            raise UsageError("a Pillow image of 16-bit gray has a transparent gray, and no result can keep it", hint)
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
    pixels = np.ascontiguousarray(apply_orientation(pixels, turn))
    profile = fitting_profile(icc, pixels.shape[2])

    def back(result: Pixels) -> Image.Image:
        upscaled = Image.fromarray(array_back(result).astype(np.int32) if image.mode == "I" else array_back(result))
        # Not EXIF: size and orientation there describe the old picture.
        kept = {"icc_profile": profile, "dpi": dpi}
        upscaled.info.update({key: value for key, value in kept.items() if value})
        return upscaled

    return pixels, back


def _load(image: Image.Image) -> None:
    """Let Pillow read the pixels of an image. Raises ImageUnreadable, whatever exception the decoder raises."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:
        raise ImageUnreadable(
            f"the image cannot be read: {error}", "open the file again, or give the path of the file"
        ) from error


def _orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, that is left to apply to a loaded image."""
    if image.format in UPRIGHT_ALREADY:
        return 1
    # Not in `info`, which does not have what a program has changed. Pillow adds the orientation in XMP.
    stated = 1
    with suppress(Exception):  # of Pillow, for damaged EXIF
        stated = image.getexif().get(tiff_ifd.ORIENTATION, 1)
    return stated if stated in range(1, 9) else 1


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
    if np.ma.is_masked(array):
        raise ImageError("the array has masked values", "give them a value first, with array.filled(...)")
    array = np.asarray(array)  # a matrix has two dimensions, whatever shape is asked for
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 2, 3, 4}) or array.size == 0:
        raise ImageError(f"an array of shape {array.shape} is not a picture", "give (H, W) or (H, W, 1 to 4)")
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        raise ImageError(f"an array of {array.dtype} is not a picture", "give uint8, uint16 or floats in [0, 1]")
    pixels = array.reshape(*array.shape[:2], -1)
    if array.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise ImageError("the array holds NaN or infinity", "replace these values first")
        largest = max(pixels.max(), -pixels.min())
        if largest > np.finfo(np.float32).max:
            raise ImageError(f"values up to {largest:g} do not fit float32", "rescale them, best to [0, 1]")

    def back(result: Pixels) -> NDArray[Any]:
        shaped: NDArray[Any] = result.astype(array.dtype, copy=False)
        return shaped[:, :, 0] if array.ndim == 2 else shaped

    native = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    return np.ascontiguousarray(pixels, native), back
