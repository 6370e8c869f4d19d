"""ICC profiles that fit the pixels of a file."""

from __future__ import annotations


def profile_fits(icc: bytes | None, channels: int) -> bool:
    """Return whether a profile is whole, and made for pixels of 1 to 4 `channels` (gray or RGB, each with alpha)."""
    if not icc or len(icc) < _HEADER or icc[36:40] != b"acsp":
        return False
    return int.from_bytes(icc[:4], "big") <= len(icc) and icc[16:20] == (b"RGB " if channels > 2 else b"GRAY")


_HEADER = 132  # bytes: the header and the number of tags
