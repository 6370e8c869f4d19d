"""Pixels between Pillow's modes, this program's channels and depths, and print colours and screen colours.

Transparency: colour bled under it before upscaling, pictures laid on white, premultiplied colour undone.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.types import Pixels

if TYPE_CHECKING:
    from PIL import ImageCms


_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_GREY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ROUNDING = 1e-6


def channels_of(image: Image.Image) -> int:
    """How many channels `pixels_of` gives for this Pillow image, known before its pixels are decoded."""
    return (1 if image.mode in _GREY_MODES else 3) + bool(image.has_transparency_data)


def depth_of(image: Image.Image) -> np.dtype[Any]:
    """The dtype that `pixels_of` gives for this Pillow image."""
    if image.mode.startswith("I"):
        return np.dtype(np.uint16)
    return np.dtype(np.float32 if image.mode == "F" else np.uint8)


def pixels_of(image: Image.Image, channels: int, icc: bytes | None) -> Pixels:
    """A Pillow image of any mode as `(H, W, channels)`; print colours go through `icc`, or naively without it."""
    if image.mode in ("CMYK", "LAB"):
        image = _to_srgb(image, icc)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.uint16)[..., None]
    if image.mode == "F":
        return np.array(image, np.float32)[..., None]
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    array = np.array(image)
    return array if array.ndim == 3 else array[..., None]


def image_of(pixels: Pixels) -> Image.Image:
    """A Pillow image of `(H, W, C)` uint8."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def conversion_note(image: Image.Image, icc: bytes | None) -> str | None:
    """What `pixels_of` does to print colours, as a sentence for the user; None where it changes nothing."""
    if image.mode == "CMYK":
        way = "through its own profile" if _print_profile(icc) else "by a plain formula, for it has no profile"
        return f"CMYK was converted to sRGB {way}"
    return "Lab was converted to sRGB" if image.mode == "LAB" else None


def srgb_profile() -> bytes:
    """An sRGB ICC profile, the same bytes every time (Little CMS writes the time of day into it)."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    date = b"\x07\xe8\0\x01\0\x01" + bytes(6)
    return profile[:24] + date + profile[36:]


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels `(H, W, C)` turned and mirrored as EXIF orientation 1-8 says; height and width swap from 5 on."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def convert(pixels: Pixels, channels: int, dtype: DTypeLike) -> Pixels:
    """`(H, W, C)` of any channels and depth as `(H, W, channels)` of `dtype`, rounded to the nearest level.

    Alpha that is no longer wanted is laid on white, missing alpha is opaque, colour becomes grey by BT.601 luma.
    Raises ImageError for float values outside [0, 1] that an integer depth cannot hold.
    """
    if pixels.shape[2] in (2, 4) and channels in (1, 3):
        pixels = flatten(pixels)
    pixels = _to_depth(pixels, np.dtype(dtype))
    if pixels.shape[2] >= 3 and channels <= 2:
        luma = pixels[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        grey = (luma if pixels.dtype == np.float32 else np.rint(luma)).astype(pixels.dtype)[..., None]
        pixels = np.concatenate([grey, pixels[..., 3:]], axis=2)
    elif pixels.shape[2] <= 2 and channels >= 3:
        pixels = np.concatenate([pixels[..., :1].repeat(3, axis=2), pixels[..., 1:]], axis=2)
    if pixels.shape[2] < channels:
        opaque = np.full((*pixels.shape[:2], 1), white_of(pixels.dtype), pixels.dtype)
        pixels = np.concatenate([pixels, opaque], axis=2)
    return pixels


def _to_depth(pixels: Pixels, dtype: np.dtype[Any]) -> Pixels:
    if pixels.dtype == dtype:
        return pixels
    if pixels.dtype.kind == "f":
        return _quantised(pixels, dtype)
    if dtype.kind == "f":
        return pixels.astype(np.float32) / np.float32(white_of(pixels.dtype))
    if dtype == np.uint16:
        return pixels.astype(np.uint16) * np.uint16(257)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _quantised(pixels: Pixels, dtype: np.dtype[Any]) -> Pixels:
    low, high = float(pixels.min()), float(pixels.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise ImageError(
            f"float values from {low:g} to {high:g} do not fit {dtype.itemsize * 8} bits", "write a TIFF, or rescale"
        )
    levels: Pixels = np.rint(np.clip(pixels, 0, 1).astype(np.float64) * white_of(dtype)).astype(dtype)
    return levels


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    from PIL import ImageCms

    target = ImageCms.createProfile("sRGB")
    source = ImageCms.createProfile("LAB") if image.mode == "LAB" else _print_profile(icc)
    if source is None:
        return image.convert("RGB")
    converted = ImageCms.profileToProfile(
        image,
        source,
        target,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None  # only an in-place conversion returns nothing
    return converted


def _print_profile(icc: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """The profile if Little CMS can read it and it is one for CMYK, else None."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
    except (ImageCms.PyCMSError, OSError):
        return None
    return profile if profile.profile.xcolor_space.strip() == "CMYK" else None


def bleed(colour: Pixels, alpha: Pixels) -> Pixels:
    """Colour `(H, W, C)` extended to where alpha `(H, W, 1)` is 0, from the nearest visible pixels.

    Visible pixels are returned unchanged, whatever the dtype; colour without any visible pixel is returned as it is.
    A pyramid of means over visible pixels makes the cost linear in the number of pixels, however large the hole.
    """
    visible = alpha[..., :1] > 0
    if visible.all() or not visible.any():
        return colour
    filled = _filled(*_halve(colour, visible))
    return np.where(visible, colour, _double(filled, colour.shape).astype(colour.dtype))


def flatten(pixels: Pixels) -> Pixels:
    """`(H, W, 2)` or `(H, W, 4)` laid on white: `(H, W, 1)` or `(H, W, 3)` of the same dtype, rounded."""
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    white = white_of(pixels.dtype)
    if (alpha == white).all():
        return np.ascontiguousarray(colour)
    share = alpha.astype(np.float32) / white
    laid = colour * share + white * (1 - share)
    flat: Pixels = (laid if pixels.dtype.kind == "f" else np.rint(laid)).astype(pixels.dtype)
    return flat


def unpremultiply(pixels: Pixels) -> Pixels:
    """Colour divided by alpha (the last channel), rounded and held to the dtype's range; colour under alpha 0 is 0."""
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    white = white_of(pixels.dtype)
    plain = np.divide(colour.astype(np.float64) * white, alpha, out=np.zeros(colour.shape, np.float64), where=alpha > 0)
    if pixels.dtype != np.float32:
        plain = np.rint(np.minimum(plain, white))
    return np.concatenate([plain.astype(pixels.dtype), alpha], axis=2)


def white_of(dtype: np.dtype[Any]) -> float:
    """The value of white and of opaque: 255 or 65535 for integers, 1 for floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def _halve(colour: NDArray[Any], weight: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means of 2x2 blocks over their visible pixels, and whether a block has any: both half as large, rounded up."""
    height, width = (colour.shape[0] + 1) // 2, (colour.shape[1] + 1) // 2
    total = np.zeros((height, width, colour.shape[2]), np.float32)
    count = np.zeros((height, width, 1), np.float32)
    for top in (0, 1):
        for left in (0, 1):
            part, seen = colour[top::2, left::2], weight[top::2, left::2]
            rows, columns = part.shape[:2]
            total[:rows, :columns] += part * seen
            count[:rows, :columns] += seen
    return np.divide(total, count, out=total, where=count > 0), (count > 0).astype(np.float32)


def _filled(colour: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colour with every gap filled: beside visible pixels from these, further off from the next coarser level.

    There is at least one visible pixel.
    """
    colour, weight = _grown(colour, weight)
    if weight.all():
        return colour
    coarse = _filled(*_halve(colour, weight))
    return np.where(weight > 0, colour, _double(coarse, colour.shape))


def _grown(colour: NDArray[np.float32], weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each gap beside visible pixels gets the mean of those among its eight neighbours."""
    total, count = colour, weight  # gaps are 0
    for axis in (0, 1):
        total, count = _sum_of_three(total, axis), _sum_of_three(count, axis)
    mean = np.divide(total, count, out=total, where=count > 0)
    return np.where(weight > 0, colour, mean), (count > 0).astype(np.float32)


def _sum_of_three(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Each value with those before and after it along an axis, nothing beyond the border."""
    total, lines = values.copy(), np.moveaxis(values, axis, 0)
    sums = np.moveaxis(total, axis, 0)
    sums[1:] += lines[:-1]
    sums[:-1] += lines[1:]
    return total


def _double(colour: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    return colour.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
