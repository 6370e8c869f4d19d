"""Pixels from Pillow images and back; channels, depth, orientation, CMYK to sRGB, and color under transparency."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.types import LossNote, Pixels

if TYPE_CHECKING:
    from PIL import ImageCms


_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_GRAY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ROUNDING = 1e-6
"""Floats may lie outside [0, 1] by this much: rounding errors of float32, far below a level of 16 bits."""

_EQUAL_ALPHA = 2 / 255
"""Difference up to which neighboring alpha, of at most 1, counts as equal."""

_AREA_REACH = 3
"""Pixels in each direction that decide whether a pixel lies next to an area, and one that an edge may repeat."""

_BT601 = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G and B in luma (ITU-R BT.601)."""


def pixel_layout(image: Image.Image) -> tuple[int, np.dtype[Any]]:
    """Return the channels and the dtype that `image_to_pixels` will give; the image need not be decoded yet."""
    channels = (1 if image.mode in _GRAY_MODES else 3) + bool(image.has_transparency_data)
    if image.mode.startswith("I"):
        return channels, np.dtype(np.uint16)
    return channels, np.dtype(np.float32 if image.mode == "F" else np.uint8)


def image_to_pixels(image: Image.Image, channels: int, icc: bytes | None) -> Pixels:
    """Return a Pillow image of any mode as `(H, W, channels)` of uint8, uint16 or float32.

    Args:
        image: Image of any mode.
        channels: 1 to 4; gray images of 16 bits and of floats always have 1.
        icc: Profile of a CMYK image; without a profile CMYK is converted by a plain formula. Other modes ignore it.
    """
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


def pixels_to_image(pixels: Pixels) -> Image.Image:
    """Return `(H, W, C)` uint8 as a Pillow image."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def conversion_note(image: Image.Image, icc: bytes | None) -> LossNote | None:
    """Return a sentence for the user about the conversion of CMYK or Lab in `image_to_pixels`; None without one."""
    if image.mode == "CMYK":
        way = "through its own profile" if _cmyk_profile(icc) else "by a plain formula: the file has no CMYK profile"
        return LossNote(f"CMYK was converted to sRGB {way}")
    return LossNote("Lab was converted to sRGB") if image.mode == "LAB" else None


def _to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Return a CMYK or Lab image as RGB in the sRGB color space."""
    from PIL import ImageCms

    target = ImageCms.createProfile("sRGB")
    source = ImageCms.createProfile("LAB") if image.mode == "LAB" else _cmyk_profile(icc)
    if source is None:
        return image.convert("RGB")
    # The usual choice for photographs: paper white becomes screen white, the deepest black becomes black.
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


def _cmyk_profile(icc: bytes | None) -> ImageCms.ImageCmsProfile | None:
    """Return the profile, or None where Little CMS cannot read the profile or the profile is not for CMYK."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
    except (ImageCms.PyCMSError, OSError):
        return None
    return profile if profile.profile.xcolor_space.strip() == "CMYK" else None


def apply_orientation(pixels: Pixels, orientation: int) -> Pixels:
    """Return `(H, W, C)` pixels turned and mirrored by EXIF orientation 1 to 8; from 5 on, `(W, H, C)`."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def convert_pixels(pixels: Pixels, channels: int, dtype: DTypeLike) -> Pixels:
    """Return `(H, W, C)` pixels as `(H, W, channels)` of `dtype`, rounded to the nearest level.

    Alpha without a place in `channels` is laid on white, added alpha is opaque, and color becomes gray by BT.601 luma.

    Raises:
        ImageError: Floats outside [0, 1] do not fit an integer `dtype`.
    """
    dtype = np.dtype(dtype)
    # Alpha first, in the depth of the input: rounding happens once more only if the depth changes.
    if pixels.shape[2] in (2, 4) and channels in (1, 3):
        pixels = flatten(pixels)
    if pixels.dtype != dtype:
        pixels = _convert_depth(pixels, dtype)
    if pixels.shape[2] >= 3 and channels <= 2:
        luma = pixels[..., :3].astype(np.float32) @ _BT601
        gray = (luma if pixels.dtype == np.float32 else np.rint(luma)).astype(pixels.dtype)[..., None]
        pixels = np.concatenate([gray, pixels[..., 3:]], axis=2)
    elif pixels.shape[2] <= 2 and channels >= 3:
        pixels = np.concatenate([pixels[..., :1].repeat(3, axis=2), pixels[..., 1:]], axis=2)
    if pixels.shape[2] < channels:
        opaque = np.full((*pixels.shape[:2], 1), white_level(pixels.dtype), pixels.dtype)
        pixels = np.concatenate([pixels, opaque], axis=2)
    return pixels


def _convert_depth(pixels: Pixels, dtype: np.dtype[Any]) -> Pixels:
    """Return `(H, W, C)` pixels in another dtype; black stays black and white stays white."""
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        # Clipping would silently destroy measured values (HDR, scientific data).
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise ImageError(
                f"float values from {low:g} to {high:g} do not fit {dtype.itemsize * 8} bits",
                "rescale the values to [0, 1]",
            )
        levels: Pixels = np.rint(np.clip(pixels, 0, 1).astype(np.float64) * white_level(dtype)).astype(dtype)
        return levels
    if dtype.kind == "f":
        return pixels.astype(np.float32) / np.float32(white_level(pixels.dtype))
    # 257 = 65535 / 255: white stays white, and 8 to 16 to 8 bits returns every value.
    if dtype == np.uint16:
        return pixels.astype(np.uint16) * np.uint16(257)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def flatten(pixels: Pixels) -> Pixels:
    """Return `(H, W, 2)` or `(H, W, 4)` pixels laid on white, as `(H, W, 1)` or `(H, W, 3)` of the same dtype."""
    color, alpha = pixels[..., :-1], pixels[..., -1:]
    white = white_level(pixels.dtype)
    if (alpha == white).all():
        return np.ascontiguousarray(color)
    share = alpha.astype(np.float32) / white
    laid = color * share + white * (1 - share)
    flat: Pixels = (laid if pixels.dtype.kind == "f" else np.rint(laid)).astype(pixels.dtype)
    return flat


def unpremultiply(pixels: Pixels) -> Pixels:
    """Return `(H, W, 2)` or `(H, W, 4)` pixels with color divided by alpha; color under alpha 0 becomes 0.

    Integers are rounded and limited to white: damaged files have color above alpha.
    """
    color, alpha = pixels[..., :-1], pixels[..., -1:]
    white = white_level(pixels.dtype)
    plain = np.divide(color.astype(np.float64) * white, alpha, out=np.zeros(color.shape, np.float64), where=alpha > 0)
    if pixels.dtype != np.float32:
        plain = np.rint(np.minimum(plain, white))
    return np.concatenate([plain.astype(pixels.dtype), alpha], axis=2)


def white_level(dtype: np.dtype[Any]) -> float:
    """Return the value of white and of opaque: 255 for uint8, 65535 for uint16, 1 for floats."""
    return 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)


def bleed(color: Pixels, alpha: Pixels) -> Pixels:
    """Return color extended into transparent pixels, so that upscaling leaves no fringe at their edge.

    A pyramid of means over visible pixels makes the cost linear in the number of pixels, however large the hole.

    Args:
        color: `(H, W, C)`, any dtype.
        alpha: `(H, W, 1)`; 0 is transparent, everything else visible.

    Returns:
        `(H, W, C)` of the dtype of `color`: visible pixels unchanged, transparent pixels filled from the nearest
        visible pixels. `color` itself where all pixels are visible, or none.
    """
    visible = alpha[..., :1] > 0
    if visible.all() or not visible.any():
        return color
    filled = _fill_gaps(*_halve(color, visible))
    return np.where(visible, color, _double(filled, color.shape).astype(color.dtype))


def _fill_gaps(color: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `(H, W, C)` color with every gap filled; `weight` `(H, W, 1)` is 0 in gaps, with at least one 1."""
    # Next to visible pixels: the mean of the neighbors. Further away: the next coarser level.
    color, weight = _grow(color, weight)
    if weight.all():
        return color
    coarse = _fill_gaps(*_halve(color, weight))
    return np.where(weight > 0, color, _double(coarse, color.shape))


def _halve(color: NDArray[Any], weight: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the means of the visible pixels in 2x2 blocks, and 1 where a block has visible pixels, else 0.

    `(H, W, C)` and `(H, W, 1)` become half as large, rounded up.
    """
    height, width = (color.shape[0] + 1) // 2, (color.shape[1] + 1) // 2
    total = np.zeros((height, width, color.shape[2]), np.float32)
    count = np.zeros((height, width, 1), np.float32)
    for top in (0, 1):
        for left in (0, 1):
            part, seen = color[top::2, left::2], weight[top::2, left::2]
            rows, columns = part.shape[:2]
            total[:rows, :columns] += part * seen
            count[:rows, :columns] += seen
    return np.divide(total, count, out=total, where=count > 0), (count > 0).astype(np.float32)


def _double(color: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return every pixel of `(h, w, C)` repeated twice in both directions, cut to height and width of `shape`."""
    return color.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]


def _grow(color: NDArray[np.float32], weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fill gaps next to visible pixels with the mean of the visible pixels among the eight neighbors.

    `(H, W, C)` and `(H, W, 1)` as in `_fill_gaps`; the returned weight is 1 in the gaps that were filled as well.
    """
    total, count = color, weight  # both are 0 in gaps
    for axis in (0, 1):
        total, count = _sum_of_three(total, axis), _sum_of_three(count, axis)
    mean = np.divide(total, count, out=total, where=count > 0)
    return np.where(weight > 0, color, mean), (count > 0).astype(np.float32)


def _sum_of_three(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the sum of each value `(H, W, C)` with the previous and the next along `axis`; the border counts as 0."""
    total, lines = values.copy(), np.moveaxis(values, axis, 0)
    sums = np.moveaxis(total, axis, 0)
    sums[1:] += lines[:-1]
    sums[:-1] += lines[1:]
    return total


def hold_areas(bands: Iterable[Pixels], alpha: Pixels, box: Sequence[float], height: int) -> Iterator[Pixels]:
    """Keep upscaled alpha from overshooting at the edge of an area of equal alpha, where a rim would show.

    Where the least or the greatest alpha of the 3x3 pixels around a place belongs to an area (2x2 or more pixels of
    nearly equal alpha), the result stays within this alpha. Thin lines are no areas, and keep their contrast.

    Args:
        bands: Upscaled alpha, `(h, width, 1)` from top to bottom.
        alpha: `(H, W, 1)` before upscaling, of the same dtype.
        box: Left, top, right and bottom of the place of the result in `alpha`, in pixels.
        height: Sum of the heights of the bands.

    Yields:
        The bands, `(h, width, 1)`.
    """
    left, top, right, bottom = box
    row = 0
    for band in bands:
        rows, columns = np.arange(row, row + len(band)), np.arange(band.shape[1])
        row += len(band)
        y = (top + (rows + 0.5) * (bottom - top) / height).astype(np.intp)
        x = (left + (columns + 0.5) * (right - left) / len(columns)).astype(np.intp)
        first = max(0, y[0] - _AREA_REACH)  # only the rows around the band, to save memory
        least, greatest = _limits_of_areas(alpha[first : y[-1] + 1 + _AREA_REACH, :, 0])
        places = np.ix_(y - first, x)
        yield np.clip(band, least[places][:, :, None], greatest[places][:, :, None])


def _limits_of_areas(alpha: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and the greatest value of the result around each pixel of `(H, W)`."""
    white = white_level(alpha.dtype)
    tolerance = white * _EQUAL_ALPHA
    values = alpha.astype(np.float32)
    around = np.pad(values, 1, mode="edge")
    is_block = _over_windows(around, 2, np.maximum) - _over_windows(around, 2, np.minimum) <= tolerance
    is_area = _over_windows(is_block, 2, np.logical_or)
    limits = []
    for choose, none in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        extreme = _over_windows(around, 3, choose)
        areas = np.pad(np.where(is_area, values, none), 1, mode="edge")
        is_of_area = np.abs(_over_windows(areas, 3, choose) - extreme) <= tolerance
        free = -none if alpha.dtype.kind == "f" else min(max(-none, 0), white)
        limits.append(np.where(is_of_area, extreme, free).astype(alpha.dtype))
    return limits[0], limits[1]


def _over_windows(values: NDArray[Any], edge: int, choose: np.ufunc) -> NDArray[Any]:
    """Return `choose` over each window of `edge` x `edge` values: `(H, W)` -> `(H - edge + 1, W - edge + 1)`."""
    for axis in (0, 1):
        lines = np.moveaxis(values, axis, 0)
        shifted = [lines[start : len(lines) - edge + 1 + start] for start in range(edge)]
        values = np.moveaxis(reduce(choose, shifted), 0, axis)
    return values
