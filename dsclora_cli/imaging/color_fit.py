"""What a file says of its colors, carried into another format: profile, PNG chunks, numbers of AVIF and HEIF, EXIF."""

from __future__ import annotations

from dataclasses import replace

from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.formats import FORMATS
from dsclora_cli.imaging.profiles import (
    CHUNKS_OF_HDR,
    adobe_rgb_profile,
    chunks_of_primaries,
    fitting_profile,
    is_hdr,
    is_srgb,
    name_colors,
    profile_of_chunks,
    profile_space,
    space_of,
)
from dsclora_cli.imaging.types import Header, Metadata
from dsclora_cli.imaging.xmp import find_value

NUMBERED = ("AVIF", "HEIF")
"""Formats that state colors by the numbers of a cICP chunk."""

_WITHOUT_EXIF_COLORS = ("AVIF", "HEIF", "JXL", "JPEG2000")  # the container or the coded pixels state colors
_COLOR_SPACE, _GAMMA, _INTEROP_INDEX, _WHITE, _PRIMARIES = 40961, 42240, 1, 318, 319
_SRGB, _ADOBE_RGB = 1, 2  # values of ColorSpace; the second is no part of the standard, and cameras write it
_NO_COLORS = "{} states colours other than sRGB, but the file has no colour profile: sRGB is assumed"


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
    in_full_range = dict(chunks).get(b"cICP", b"")[2:] == b"\0\1"
    if name in NUMBERED and in_full_range and not metadata.icc:
        kept = tuple(chunk for chunk in chunks if chunk[0] == b"cICP")
        if any(kind in CHUNKS_OF_HDR for kind, _ in chunks):
            notes.append(f"the brightness of the HDR picture (mDCV, cLLI) was left out: {name} is written without")
        return replace(metadata, color_chunks=kept), losses, notes
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


def with_exif_colors(header: Header) -> Header:
    """Return the header with a profile of the colors that EXIF alone states, and a note.

    Cameras write Adobe RGB by a number of EXIF (Exif 2.32, ColorSpace, and DCF 2.0, R03), often without a profile. The
    number would be lost with EXIF, or in a format whose readers know profiles only.
    """
    metadata = header.metadata
    if metadata.icc or metadata.color_chunks or header.format in _WITHOUT_EXIF_COLORS:
        return header
    profile, words = _read_exif_colors(metadata.exif, header.channels)
    if profile:
        metadata = replace(metadata, icc=profile)
        note = f"{words}, which EXIF alone states, became a colour profile"
    elif words:
        note = _NO_COLORS.format("EXIF")
    else:
        note = _note_on_xmp_colors(metadata.xmp)
    return replace(header, metadata=metadata, notes=(*header.notes, note)) if note else header


def _note_on_xmp_colors(xmp: bytes | None) -> str:
    """Return a sentence for the user about colors that XMP alone states; empty for sRGB."""
    name = find_value(xmp, "photoshop:ICCProfile").decode("utf-8", "replace")
    if name and "srgb" not in name.lower():
        return f'XMP names the colour profile "{name:.60}", but the file has no colour profile: sRGB is assumed'
    return _NO_COLORS.format("XMP") if find_value(xmp, "exif:ColorSpace") in (b"2", b"65535") else ""


def _read_exif_colors(exif: bytes | None, channels: int) -> tuple[bytes | None, str]:
    """Return the profile of the colors that EXIF states, and words for the colors; neither for sRGB.

    Words without a profile mean that the colors are other than sRGB, and unknown.
    """
    try:
        layout, first = tiff_ifd.parse_exif(exif or b"")
    except ValueError:
        return None, ""
    order = layout.order
    sub = first.entries.get(tiff_ifd.EXIF_IFD)
    entries = {**first.entries, **(sub.sub if sub and sub.sub else {})}
    interop = entries.get(tiff_ifd.INTEROP_IFD)
    index = interop.sub.get(_INTEROP_INDEX) if interop and interop.sub else None
    stated = tiff_ifd.read_integer(entries.get(_COLOR_SPACE), order)
    is_option = index is not None and index.data.startswith(b"R03")
    if stated == _ADOBE_RGB or (is_option and stated != _SRGB):
        return adobe_rgb_profile(channels), "Adobe RGB"
    if stated in (None, _SRGB):
        return None, ""
    points = [value for tag in (_WHITE, _PRIMARIES) for value in tiff_ifd.read_fractions(entries.get(tag), order)]
    gamma = next(iter(tiff_ifd.read_fractions(entries.get(_GAMMA), order)), None)
    chunks = chunks_of_primaries(points, gamma)
    return (profile_of_chunks(chunks, channels) if chunks else None), "colours given by primaries"
