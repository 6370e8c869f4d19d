"""Place on the map of a GeoTIFF: kept for an enlarged picture (OGC GeoTIFF 1.1, section 7.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from dsclora_cli.imaging import tiff_ifd

_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS = 33550, 33922, 34264, 34735
TAGS = (_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS, 34736, 34737, 42112, 42113)
"""Tags of the place on the map, and the notes and the value without data of GDAL."""

_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2
_DOUBLE = 12


def scale_geo(geo: bytes, across: Fraction, down: Fraction) -> bytes:
    """Return the tags, packed as an EXIF block, for a picture enlarged by the factors: the map stays in its place.

    The pixel scale is divided, tie points keep their place on the map, and a transformation gets smaller steps.
    """
    if across == down == 1:
        return geo
    layout, first = tiff_ifd.parse_exif(geo)
    entries, order = dict(first.entries), layout.order
    # A tie point of PixelIsPoint is the center of a pixel, which lies elsewhere among smaller pixels.
    keys = tiff_ifd.read_integers(entries.get(_KEYS), order)
    stated = {key: value for key, _, _, value in zip(*(keys[at::4] for at in range(4)), strict=False)}
    shift = 0.5 if stated.get(_RASTER_TYPE) == _PIXEL_IS_POINT else 0.0
    fx, fy = float(across), float(down)

    def pixel_scale(values: list[float]) -> list[float]:
        return [values[0] / fx, values[1] / fy, *values[2:]] if len(values) >= 2 else values

    def tie_points(values: list[float]) -> list[float]:
        for at in range(0, len(values) - 5, 6):
            values[at : at + 2] = (values[at] + shift) * fx - shift, (values[at + 1] + shift) * fy - shift
        return values

    def transformation(values: list[float]) -> list[float]:
        for at in range(0, len(values) - 3, 4):
            x, y, _, origin = values[at : at + 4]
            values[at : at + 2] = x / fx, y / fy
            values[at + 3] = origin + x * (shift / fx - shift) + y * (shift / fy - shift)
        return values

    changes: dict[int, Callable[[list[float]], list[float]]] = {
        _PIXEL_SCALE: pixel_scale,
        _TIE_POINTS: tie_points,
        _TRANSFORMATION: transformation,
    }
    for tag, change in changes.items():
        entry = entries.get(tag)
        if entry and entry.type == _DOUBLE:
            code = f"{order}{len(entry.data) // 8}d"
            entries[tag] = replace(entry, data=struct.pack(code, *change(list(struct.unpack(code, entry.data)))))
    return tiff_ifd.pack_exif(entries, order)
