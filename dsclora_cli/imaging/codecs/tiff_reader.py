"""TIFF: pages at every depth people have, and its metadata, which lies in directories and not in blocks.

Large TIFF pages as bands of rows, decoded while those before are upscaled.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import color, tiff_ifd
from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.color import unpremultiply, white_of
from dsclora_cli.imaging.formats import load_plugin
from dsclora_cli.imaging.types import AnyFrame, Frame, Header, Metadata, Opened, Pixels, StreamedFrame, regroup_bands

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile
    from tifffile import TiffPage


_MINISWHITE, _MINISBLACK, _RGB = 0, 1, 2
_PREMULTIPLIED = 1
XMP, IPTC = 700, 33723
_RESOURCES, _ICC, _DESCRIPTION = 34377, 34675, 270
_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 274, 282, 283, 296
_CENTIMETRE = 3
DETAILS = (269, 270, 271, 272, 285, 305, 306, 315, 316, 18246, 18249, 33432, tiff_ifd.EXIF_IFD, tiff_ifd.GPS_IFD)
WINDOWS_DETAILS = tuple(range(40091, 40096))
_MACHINE_DESCRIPTIONS = (b"ImageJ=", b'{"shape"', b"<?xml")
_SILENCE = logging.NullHandler()


def open_tiff(file: BinaryIO) -> Opened:
    """Header and upright frames of a TIFF or BigTIFF file; thumbnails and masks are no pages."""
    from tifffile import TiffFile

    # What it logs is harmless or becomes an error below; without any handler it would land on standard error.
    logging.getLogger("tifffile").addHandler(_SILENCE)
    tiff = TiffFile(file)
    every = [page.aspage() for page in tiff.pages]
    pages = [page for page in every if not page.subfiletype & 5] or every[:1]
    numbers = [page.index for page in pages]
    layout = tiff_ifd.Layout(tiff.byteorder, tiff.is_bigtiff)
    directory = tiff_ifd.read(file, layout, pages[0].offset)
    metadata = _read_metadata(directory.entries, layout.order)
    kinds = [_kind(page, file, number) for page, number in zip(pages, numbers, strict=True)]
    notes = tuple(dict.fromkeys(note for kind in kinds for note in kind[4]))
    if any("sRGB" in note for note in notes):
        metadata = blocks.with_icc(metadata, color.srgb_profile())
    channels = _common_channels([kind[2] for kind in kinds])
    depth = max((kind[3] for kind in kinds), key=lambda dtype: dtype.itemsize)
    largest = max((kind[:2] for kind in kinds), key=lambda size: size[0] * size[1])
    header = Header("TIFF", *largest, channels, depth, len(pages), metadata=metadata, notes=notes)
    return Opened(header, partial(_frames, file, pages, numbers, header))


def _read_metadata(entries: Mapping[int, tiff_ifd.Entry], order: str) -> Metadata:
    details = {tag: entries[tag] for tag in (*DETAILS, *WINDOWS_DETAILS) if tag in entries}
    if _DESCRIPTION in details and details[_DESCRIPTION].data.startswith(_MACHINE_DESCRIPTIONS):
        del details[_DESCRIPTION]
    raw = {tag: entries[tag].data for tag in (XMP, IPTC, _RESOURCES, _ICC) if tag in entries}
    return Metadata(
        icc=raw.get(_ICC),
        exif=tiff_ifd.pack_exif(details, order) if details else None,
        xmp=blocks.plain_xmp(raw.get(XMP)),
        iptc=blocks.iptc_of_resources(raw.get(IPTC) or raw.get(_RESOURCES, b"")),
        dpi=_density(entries, order),
    )


def _density(entries: Mapping[int, tiff_ifd.Entry], order: str) -> tuple[float, float] | None:
    unit = tiff_ifd.number(entries.get(_UNIT), order) or 2
    axes = [entries.get(tag) for tag in (_X_RESOLUTION, _Y_RESOLUTION)]
    values = [struct.unpack(order + "II", axis.data) for axis in axes if axis and len(axis.data) == 8]
    if unit == 1 or len(values) < 2 or not all(top and bottom for top, bottom in values):
        return None
    across, down = (top / bottom * (2.54 if unit == _CENTIMETRE else 1) for top, bottom in values)
    return across, down


def _common_channels(channels: list[int]) -> int:
    """Colour if any page has colour, alpha if any page has alpha."""
    return (3 if max(channels) > 2 else 1) + any(count in (2, 4) for count in channels)


Kind = tuple[int, int, int, np.dtype[Any], tuple[str, ...]]


def _is_plain(page: TiffPage) -> bool:
    """Grey or RGB of at least 8 bits: read with tifffile, for Pillow cuts 16 bits to 8; the rest is Pillow's."""
    return page.photometric in (_MINISWHITE, _MINISBLACK, _RGB) and int(page.bitspersample) >= 8


def _kind(page: TiffPage, file: BinaryIO, number: int) -> Kind:
    """Width, height, channels and depth of an upright page, and notes."""
    if not page.imagewidth or not page.imagelength:
        raise ImageError("the file is damaged: this TIFF states no size")
    if not _is_plain(page):
        return _pillow_kind(page, file, number)
    dtype, notes = page.dtype, []
    if page.imagedepth > 1 or dtype is None or dtype.kind not in "uf" or (dtype.kind == "u" and dtype.itemsize > 2):
        name = "mixed" if dtype is None else dtype.name
        raise ImageError(f"TIFF with {name} samples is not supported", "convert it to 16-bit or to float")
    if dtype.kind == "f" and dtype.itemsize != 4:
        notes.append(f"{dtype.name} samples were converted to float32")
    samples, colours = page.samplesperpixel, 3 if page.photometric == _RGB else 1
    if samples > colours + 1:
        notes.append(f"{samples - colours - 1} extra channels of the TIFF were left out")
    width, height = page.imagewidth, page.imagelength
    if _orientation(page) >= 5:
        width, height = height, width
    depth = np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
    return width, height, min(samples, colours + 1), depth, tuple(notes)


def _pillow_kind(page: TiffPage, file: BinaryIO, number: int) -> Kind:
    try:
        image = _pillow_page(file, number)
    except SyntaxError as error:  # Pillow's word for a layout it has no mode for
        layout = f"{page.bitspersample}-bit {getattr(page.photometric, 'name', page.photometric)}"
        raise ImageError(f"TIFF with {layout} samples is not supported", "convert it to RGB") from error
    note = color.conversion_note(image, image.info.get("icc_profile"))
    notes = [note] if note else []
    if int(page.bitspersample) > 8:
        notes.append(f"{page.bitspersample} bits per channel were reduced to 8")
    return *image.size, color.channels_of(image), color.depth_of(image), tuple(notes)


def _orientation(page: TiffPage) -> int:
    tag = page.tags.get(_ORIENTATION)
    return int(tag.value) if tag is not None and tag.value in range(1, 9) else 1


def _frames(file: BinaryIO, pages: list[TiffPage], numbers: list[int], header: Header) -> Iterator[AnyFrame]:
    for page, number in zip(pages, numbers, strict=True):
        if _has_bands(page, header):
            shape = page.imagelength, page.imagewidth, header.channels
            ready = (_ready(page, band) for band in bands_of(page, file))
            yield StreamedFrame(shape, (color.convert(band, header.channels, header.dtype) for band in ready))
            continue
        pixels = _plain_page(page) if _is_plain(page) else _pillow_pixels(file, number)
        yield Frame(color.convert(pixels, header.channels, header.dtype))


def _has_bands(page: TiffPage, header: Header) -> bool:
    """Bands are for what can be upscaled without a look at the whole: no alpha, whole numbers."""
    opaque = header.channels in (1, 3) and header.dtype.kind == "u"
    return opaque and _is_plain(page) and _orientation(page) == 1 and has_bands(page)


def _pillow_page(file: BinaryIO, number: int) -> TiffImageFile:
    from PIL.TiffImagePlugin import TiffImageFile

    load_plugin("TIFF")
    file.seek(0)
    image = TiffImageFile(file)
    image.seek(number)
    return image


def _pillow_pixels(file: BinaryIO, number: int) -> Pixels:
    """Pillow turns TIFF pages upright by itself."""
    image = _pillow_page(file, number)
    channels = color.channels_of(image)
    image.load()
    return color.pixels_of(image, channels, image.info.get("icc_profile"))


def _plain_page(page: TiffPage) -> Pixels:
    array = page.asarray()
    if array.ndim == 3 and page.planarconfig == 2 and page.samplesperpixel > 1:
        array = np.moveaxis(array, 0, 2)
    return color.upright(_ready(page, array.reshape(page.imagelength, page.imagewidth, -1)), _orientation(page))


def _ready(page: TiffPage, array: NDArray[Any]) -> Pixels:
    """Samples `(h, W, samples)` as pixels with alpha, if there is any, in full range, in this machine's byte order."""
    colours = 3 if page.photometric == _RGB else 1
    native = np.ascontiguousarray(array[..., : colours + 1]).astype(array.dtype.newbyteorder("="), copy=False)
    pixels = _finite(native) if native.dtype.kind == "f" else _full_range(native, int(page.bitspersample))
    if page.photometric == _MINISWHITE:
        pixels[..., :1] = white_of(pixels.dtype) - pixels[..., :1]
    if pixels.shape[2] > colours and _PREMULTIPLIED in page.extrasamples[:1]:
        pixels = unpremultiply(pixels)
    return pixels


def _finite(pixels: NDArray[Any]) -> Pixels:
    if not np.isfinite(pixels).all():
        raise ImageError("the TIFF holds values that are not finite (NaN or infinity)", "replace them with numbers")
    single: Pixels = pixels.astype(np.float32, copy=False)
    return single


def _full_range(pixels: NDArray[Any], bits: int) -> Pixels:
    """Samples of 9 to 15 bits, stored in 16, stretched to the whole range."""
    if bits in (8, 16):
        return pixels
    full: Pixels = np.rint(pixels * (65535 / (2**bits - 1))).astype(np.uint16)
    return full


_LARGE = 2**26
"""Bytes of a page from which on it comes in bands."""

_BAND = 2**23  # bytes


def has_bands(page: TiffPage) -> bool:
    """Whether a page is large and lies in its file row by row, all samples of a pixel together."""
    apart = page.planarconfig == 2 and page.samplesperpixel > 1
    whole = page.jpegheader is not None or page.imagedepth > 1
    return page.nbytes > _LARGE and not apart and not whole


def bands_of(page: TiffPage, file: BinaryIO) -> Iterator[NDArray[Any]]:
    """The samples of a page that `has_bands` as they are stored, `(h, W, samples)`, from top to bottom."""
    rows = max(1, _BAND * page.imagelength // page.nbytes)
    return regroup_bands(_plain(page, file, rows) if page.is_contiguous else _decoded(page), rows)


def _plain(page: TiffPage, file: BinaryIO, rows: int) -> Iterator[NDArray[Any]]:
    """Rows that follow each other in the file, uncompressed."""
    assert page.dtype is not None
    dtype = page.dtype.newbyteorder(page.parent.byteorder)
    for top in range(0, page.imagelength, rows):
        shape = min(rows, page.imagelength - top), page.imagewidth, page.samplesperpixel
        size = int(np.prod(shape)) * dtype.itemsize
        file.seek(page.dataoffsets[0] + top * (page.nbytes // page.imagelength))
        data = file.read(size)
        if len(data) < size:
            raise ImageError(f"the file is damaged or truncated (rows from {top} on are missing)")
        yield np.frombuffer(data, dtype).reshape(shape)


def _decoded(page: TiffPage) -> Iterator[NDArray[Any]]:
    """Strips, or rows of tiles put together."""
    band: NDArray[Any] | None = None
    for segment, (_, _, top, left, _), (_, height, _, _) in page.segments(maxworkers=1):
        if left == 0:
            if band is not None:
                yield band
            shape = min(height, page.imagelength - top), page.imagewidth, page.samplesperpixel
            band = np.full(shape, page.nodata, page.dtype)
        assert band is not None
        if segment is not None:
            part = segment[0, : len(band), : page.imagewidth - left]
            band[: len(part), left : left + part.shape[1]] = part
    if band is not None:
        yield band
