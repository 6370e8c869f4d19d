"""ICC profiles that fit the pixels of a file, and profiles made of other statements about colors.

A PNG may state colors by chunks (gAMA, cHRM, sRGB, cICP). AVIF and HEIF state numbers of ITU-T H.273, which are kept as
a cICP chunk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Tone = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Linear light of stored values, both from 0 to 1."""

_HEADER = 132  # bytes of a profile: the header and the number of tags
_D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
_BT709 = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), _D65)
# Red, green, blue and white by number (ITU-T H.273, table 2); 2 is "unspecified".
_PRIMARIES = MappingProxyType(
    {
        1: _BT709,
        2: _BT709,
        4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
        5: ((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), _D65),
        6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
        7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
        8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
        9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _D65),
        11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _DCI),
        12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65),
        22: ((0.63, 0.34), (0.295, 0.605), (0.155, 0.077), _D65),
    }
)
# sRGB as a "para" tag: exponent, factors and ends of the two parts of the curve, in 1/65536.
_SRGB_CURVE = b"para\0\0\0\0\0\3\0\0" + struct.pack(">5I", 157286, 62119, 3417, 5072, 2651)
_HDR = MappingProxyType({16: "PQ", 18: "HLG"})
_ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65)
_ADOBE_GAMMA = 563 / 256  # Adobe RGB (1998) Color Image Encoding, 4.3.1.2
_SRGB_GAMMA = 45455  # of a gAMA chunk, in 1/100000: 1 / 2.2, the nearest to sRGB
_STEPS = 1024  # of a curve
CHUNKS_OF_HDR = (b"mDCV", b"mDCv", b"cLLI", b"cLLi")
"""PNG chunks about the brightness of an HDR picture."""

Points = tuple[tuple[float, float], ...]
"""x and y of red, green, blue and white."""

ColorChunks = tuple[tuple[bytes, bytes], ...]
"""Kind and data of PNG chunks."""


def _srgb_tone(stored: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)


def _bt709_tone(stored: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(stored < 0.081, stored / 4.5, ((stored + 0.099) / 1.099) ** (1 / 0.45))


def _power(exponent: float) -> Tone:
    return lambda stored: stored**exponent


# By number (ITU-T H.273, table 3); PQ and HLG have no tone curve of a profile.
_TONES: MappingProxyType[int, Tone] = MappingProxyType(
    {
        **dict.fromkeys((1, 6, 11, 14, 15), _bt709_tone),
        **dict.fromkeys((2, 13), _srgb_tone),
        4: _power(2.2),
        5: _power(2.8),
        8: _power(1.0),
        17: _power(2.6),
    }
)


def srgb_profile() -> bytes:
    """Return an sRGB ICC profile, always the same bytes."""
    from PIL import ImageCms

    return _with_fixed_date(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def _with_fixed_date(profile: bytes) -> bytes:
    # Little CMS writes the current time into bytes 24 to 35; a fixed date keeps results reproducible.
    date = b"\x07\xe8\0\x01\0\x01" + bytes(6)
    return profile[:24] + date + profile[36:]


def adobe_rgb_profile(channels: int) -> bytes | None:
    """Return a profile of Adobe RGB (1998) for pixels of 1 to 4 channels."""
    return _make(_ADOBE_RGB, _power(_ADOBE_GAMMA), channels)


def profile_space(icc: bytes) -> str | None:
    """Return "RGB", "GRAY", "CMYK" or another color space of a profile; None for a profile that is damaged."""
    if len(icc) < _HEADER or icc[36:40] != b"acsp" or int.from_bytes(icc[:4], "big") > len(icc):
        return None
    return icc[16:20].decode("latin-1").strip()


def is_default_of_jxl(icc: bytes) -> bool:
    """Return whether the decoder of JPEG XL made a profile to say "sRGB", which needs no profile."""
    # Numbers of ITU-T H.273 for color, or the curve alone for gray.
    mark = _SRGB_CURVE if profile_space(icc) == "GRAY" else b"cicp\0\0\0\0\x01\x0d\0\x01"
    return icc[4:8] == b"jxl " and mark in icc


def space_of(channels: int) -> str:
    """Return the color space of the profile that fits pixels of 1 to 4 channels."""
    return "RGB" if channels > 2 else "GRAY"


def fitting_profile(icc: bytes | None, channels: int) -> bytes | None:
    """Return a profile for gray pixels, or for gray pixels in 3 or 4 channels, that gives them the same look.

    `icc` itself where the profile fits. None without a profile, for a damaged one, and for a profile of another space.
    """
    space = profile_space(icc) if icc else None
    if icc is None or space == space_of(channels):
        return icc
    return with_tone_of(icc, channels) if space in ("RGB", "GRAY") else None


def with_tone_of(icc: bytes, channels: int) -> bytes | None:
    """Return a gray profile as an RGB profile for 3 or 4 channels, or an RGB profile as a gray one for 1 or 2.

    Gray pixels look the same with both. None for a profile that Little CMS cannot read.
    """
    import imagecodecs

    source = "rgb" if profile_space(icc) == "RGB" else "gray"
    ramp = np.rint(np.linspace(0, 65535, _STEPS)).astype(np.uint16)[None, :, None]
    linear = imagecodecs.cms_profile("gray", whitepoint=(*_D65, 1.0), gamma=1.0)
    try:
        light = imagecodecs.cms_transform(
            np.ascontiguousarray(ramp.repeat(3, axis=2) if source == "rgb" else ramp[..., 0]),
            profile=icc,
            outprofile=linear,
            colorspace=source,
            outcolorspace="gray",
        )
    except (RuntimeError, ValueError):
        return None
    table = np.asarray(light, np.float64).ravel() / 65535
    return _make(_BT709, lambda _: table, channels)


def profile_of_chunks(chunks: ColorChunks, channels: int) -> bytes | None:
    """Return a profile with the colors that PNG chunks state, for pixels of 1 to 4 channels; None for HDR.

    As in PNG, cICP comes before sRGB, and sRGB before gAMA and cHRM. A missing gAMA or cHRM is that of sRGB.
    """
    stated = dict(chunks)
    primaries: Points = _BT709
    tone: Tone = _srgb_tone
    if len(stated.get(b"cICP", b"")) == 4:
        first, second, matrix, full = stated[b"cICP"]
        # A narrow range would need other pixels.
        if first not in _PRIMARIES or second not in _TONES or matrix or not full:
            return None
        primaries, tone = _PRIMARIES[first], _TONES[second]
    elif b"sRGB" not in stated:
        if len(stated.get(b"cHRM", b"")) == 32:
            x_y = [value / 100000 for value in struct.unpack(">8i", stated[b"cHRM"])]
            white, red, green, blue = ((x, y) for x, y in zip(x_y[::2], x_y[1::2], strict=True))
            if all(y > 0 and x + y <= 1 and x >= 0 for x, y in (white, red, green, blue)):
                primaries = (red, green, blue, white)
        if len(stated.get(b"gAMA", b"")) == 4:
            (gamma,) = struct.unpack(">I", stated[b"gAMA"])
            # Encoders round 1/2.2 in many ways; libpng takes all within 5 % for equal. With the primaries of sRGB,
            # 1/2.2 stands for the tone of sRGB.
            near_srgb = _are_srgb(primaries) and abs(gamma - _SRGB_GAMMA) <= _SRGB_GAMMA // 20
            if gamma and not near_srgb:
                tone = _power(min(100000 / gamma, 10.0))
    if tone is _srgb_tone and channels > 2 and _are_srgb(primaries):
        return srgb_profile()
    return _make(primaries, tone, channels)


def _are_srgb(primaries: Points) -> bool:
    return bool(np.abs(np.subtract(primaries, _BT709)).max() < 0.002)


def _make(primaries: Points, tone: Tone, channels: int) -> bytes | None:
    """Return a profile with a table of the tone; None for primaries that Little CMS refuses."""
    import imagecodecs

    table = np.rint(np.clip(tone(np.linspace(0, 1, _STEPS)), 0, 1) * 65535).astype(np.uint16)
    red_green_blue = [value for x, y in primaries[:3] for value in (x, y, 1.0)]
    try:
        made = imagecodecs.cms_profile(
            "rgb" if channels > 2 else "gray",
            whitepoint=(*primaries[3], 1.0),
            primaries=red_green_blue if channels > 2 else None,
            transferfunction=table,
        )
    except (RuntimeError, ValueError):
        return None
    return _with_fixed_date(bytes(made))


def is_srgb(chunks: ColorChunks) -> bool:
    """Return whether PNG chunks state sRGB, which every viewer assumes without a statement."""
    return profile_of_chunks(chunks, 3) == srgb_profile()


def name_colors(chunks: ColorChunks) -> str:
    """Return words for the user about the colors that PNG chunks state: "the colours stated by gAMA and cHRM"."""
    numbers = dict(chunks).get(b"cICP", b"")
    if len(numbers) == 4 and numbers[1] in _HDR:
        return f"HDR colours ({_HDR[numbers[1]]})"
    stated = (b"cICP",) if numbers else tuple(kind for kind, _ in chunks if kind not in CHUNKS_OF_HDR)
    return f"the colours stated by {' and '.join(kind.decode() for kind in stated)}"


def is_hdr(chunks: ColorChunks) -> bool:
    """Return whether PNG chunks state colors that no ICC profile holds: PQ, HLG, or unknown numbers."""
    return bool(dict(chunks).get(b"cICP")) and profile_of_chunks(chunks, 3) is None


def chunks_of_numbers(primaries: int, transfer: int) -> ColorChunks:
    """Return the numbers of ITU-T H.273 as a cICP chunk; none for sRGB, and for numbers that say nothing."""
    if primaries in (1, 2) and transfer in (2, 13):
        return ()
    if not (0 <= primaries < 256 and 0 <= transfer < 256):
        return ()
    return ((b"cICP", bytes((primaries, transfer, 0, 1))),)


def chunks_of_primaries(points: list[float], gamma: float | None = None) -> ColorChunks:
    """Return x and y of white, red, green and blue as a cHRM chunk, and `gamma` (as 2.2) as a gAMA chunk."""
    if len(points) != 8 or not all(0 < value < 1 for value in points):
        return ()
    chunks = [(b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in points)))]
    if gamma and 0.1 < gamma < 10:
        chunks.append((b"gAMA", struct.pack(">I", round(100000 / gamma))))
    return tuple(chunks)
