"""Pixels between Pillow's modes, this program's channels and depths, and print colours and screen colours."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.alpha import flatten, white_of
from dsclora_cli.imaging.picture import Pixels

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
