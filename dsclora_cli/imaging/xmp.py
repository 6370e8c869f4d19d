"""XMP packets adjusted to a turned, enlarged picture: sizes, places, and claims about parts that are gone.

Packets are edited as text, so that everything else keeps its bytes. All searches are linear in the length of a packet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

_ORIENTATION = "tiff:Orientation"
_WIDTHS = ("tiff:ImageWidth", "exif:PixelXDimension")
_HEIGHTS = ("tiff:ImageLength", "exif:PixelYDimension")
# Counts of pixels: of a photo sphere (Google), of the sensor, and of the picture that face regions refer to.
_ACROSS = (
    *("GPano:FullPanoWidthPixels", "GPano:CroppedAreaImageWidthPixels", "GPano:CroppedAreaLeftPixels"),
    *("GPano:LargestValidInteriorRectLeft", "GPano:LargestValidInteriorRectWidth"),
    *("exif:FocalPlaneXResolution", "stDim:w"),
)
_DOWN = (
    *("GPano:FullPanoHeightPixels", "GPano:CroppedAreaImageHeightPixels", "GPano:CroppedAreaTopPixels"),
    *("GPano:LargestValidInteriorRectTop", "GPano:LargestValidInteriorRectHeight"),
    *("exif:FocalPlaneYResolution", "stDim:h"),
)
_SWAPPED = {
    "exif:FocalPlaneXResolution": "exif:FocalPlaneYResolution",
    "stDim:w": "stDim:h",
    "tiff:XResolution": "tiff:YResolution",
}
_PLACES = ("exif:SubjectArea", "exif:SubjectLocation")
_AREA = ("stArea:x", "stArea:y", "stArea:w", "stArea:h")
_RECTANGLE = "MPReg:Rectangle"
_THUMBNAILS = "xmp:Thumbnails"
# Properties of parts of a file that are not written: beginnings of names, and the part.
_PARTS = (
    ("GCamera:MotionPhoto", "a motion video"),
    ("GCamera:MicroVideo", "a motion video"),
    ("OpCamera:", "a motion video"),
    ("MiCamera:", "pictures or videos behind the picture"),
    ("hdrgm:", "a gain map"),
    ("HDRGainMap:", "a gain map"),
    ("Container:Directory", "pictures or videos behind the picture"),
    ("GDepth:", "a depth map"),
    ("Device:Container", "pictures or videos behind the picture"),
    ("GImage:", "a second picture"),
    ("GAudio:", "a sound"),
)
_NAMESPACES = {
    b"http://ns.adobe.com/tiff/1.0/": "tiff",
    b"http://ns.adobe.com/exif/1.0/": "exif",
    b"http://ns.adobe.com/xap/1.0/": "xmp",
    b"http://ns.adobe.com/photoshop/1.0/": "photoshop",
    b"http://ns.google.com/photos/1.0/panorama/": "GPano",
    b"http://ns.google.com/photos/1.0/camera/": "GCamera",
    b"http://ns.google.com/photos/1.0/container/": "Container",
    b"http://ns.google.com/photos/1.0/depthmap/": "GDepth",
    b"http://ns.google.com/photos/1.0/image/": "GImage",
    b"http://ns.google.com/photos/1.0/audio/": "GAudio",
    b"http://ns.oplus.com/photos/1.0/camera/": "OpCamera",
    b"http://ns.google.com/photos/dd/1.0/device/": "Device",
    b"http://ns.adobe.com/hdr-gain-map/1.0/": "hdrgm",
    b"http://ns.apple.com/HDRGainMap/1.0/": "HDRGainMap",
    b"http://ns.adobe.com/xap/1.0/sType/Dimensions#": "stDim",
    b"http://ns.adobe.com/xmp/sType/Area#": "stArea",
    b"http://ns.microsoft.com/photo/1.2/t/Region#": "MPReg",
}
# A tag ends at the first ">" outside quotes, and never runs over the next "<": the search is linear.
_TAG = re.compile(rb"""<(?:[^<>"']++|"[^"<]*+"|'[^'<]*+')*+>""")
_NAME = re.compile(rb"</?([\w.:-]+)")
_ATTRIBUTE = re.compile(rb"""\s([\w.-]+:[\w.-]+)\s*+=\s*+("[^"]*+"|'[^']*+')""")
_DECLARED = re.compile(rb"""\sxmlns:([\w.-]+)\s*+=\s*+("[^"]*+"|'[^']*+')""")


@dataclass
class _Property:
    """An attribute, or an element."""

    name: str
    """With the usual prefix of the namespace, whatever prefix the packet has."""

    parent: int
    """Index of the element around, -1 for none."""

    start: int
    """Offset of the value; of an element, of the content."""

    end: int
    """Offset behind the value."""

    outer: tuple[int, int]
    """Offsets of the attribute with the blank before, or of the element with both tags."""

    leaf: bool = True
    """False for an element with elements inside."""


@dataclass(frozen=True)
class Change:
    """How a picture changed."""

    width: int
    """Of the picture after the change, as `height`."""

    height: int

    factors: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))
    """Enlargement of width and of height."""

    orientation: int = 1
    """EXIF orientation that was applied to the pixels, before they were enlarged."""

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the stored picture lies in the upright one; coordinates from 0 to 1."""
        if self.orientation >= 5:
            x, y = y, x
        across = 1 - x if self.orientation in (2, 3, 6, 7) else x
        return across, 1 - y if self.orientation in (3, 4, 7, 8) else y

    def pixels(self, values: list[int]) -> list[int]:
        """Return a point (x, y) in pixels, with a diameter or a width and height behind, after the change."""
        across, down = (float(factor) for factor in self.factors)
        sides = (self.width / across, self.height / down)
        stored = sides[::-1] if self.orientation >= 5 else sides
        x, y = self.place(values[0] / stored[0], values[1] / stored[1])
        extent = values[2:][:: -1 if self.orientation >= 5 else 1]
        place = (round(x * self.width), round(y * self.height))
        return [*place, *(round(value * factor) for value, factor in zip(extent, (across, down), strict=False))]


def read_xmp_orientation(xmp: bytes | None) -> int:
    """Return the orientation that a packet states, 1 to 8; 1 without a valid value."""
    text = find_value(xmp, _ORIENTATION)
    return int(text) if len(text) == 1 and text in b"12345678" else 1


def find_value(xmp: bytes | None, name: str) -> bytes:
    """Return the first value of a property, by the usual prefix and name; empty without the property."""
    data = xmp or b""
    return next((data[item.start : item.end].strip() for item in _properties(data) if item.name == name), b"")


def edit_xmp(xmp: bytes, change: Change) -> tuple[bytes, tuple[str, ...]]:
    """Return a packet that is true of the changed picture, and sentences for the user about what was removed.

    Orientation becomes 1, sizes become the new size, counts of pixels are scaled and places are turned. Thumbnails are
    removed, and so is what describes parts of the file that are not written (videos, gain maps, depth maps).
    """
    items = _properties(xmp)
    edits: dict[tuple[int, int], bytes] = {}
    parts = set()
    for item in items:
        part = next((part for beginning, part in _PARTS if item.name.startswith(beginning)), None)
        if part or item.name == _THUMBNAILS:
            edits[item.outer] = b""
            parts.add(part)
        elif item.leaf and (new := _new_number(item.name, xmp[item.start : item.end], change)) is not None:
            edits[item.start, item.end] = new
    edits |= _turned(xmp, items, change)
    edits |= _moved_places(xmp, items, change)
    kept, at = [], 0
    for (start, end), new in sorted(edits.items(), key=lambda edit: (edit[0][0], -edit[0][1])):
        if start >= at:  # not inside an element that was removed
            kept += [xmp[at:start], new]
            at = end
    named = sorted(part for part in parts if part)
    notes = (f"metadata of parts that are not kept was removed: {', '.join(named)}",) if named else ()
    return b"".join((*kept, xmp[at:])), notes


def _properties(xmp: bytes) -> list[_Property]:
    """Return attributes and elements; an element that is not closed has no name."""
    declared = ((found[1], _NAMESPACES.get(found[2][1:-1])) for found in _DECLARED.finditer(xmp))
    prefixes = {prefix: usual for prefix, usual in declared if usual}
    everything: list[_Property] = []
    stack: list[tuple[bytes, int]] = []  # raw names and indices of open elements
    for tag in _TAG.finditer(xmp):
        name = _NAME.match(tag[0])
        if name is None:  # a comment, or an instruction
            continue
        if tag[0][1:2] == b"/":
            _close(name[1], tag.span(), stack, everything)
            continue
        parent, index = stack[-1][1] if stack else -1, len(everything)
        if stack:
            everything[parent].leaf = False
        everything.append(_Property(_named(name[1], prefixes), parent, tag.end(), tag.end(), tag.span()))
        for found in _ATTRIBUTE.finditer(tag[0]):
            (first, last), (start, end) = (tuple(tag.start() + at for at in found.span(group)) for group in (0, 2))
            everything.append(_Property(_named(found[1], prefixes), index, start + 1, end - 1, (first, last)))
        if not tag[0].endswith(b"/>"):
            stack.append((name[1], index))
    for _, index in stack:
        everything[index].name, everything[index].leaf = "", False
    return everything


def _close(name: bytes, span: tuple[int, int], stack: list[tuple[bytes, int]], everything: list[_Property]) -> None:
    """Take the element that ends at `span` from the stack of open elements, and end the element."""
    # Only as far as elements without an end are above: a damaged packet must not take quadratic time.
    if stack and stack[-1][0] == name:
        element = everything[stack.pop()[1]]
        element.end, element.outer = span[0], (element.outer[0], span[1])


def _named(name: bytes, prefixes: dict[bytes, str]) -> str:
    prefix, _, local = name.partition(b":")
    return f"{prefixes.get(prefix, prefix.decode('utf-8', 'replace'))}:{local.decode('utf-8', 'replace')}"


def _new_number(name: str, old: bytes, change: Change) -> bytes | None:
    """Return the new value of a property that is a number, or None for any other property."""
    if name == _ORIENTATION:
        return b"1"
    if name in _WIDTHS or name in _HEIGHTS:
        return b"%d" % (change.width if name in _WIDTHS else change.height)
    if name in _ACROSS or name in _DOWN:
        return _scaled(old, change.factors[name in _DOWN])
    return None


def _scaled(old: bytes, factor: Fraction) -> bytes | None:
    """Return a number times `factor` in the same form: a whole number, a fraction, or a decimal."""
    text = old.decode("ascii", "replace").strip()
    if factor == 1 or len(text) > 40:
        return None
    try:
        if "/" in text:
            top, bottom = (int(part) for part in text.split("/"))
            value = Fraction(top, bottom) * factor
            return b"%d/%d" % (value.numerator, value.denominator)
        if text.lstrip("-").isdigit():
            return b"%d" % round(int(text) * factor)
        number = float(text) * float(factor)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return f"{number:.10g}".encode() if math.isfinite(number) else None


def _turned(xmp: bytes, items: list[_Property], change: Change) -> dict[tuple[int, int], bytes]:
    """Return edits of regions of faces and of values for width and height, for a picture that was turned."""
    if change.orientation == 1:
        return {}
    edits: dict[tuple[int, int], bytes] = {}
    groups: dict[int, dict[str, _Property]] = {}
    for item in items:
        if item.leaf:
            groups.setdefault(item.parent, {})[item.name] = item
    for group in groups.values():
        if all(name in group for name in _AREA[:2]):
            edits |= _turned_area(xmp, [group[name] for name in _AREA if name in group], change)
        if _RECTANGLE in group:
            edits |= _turned_rectangle(xmp, group[_RECTANGLE], change)
        for name, other in _SWAPPED.items() if change.orientation >= 5 else ():
            if name in group and other in group:
                for to, source in ((group[name], group[other]), (group[other], group[name])):
                    edits[to.start, to.end] = xmp[source.start : source.end]
    return edits


def _turned_area(xmp: bytes, items: list[_Property], change: Change) -> dict[tuple[int, int], bytes]:
    """Return edits of center, width and height of an area, with coordinates from 0 to 1."""
    values = _floats(xmp[item.start : item.end] for item in items)
    if len(values) != len(items):
        return {}
    extent = values[2:][:: -1 if change.orientation >= 5 and len(values) == len(_AREA) else 1]
    new = (*change.place(values[0], values[1]), *extent)
    return {(item.start, item.end): f"{value:.6g}".encode() for item, value in zip(items, new, strict=True)}


def _turned_rectangle(xmp: bytes, item: _Property, change: Change) -> dict[tuple[int, int], bytes]:
    """Return the edit of a rectangle of Microsoft: left, top, width and height from 0 to 1, with commas between."""
    values = _floats(xmp[item.start : item.end].split(b","))
    if len(values) != len(_AREA):
        return {}
    left, top, width, height = values
    x, y = change.place(left + width / 2, top + height / 2)
    width, height = (height, width) if change.orientation >= 5 else (width, height)
    new = (x - width / 2, y - height / 2, width, height)
    return {(item.start, item.end): ", ".join(f"{value:.6g}" for value in new).encode()}


def _moved_places(xmp: bytes, items: list[_Property], change: Change) -> dict[tuple[int, int], bytes]:
    """Return edits of places in pixels: the list inside the property, `rdf:Seq` and then `rdf:li`."""
    lists: dict[int, list[_Property]] = {}
    for item in items:
        above = items[item.parent].parent if item.parent >= 0 else -1
        if item.leaf and item.name == "rdf:li" and above >= 0 and items[above].name in _PLACES:
            lists.setdefault(above, []).append(item)
    edits: dict[tuple[int, int], bytes] = {}
    for members in lists.values():
        values = _floats(xmp[item.start : item.end] for item in members)
        if len(values) == len(members) and 2 <= len(values) <= 4:
            new = change.pixels([round(value) for value in values])
            edits |= {(item.start, item.end): b"%d" % value for item, value in zip(members, new, strict=True)}
    return edits


def _floats(texts: Iterable[bytes]) -> list[float]:
    """Return the numbers in `texts` that are numbers of a sensible size."""
    numbers = []
    for text in texts:
        try:
            number = float(text.decode("ascii", "replace"))
        except ValueError:
            continue
        if abs(number) < 2**31:
            numbers.append(number)
    return numbers
