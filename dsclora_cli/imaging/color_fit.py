"""What a file says of its colors, carried into another format: profile, PNG chunks, numbers of AVIF and HEIF."""

from __future__ import annotations

from dataclasses import replace

from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.profiles import (
    fitting_profile,
    is_hdr,
    is_srgb,
    name_colors,
    profile_of_chunks,
    profile_space,
    space_of,
)
from dsclora_cli.imaging.types import Header, Metadata

NUMBERED = ("AVIF", "HEIF")
"""Formats that state colors by the numbers of a cICP chunk."""


def fit_colors(header: Header, name: str, channels: int) -> tuple[Metadata, list[str], list[str]]:
    """Return metadata with a profile that fits the pixels, and with color chunks that the format can hold.

    Args:
        header: The picture to write.
        name: Pillow name of the format of the file.
        channels: Channels of the file, 1 to 4.

    Returns:
        The metadata, sentences about colors that are lost, and sentences about statements that were converted.
    """
    metadata, chunks = header.metadata, header.metadata.color_chunks
    losses: list[str] = []
    notes: list[str] = []
    if metadata.icc:
        profile, note = _fit_profile(metadata.icc, header.channels, channels)
        metadata, notes = replace(metadata, icc=profile), [note] if note else []
    if name == "PNG" or not chunks:
        if chunks and header.format != "PNG" and not metadata.icc:
            # Many readers of PNG know profiles only.
            metadata = replace(metadata, icc=profile_of_chunks(chunks, channels))
        return metadata, losses, notes
    if name in NUMBERED and b"cICP" in dict(chunks) and not metadata.icc:
        return replace(metadata, color_chunks=tuple(chunk for chunk in chunks if chunk[0] == b"cICP")), losses, notes
    if is_hdr(chunks):
        losses.append(f"{name} has no room for {name_colors(chunks)}: the picture will look different")
    elif not metadata.icc:
        has_room = "icc" in FORMATS[name].metadata
        if has_room:
            metadata = replace(metadata, icc=profile_of_chunks(chunks, channels))
        if not is_srgb(chunks):
            became = "became a colour profile" if metadata.icc else f"were left out: {name} has no room for them"
            notes.append(f"{name_colors(chunks)} {became}")
    return replace(metadata, color_chunks=()), losses, notes


def _fit_profile(icc: bytes, before: int, channels: int) -> tuple[bytes | None, str | None]:
    """Return a profile for pixels of `channels`, and a sentence for the user where the profile changed.

    `before` counts the channels of the picture as read: gray pixels keep their look in a profile of the other kind.
    """
    space = profile_space(icc)
    if space == space_of(channels):
        return icc, None
    if space is None:
        return None, "the colour profile is damaged and was left out"
    fitting = fitting_profile(icc, channels) if before <= 2 else None
    if fitting is None:
        return None, f"the colour profile was left out: it is made for {space} pixels, not for {space_of(channels)}"
    kinds = ("a grey profile", "an RGB profile")
    old, new = kinds if space == "GRAY" else kinds[::-1]
    return fitting, f"{old} became {new} of the same tone, to fit the pixels"
