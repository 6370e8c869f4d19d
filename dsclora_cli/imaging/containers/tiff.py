"""Metadata of a TIFF: entries of the directory of a page, and descriptions that programs write for themselves."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import Any

from dsclora_cli.imaging import geotiff, tiff_ifd
from dsclora_cli.imaging.metadata import extract_iptc, normalize_dpi, normalize_xmp, pixel_density
from dsclora_cli.imaging.profiles import ColorChunks, chunks_of_primaries
from dsclora_cli.imaging.types import Metadata

_TRANSFER, _WHITE, _COLORS = 301, 318, 319
_SAMPLES = 277
_RPC = 50844
_NO_RPC = "the rational polynomial coefficients (RPC) of the TIFF, which count old pixels, were left out"
_NO_TRANSFER = "the transfer function of the TIFF was left out: sRGB is assumed"
_NO_IMAGEJ = "the description by ImageJ in the TIFF (images, unit and scale), which counts old pixels, was left out"
_NO_OME = "the description in OME-XML in the TIFF, which counts old pixels, was left out"
_IMAGEJ = re.compile(rb"(ImageJ|SCIFIO)=")
_OME = re.compile(rb"(\xef\xbb\xbf)?\s*+(<\?xml[^>]*+>\s*+)?+(?><!--.*?-->\s*+)*+<(\w++:)?OME[\s>]", re.DOTALL)
_OLD_SHAPE = re.compile(r"shape=\(([\d, ]+)\)")
_MAX_SIDES = 32
_OF_TIFFFILE = ("shape", "axes", "truncated")  # what tifffile states of an array


def read_tiff_metadata(entries: Mapping[int, tiff_ifd.Entry], order: tiff_ifd.ByteOrder) -> Metadata:
    """Return the metadata in the entries of a directory.

    Args:
        entries: Of the first page.
        order: Byte order of the file, as `struct` writes the order.
    """
    details = {tag: entries[tag] for tag in (*tiff_ifd.DETAILS, *tiff_ifd.WINDOWS_DETAILS) if tag in entries}
    description_notes: tuple[str, ...] = ()
    if tiff_ifd.DESCRIPTION in details:
        pixels = math.prod(
            tiff_ifd.read_integer(entries.get(tag), order) or 0 for tag in (tiff_ifd.WIDTH, tiff_ifd.HEIGHT)
        )
        samples = pixels * (tiff_ifd.read_integer(entries.get(_SAMPLES), order) or 1)
        kept, description_notes = _fit_description(details[tiff_ifd.DESCRIPTION].data, samples)
        details[tiff_ifd.DESCRIPTION] = replace(details[tiff_ifd.DESCRIPTION], data=kept)
        if not kept:
            del details[tiff_ifd.DESCRIPTION]
    place = {tag: entries[tag] for tag in geotiff.TAGS if tag in entries}
    raw = {
        tag: entries[tag].data
        for tag in (tiff_ifd.XMP, tiff_ifd.IPTC, tiff_ifd.RESOURCES, tiff_ifd.ICC)
        if tag in entries
    }
    return Metadata(
        icc=raw.get(tiff_ifd.ICC),
        exif=tiff_ifd.pack_exif(details, order) if details else None,
        xmp=normalize_xmp(raw.get(tiff_ifd.XMP)),
        iptc=extract_iptc(raw.get(tiff_ifd.IPTC) or raw.get(tiff_ifd.RESOURCES, b"")),
        dpi=_read_dpi(entries, order),
        density=_read_density(entries, order),
        geo=tiff_ifd.pack_exif(place, order) if place else None,
        color_chunks=() if tiff_ifd.ICC in raw else _read_primaries(entries, order),
        notes=(
            *([_NO_TRANSFER] if _TRANSFER in entries and tiff_ifd.ICC not in raw else []),
            *([_NO_RPC] if _RPC in entries else []),
            *description_notes,
        ),
    )


def _fit_description(description: bytes, samples: int) -> tuple[bytes, tuple[str, ...]]:
    """Return a description without statements about the old pixels, and sentences for the user about what is lost.

    Args:
        description: Of a page.
        samples: Number of samples of the page.
    """
    if _IMAGEJ.match(description):
        return b"", (_NO_IMAGEJ,)
    if _OME.match(description):
        return b"", (_NO_OME,)
    return _without_shape(description, samples), ()


def _without_shape(description: bytes, samples: int) -> bytes:
    """Return a description without the shape of an array that tifffile has noted; other descriptions stay as they are.

    As in tifffile, the shape is that of one page of `samples` samples, or of several such pages.
    """
    text = description.strip(b"\0 \n").decode("utf-8", "replace")
    stated: dict[str, Any] = {}
    if old := _OLD_SHAPE.fullmatch(text):  # of early versions
        stated = {"shape": [int(side) for side in re.findall(r"\d{1,18}", old[1])]}
    elif text.startswith("{") and '"shape"' in text:
        with suppress(ValueError, RecursionError):
            stated = json.loads(text)
    shape = stated.get("shape")
    if not isinstance(shape, list) or not all(isinstance(side, int) and side > 0 for side in shape):
        return description
    if not (samples and shape) or math.prod(shape[:_MAX_SIDES]) % samples:
        return description
    rest = {key: value for key, value in stated.items() if key not in _OF_TIFFFILE}
    return json.dumps(rest).encode() + b"\0" if rest else b""


def _read_primaries(entries: Mapping[int, tiff_ifd.Entry], order: str) -> ColorChunks:
    """Return the white point and the primaries of a TIFF without a profile as a PNG chunk."""
    white, primaries = entries.get(_WHITE), entries.get(_COLORS)
    if not (white and primaries and (len(white.data), len(primaries.data)) == (16, 48)):
        return ()
    parts = struct.unpack(order + "16I", white.data + primaries.data)
    return chunks_of_primaries([top / (bottom or 1) for top, bottom in zip(parts[::2], parts[1::2], strict=True)])


def _read_dpi(entries: Mapping[int, tiff_ifd.Entry], order: str) -> tuple[float, float] | None:
    unit = tiff_ifd.read_integer(entries.get(tiff_ifd.RESOLUTION_UNIT), order) or tiff_ifd.INCH
    axes = [entries.get(tag) for tag in (tiff_ifd.X_RESOLUTION, tiff_ifd.Y_RESOLUTION)]
    values = [struct.unpack(order + "II", axis.data) for axis in axes if axis and len(axis.data) == 8]
    if unit == tiff_ifd.NO_UNIT or len(values) < 2 or not all(bottom for _, bottom in values):
        return None
    across, down = (top / bottom * (2.54 if unit == tiff_ifd.CENTIMETER else 1) for top, bottom in values)
    return normalize_dpi(across, down)


def _read_density(entries: Mapping[int, tiff_ifd.Entry], order: str) -> tuple[int, int] | None:
    """Return the shape of the pixels of a TIFF that states no unit."""
    axes = [entries.get(tag) for tag in (tiff_ifd.X_RESOLUTION, tiff_ifd.Y_RESOLUTION)]
    values = [struct.unpack(order + "II", axis.data) for axis in axes if axis and len(axis.data) == 8]
    if tiff_ifd.read_integer(entries.get(tiff_ifd.RESOLUTION_UNIT), order) != tiff_ifd.NO_UNIT or len(values) < 2:
        return None
    across, down = (Fraction(top, bottom) if bottom else Fraction(0) for top, bottom in values)
    return pixel_density(across, down)
