"""Pictures already in memory, Pillow images and arrays, as pixels and back in kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.types import Pixels

InMemory = TypeVar("InMemory", Image.Image, NDArray[Any])
"""A Pillow image or a NumPy array."""

_DIRECT_MODES = {"L", "LA", "RGB", "RGBA", "F"}
_SIXTEEN_BIT_MODES = {"I;16", "I;16L", "I;16B", "I;16N"}


@overload
def to_pixels(picture: NDArray[Any]) -> tuple[Pixels, Callable[[Pixels], NDArray[Any]]]: ...


@overload
def to_pixels(picture: Image.Image) -> tuple[Pixels, Callable[[Pixels], Image.Image]]: ...


def to_pixels(picture: NDArray[Any] | Image.Image) -> tuple[Pixels, Callable[[Pixels], Any]]:
    """Pixels of a picture in memory, and the function that turns a result into its kind."""
    return image_pixels(picture) if isinstance(picture, Image.Image) else array_pixels(picture)


def array_pixels(array: NDArray[Any]) -> tuple[Pixels, Callable[[Pixels], NDArray[Any]]]:
    """Pixels of an array, and the way back to its number of dimensions and dtype.

    `(H, W)` or `(H, W, C)`, C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; uint8, uint16, or floats, nominally in [0, 1].
    """
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


def image_pixels(image: Image.Image) -> tuple[Pixels, Callable[[Pixels], Image.Image]]:
    """Pixels of a Pillow image, and the way back to an image with the same ICC profile and resolution.

    L, LA, RGB, RGBA, F and I;16 stay what they are; 1-bit becomes L, palettes RGB or RGBA, other modes RGB.
    """
    if image.mode in _SIXTEEN_BIT_MODES:
        pixels: Pixels = np.asarray(image).astype(np.uint16)
    else:
        pixels = np.asarray(image if image.mode in _DIRECT_MODES else image.convert(_simple_mode(image)))
    taken, back = array_pixels(pixels)

    def back_to_image(result: Pixels) -> Image.Image:
        upscaled = Image.fromarray(back(result))
        upscaled.info.update({key: image.info[key] for key in ("icc_profile", "dpi") if key in image.info})
        return upscaled

    return taken, back_to_image


def _simple_mode(image: Image.Image) -> str:
    if image.mode == "1":
        return "L"
    return "RGBA" if image.has_transparency_data else "RGB"
