"""Limits on what a picture file may claim, checked before any memory is spent on the claim.

A header of a few bytes can ask for gigabytes. docs/security.md names the limits for users.
"""

from __future__ import annotations

from dsclora_cli.errors import ImageError
from dsclora_cli.host import host_memory
from dsclora_cli.imaging.types import Header

_ALL_FRAMES = 100
"""All frames and bands of a file together may have this many times the pixels that may be decoded at once."""

_COPIES = 3
"""Times that a picture is in memory while being decoded: in the decoder, as an array, and converted."""

TOO_LARGE_HINT = "cut the picture into parts; --max-pixels allows more"


def check_claim(header: Header, at_once: int, max_pixels: int) -> None:
    """Raise ImageError where a file claims no pixels, more pixels than allowed, or more than free memory can hold.

    Args:
        header: What the file claims.
        at_once: Pixels in memory at the same time while the file is decoded; few where a page arrives in bands.
        max_pixels: Most pixels to decode at once.
    """
    frames = f" in each of {header.frames} frames" if header.frames > 1 else ""
    claim = f"claims {header.width} x {header.height} pixels{frames}"
    # Some decoders open such a file without complaint: in JPEG 2000, a size is the difference of two values.
    if header.width < 1 or header.height < 1:
        raise ImageError(f"{claim}: the file is damaged", "copy or download the file again")
    if at_once > max_pixels:
        raise ImageError(f"{claim}, more than the {_amount(max_pixels)} allowed at once", TOO_LARGE_HINT)
    # `at_once` counts as well: strips may be larger than the picture.
    if header.width * header.height * header.frames > _ALL_FRAMES * max_pixels:
        raise ImageError(f"{claim}, in all more than {_amount(_ALL_FRAMES * max_pixels)}", TOO_LARGE_HINT)
    needed = at_once * header.channels * header.dtype.itemsize * _COPIES
    free = host_memory()
    if needed > free:
        raise ImageError(
            f"{claim}, which need {needed / 1e9:.2g} GB of memory, and {free / 1e9:.2g} GB are free",
            "close other programs, or cut the picture into parts",
        )


def _amount(pixels: int) -> str:
    """Return a number of pixels in millions, or the number itself below a million."""
    if pixels < 10**6:
        return f"{pixels} pixels"
    return f"{pixels / 1e6:.4g} million" if pixels < 10**10 else f"{pixels // 10**6} million"
