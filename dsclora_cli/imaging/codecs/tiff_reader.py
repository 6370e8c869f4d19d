"""Decoder for TIFF and BigTIFF: pages of every depth, large pages as bands of rows.

tifffile reads gray and RGB of at least 8 bits; Pillow, which would cut 16 bits to 8, reads all else (palettes, 1-bit,
CMYK, Lab, YCbCr).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.codecs.incomplete import lenient_pillow
from dsclora_cli.imaging.codecs.tiff_segments import (
    mend_page,
    pixels_at_once,
    read_salvaged,
    require_segments,
)
from dsclora_cli.imaging.color import (
    apply_orientation,
    conversion_note,
    convert_pixels,
    image_to_pixels,
    pixel_layout,
    unpremultiply,
    white_level,
)
from dsclora_cli.imaging.containers.surplus import tiff_notes
from dsclora_cli.imaging.containers.tiff import read_tiff_metadata
from dsclora_cli.imaging.decoder_messages import collect_complaints
from dsclora_cli.imaging.formats import CAMERA_RAW, load_plugin
from dsclora_cli.imaging.metadata import read_orientation, with_icc, with_size
from dsclora_cli.imaging.profiles import srgb_profile
from dsclora_cli.imaging.types import (
    AnyFrame,
    Frame,
    Header,
    LossNote,
    OpenedFile,
    Pixels,
    StreamedFrame,
    regroup_bands,
)

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import TiffImageFile
    from tifffile import TiffPage

_MINISWHITE, _MINISBLACK, _RGB = 0, 1, 2
_PREMULTIPLIED, _STRAIGHT = 1, 2  # meaning of an extra sample
_FAXES, _JPEG = (2, 3, 4, 32771), 7  # methods of compression
_SEPARATE = 2  # planar configuration: each channel by itself
_COLOR_MAP, _SUB_DIRECTORIES, _PHOTOMETRIC, _DNG_VERSION = 320, 330, 262, 50706
_SENSOR_DATA = (32803, 34892)  # photometric interpretation: color filter array, linear raw
_OF_A_PAGE = {
    "resolution": (tiff_ifd.X_RESOLUTION, tiff_ifd.Y_RESOLUTION, tiff_ifd.RESOLUTION_UNIT),
    "colour profile": (tiff_ifd.ICC,),
    "metadata": (tiff_ifd.XMP, tiff_ifd.IPTC, tiff_ifd.RESOURCES, *tiff_ifd.DETAILS, *tiff_ifd.WINDOWS_DETAILS),
}
"""Tags that a page may have for itself, and the words for them. A result has those of the first page."""
_THUMBNAIL_OR_MASK = 5  # bits of the tag NewSubfileType
_SILENCE = logging.NullHandler()
_LARGE = 2**26  # bytes of a page; larger pages are decoded in bands
_BAND = 2**23  # bytes


@dataclass(frozen=True)
class _PageInfo:
    """Facts about an upright page."""

    width: int
    height: int
    channels: int
    dtype: np.dtype[Any]
    notes: tuple[str, ...]
    """Sentences for the user about conversions."""


def open_tiff(file: BinaryIO, salvage: bool = False) -> OpenedFile:
    """Open a TIFF or BigTIFF file. Frames are upright; thumbnails and masks are no pages.

    Args:
        file: The file.
        salvage: Leave out strips, tiles and pages that cannot be read, instead of raising an error. Everything that can
            be read is decoded at once to count the losses.

    Raises:
        ImageError: The file is damaged, or the samples are of an unsupported type. (tifffile may raise others.)
    """
    from tifffile import TiffFile

    # Warnings of tifffile are harmless or become errors below; without a handler they would appear on standard error.
    logging.getLogger("tifffile").addHandler(_SILENCE)
    file.seek(0)
    layout, first = tiff_ifd.parse_header(file.read(16))
    # Before tifffile, which follows pages that point back at themselves for ever.
    count, page_notes = _count_pages(file, layout, first, salvage)
    file.seek(0)
    tiff = TiffFile(file)
    every = [tiff.pages[number].aspage() for number in range(count)]
    if salvage and (usable := [page for page in every if _states_pixels(page)]) != every:
        page_notes.append(f"salvaged: {len(usable)} of {len(every)} pages")
        every = usable or every
    pages = [page for page in every if not page.subfiletype & _THUMBNAIL_OR_MASK] or every[:1]
    hidden = _read_sub_directories(file, layout, every[0].offset)
    if _DNG_VERSION in every[0].tags or any(kind in _SENSOR_DATA for kind in (*hidden, *map(_photometric, every))):
        raise ImageError(*CAMERA_RAW)
    directory = tiff_ifd.read_directory(file, layout, pages[0].offset)
    metadata = read_tiff_metadata(directory.entries, layout.order)
    # Pages without an orientation have that of XMP, which describes the file.
    turns = [_read_orientation(page, read_orientation(metadata)) for page in pages]
    infos = [_inspect_page(page, turn, file) for page, turn in zip(pages, turns, strict=True)]
    every_note = (
        *page_notes,
        *(note for info in infos for note in info.notes),
        *_left_out(every, pages, hidden),
        *tiff_notes(directory.entries, directory.repeated),
    )
    notes = tuple(dict.fromkeys(every_note))
    if any("sRGB" in note for note in notes):
        metadata = with_icc(metadata, srgb_profile())
    largest = max(infos, key=lambda info: info.width * info.height)
    # Frames come upright: XMP must not turn them again.
    metadata = with_size(metadata, largest.width, largest.height, orientation=turns[0])
    header = Header(
        format="TIFF",
        width=largest.width,
        height=largest.height,
        # All pages get the channels and the depth of the widest: color if any has color, alpha if any has alpha.
        channels=max(1 if info.channels < 3 else 3 for info in infos) + any(info.channels in (2, 4) for info in infos),
        dtype=max((info.dtype for info in infos), key=lambda dtype: dtype.itemsize),
        frames=len(pages),
        metadata=metadata,
        notes=notes,
    )
    turned = list(zip(pages, turns, strict=True))
    at_once = max(pixels_at_once(page, turn == 1 and _can_stream(page, header)) for page, turn in turned)
    return OpenedFile(header, partial(_decode_salvaged if salvage else _decode, file, turned, header), at_once)


def _count_pages(file: BinaryIO, layout: tiff_ifd.Layout, first: int, salvage: bool) -> tuple[int, list[str]]:
    """Return the number of pages, and a sentence for the user where `salvage` gives up some."""
    count = 0
    try:
        for _ in tiff_ifd.iter_pages(file, layout, first):
            count += 1
    except ValueError as error:
        if not salvage or not count:
            raise ImageError(f"the file is damaged: {error}") from error
        return count, [f"salvaged: the {count} pages that can be read ({error})"]
    return count, []


def _states_pixels(page: TiffPage) -> bool:
    return bool(page.imagewidth and page.imagelength and page.bitspersample)


def _photometric(page: TiffPage) -> int:
    return int(page.photometric)


def _read_sub_directories(file: BinaryIO, layout: tiff_ifd.Layout, offset: int) -> list[int]:
    """Return the photometric interpretation of each picture in the sub-directories of a page; -1 where none is stated.

    Cameras put the data of the sensor there, other programs reduced copies.
    """
    found = []
    entry = tiff_ifd.read_directory(file, layout, offset).entries.get(_SUB_DIRECTORIES)
    for at in tiff_ifd.read_integers(entry, layout.order):
        try:
            entries = tiff_ifd.read_directory(file, layout, at).entries
        except ValueError:
            continue
        found.append(next(iter(tiff_ifd.read_integers(entries.get(_PHOTOMETRIC), layout.order)), -1))
    return found


def _left_out(every: list[TiffPage], pages: list[TiffPage], hidden: list[int]) -> Iterator[str]:
    """Yield sentences for the user about pictures in the file that are not read."""
    if len(every) > len(pages):
        yield f"thumbnails and masks among the pages of the TIFF were left out: {len(every) - len(pages)}"
    if hidden:
        yield f"pictures in sub-directories of the TIFF (reduced copies) were left out: {len(hidden)}"
    # A result is written with one resolution, one profile and one set of metadata for all pages.
    for what, tags in _OF_A_PAGE.items():
        first, *rest = [_tag_values(page, tags) for page in pages]
        others = sum(values != first for values in rest)
        if others:
            yield f"every page has the {what} of the first page; {others} of {len(pages)} pages had another"


def _tag_values(page: TiffPage, tags: tuple[int, ...]) -> list[object]:
    """Return the values of tags of a page; None for a tag that is missing or cannot be read."""
    values: list[object] = [None] * len(tags)
    for index, tag in enumerate(tags):
        # The pixels do not need these tags, so a damaged tag must not cost the picture.
        with suppress(Exception):
            values[index] = page.tags.valueof(tag)
    return values


def _inspect_page(page: TiffPage, turn: int, file: BinaryIO) -> _PageInfo:
    if not page.imagewidth or not page.imagelength:
        raise ImageError("the file is damaged: the TIFF states no size")
    if page.imagedepth > 1:
        raise ImageError(f"TIFF with {page.imagedepth} layers in a page is not supported", "save each layer as a page")
    # tifffile gives a number where all samples have the same number of bits.
    if isinstance(page.bitspersample, tuple):
        what = f"TIFF with samples of different bits ({', '.join(map(str, page.bitspersample))})"
        raise ImageError(f"{what} is not supported", "convert it to 8 bits or 16 bits")
    _complete_photometric(page)
    if not _is_plain(page):
        return _inspect_with_pillow(page, turn, file)
    dtype = page.dtype
    notes: list[str] = []
    if dtype is None or dtype.kind not in "uf" or (dtype.kind == "u" and dtype.itemsize > 2):
        name = f"{page.bitspersample}-bit" if dtype is None else dtype.name
        raise ImageError(f"TIFF with {name} samples is not supported", "convert it to 16-bit or to float")
    if dtype.kind == "f" and dtype.itemsize != 4:
        converted = f"{dtype.name} samples were converted to float32"
        notes.append(LossNote(converted) if dtype.itemsize > 4 else converted)
    channels = len(_kept_samples(page))
    if page.samplesperpixel > channels:
        notes.append(f"extra channels of the TIFF that are no alpha were left out: {page.samplesperpixel - channels}")
    width, height = (page.imagewidth, page.imagelength)[:: -1 if turn >= 5 else 1]
    depth = np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
    return _PageInfo(width, height, channels, depth, tuple(notes))


def _complete_photometric(page: TiffPage) -> None:
    """Set the photometric interpretation of a page that states none, as libtiff assumes; four colors are RGB and alpha.

    Raises:
        ImageError: The number of samples does not tell the colors.
    """
    # tifffile completes pages of the old kind of JPEG. In a fax zero is white, as tifffile assumes everywhere.
    if _PHOTOMETRIC in page.tags or page.photometric != _MINISWHITE or page.compression in _FAXES:
        return
    colors = page.samplesperpixel - len(page.extrasamples)
    if colors == 1:
        page.photometric = _MINISBLACK
    elif colors in (3, 4) and page.compression != _JPEG:  # a JPEG may hold YCbCr as well
        page.photometric = _RGB
    else:
        what = f"TIFF with {page.samplesperpixel} samples a pixel that does not say what they mean"
        raise ImageError(f"{what} is not supported", "set its tag PhotometricInterpretation with another program")


def _inspect_with_pillow(page: TiffPage, turn: int, file: BinaryIO) -> _PageInfo:
    try:
        image = _open_with_pillow(file, page.index)
    except SyntaxError as error:  # Pillow's exception for a layout without a mode
        layout = f"{page.bitspersample}-bit {getattr(page.photometric, 'name', page.photometric)}"
        raise ImageError(f"TIFF with {layout} samples is not supported", "convert it to RGB") from error
    note = conversion_note(image, image.info.get("icc_profile"))
    notes: list[str] = [note] if note else []
    if int(page.bitspersample) > 8:
        notes.append(LossNote(f"{page.bitspersample} bits per channel were reduced to 8"))
    width, height = (page.imagewidth, page.imagelength)[:: -1 if turn >= 5 else 1]
    return _PageInfo(width, height, *pixel_layout(image), tuple(notes))


def _is_plain(page: TiffPage) -> bool:
    """Return whether tifffile reads the page: gray or RGB of at least 8 bits."""
    return page.photometric in (_MINISWHITE, _MINISBLACK, _RGB) and int(page.bitspersample) >= 8


def _kept_samples(page: TiffPage) -> list[int]:
    """Return the indices of the color samples, and of the first alpha sample, if any.

    An extra sample of unspecified meaning (0) is no alpha: near infrared, for example. Without the tag ExtraSamples,
    the fourth sample of RGB is alpha, as in libtiff.
    """
    colors = 3 if page.photometric == _RGB else 1
    meanings = page.extrasamples or (_STRAIGHT,)
    alpha = [colors + at for at, meaning in enumerate(meanings) if meaning in (_PREMULTIPLIED, _STRAIGHT)]
    return [*range(colors), *(at for at in alpha[:1] if at < page.samplesperpixel)]


def _read_orientation(page: TiffPage, otherwise: int) -> int:
    """Return the orientation of a page, in a number of any type; `otherwise` for a page without the tag."""
    tag = page.tags.get(tiff_ifd.ORIENTATION)
    if tag is None:
        return otherwise
    stream = page.parent.filehandle
    stream.seek(tag.valueoffset)
    data = stream.read(max(1, tag.valuebytecount))
    value = tiff_ifd.read_integer(tiff_ifd.Entry(int(tag.dtype), data), page.parent.byteorder)
    return value if value is not None and 1 <= value <= 8 else 1


def _open_with_pillow(file: BinaryIO, number: int) -> TiffImageFile:
    from PIL import ImagePalette
    from PIL.TiffImagePlugin import TiffImageFile

    load_plugin("TIFF")
    file.seek(0)
    image = TiffImageFile(file)
    image.seek(number)
    # Pillow would turn the picture by the orientations that Pillow can read: the caller turns every picture.
    image.load_end = lambda: None  # type: ignore[method-assign]
    table = image.tag_v2.get(_COLOR_MAP, ())
    # Old programs wrote 8 bits where the format has 16: every color would be black (libtiff checks this as well).
    if image.mode == "P" and table and max(table) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(table))
    return image


def _decode(file: BinaryIO, pages: list[tuple[TiffPage, int]], header: Header) -> Iterator[AnyFrame]:
    """Yield upright pages, `(H, W, header.channels)` of `header.dtype`; large ones as a `StreamedFrame`."""
    for page, _ in pages:
        require_segments(page, file)
    for page, turn in pages:
        if turn == 1 and _can_stream(page, header):
            shape = page.imagelength, page.imagewidth, header.channels
            ready = (_to_pixels(page, band) for band in _read_bands(page, file))
            yield StreamedFrame(shape, (convert_pixels(band, header.channels, header.dtype) for band in ready))
            continue
        if _is_plain(page):
            array = page.asarray()
            if array.ndim == 3 and page.planarconfig == _SEPARATE and page.samplesperpixel > 1:
                array = np.moveaxis(array, 0, 2)
            pixels = _to_pixels(page, array.reshape(page.imagelength, page.imagewidth, -1))
            pixels = apply_orientation(pixels, turn)
        else:
            pixels, _ = _decode_with_pillow(file, page)
            pixels = apply_orientation(pixels, turn)
        yield Frame(convert_pixels(pixels, header.channels, header.dtype))


def _decode_with_pillow(file: BinaryIO, page: TiffPage, salvage: bool = False) -> tuple[Pixels, str | None]:
    """Return the stored pixels of a page that Pillow reads, and with `salvage` a sentence about losses.

    Raises:
        ImageError: libtiff has found damage in the pixels, and mended the damage.
    """
    with lenient_pillow() if salvage else nullcontext(), collect_complaints() as complaints:
        image = _open_with_pillow(file, page.index)
        channels, _ = pixel_layout(image)
        image.load()
    places = "one place" if len(complaints) == 1 else f"{len(complaints)} places"
    if complaints and not salvage:
        raise ImageError(f"the file is damaged: {places} of the TIFF cannot be read")
    # A copy has the size of the pixels; `image` may have the size after Pillow's turn.
    pixels = image_to_pixels(image.copy(), channels, image.info.get("icc_profile"))
    if _PHOTOMETRIC not in page.tags and page.photometric == _MINISBLACK:
        pixels = (white_level(pixels.dtype) - pixels).astype(pixels.dtype)  # Pillow takes zero for white
    return pixels, f"salvaged: libtiff mended {places} of the TIFF" if complaints else None


def _decode_salvaged(file: BinaryIO, pages: list[tuple[TiffPage, int]], header: Header) -> Iterator[AnyFrame]:
    """Yield upright pages as `_decode` does; samples that cannot be read are 0, and a note says how many."""
    for page, turn in pages:
        if _is_plain(page):
            planes, note = read_salvaged(page, file)
            array = np.moveaxis(planes[..., 0], 0, 2) if len(planes) > 1 else planes[0]
            pixels = _to_pixels(page, array)
        else:
            mended, loss = mend_page(page, file)
            pixels, note = _decode_with_pillow(mended, page, salvage=True)
            note = loss or note
        pixels = apply_orientation(pixels, turn)
        yield Frame(convert_pixels(pixels, header.channels, header.dtype), note=note)


def _to_pixels(page: TiffPage, array: NDArray[Any]) -> Pixels:
    """Return samples `(h, W, samples)` as pixels `(h, W, C)` in full range and in the byte order of this machine.

    The first alpha channel stays, other extra channels are left out.
    """
    kept = _kept_samples(page)
    # A slice where the samples follow each other: no copy.
    chosen = array[..., : len(kept)] if kept[-1] == len(kept) - 1 else array[..., kept]
    native = np.ascontiguousarray(chosen).astype(array.dtype.newbyteorder("="), copy=False)
    bits = int(page.bitspersample)
    pixels: Pixels = native
    if native.dtype.kind == "f":
        if not np.isfinite(native).all():
            raise ImageError("the TIFF holds NaN or infinity", "replace them with numbers")
        low, high = float(native.min()), float(native.max())
        # The network needs the difference as well.
        if max(-low, high, high - low) > np.finfo(np.float32).max:
            raise ImageError(f"values from {low:g} to {high:g} span more than 32-bit floats hold", "rescale the values")
        pixels = native.astype(np.float32, copy=False)
    elif bits not in (8, 16):
        # 9 to 15 bits, stored in 16: stretched to the full range.
        pixels = np.rint(native * (65535 / (2**bits - 1))).astype(np.uint16)
    if page.photometric == _MINISWHITE:
        pixels[..., :1] = white_level(pixels.dtype) - pixels[..., :1]
    if len(kept) in (2, 4) and page.extrasamples and page.extrasamples[kept[-1] - len(kept) + 1] == _PREMULTIPLIED:
        pixels = unpremultiply(pixels)
    return pixels


def _can_stream(page: TiffPage, header: Header) -> bool:
    """Return whether a page is large and can be decoded and upscaled in bands.

    Alpha and floats need a look at the whole picture (to bleed color, to find the range of values), an orientation
    turns rows into columns, and the data must lie in the file row by row, all channels of a pixel together.
    """
    opaque_integers = header.channels in (1, 3) and header.dtype.kind == "u"
    separate = page.planarconfig == _SEPARATE and page.samplesperpixel > 1
    by_rows = not separate and page.jpegheader is None and page.imagedepth <= 1
    return page.nbytes > _LARGE and _is_plain(page) and by_rows and opaque_integers


def _read_bands(page: TiffPage, file: BinaryIO) -> Iterator[NDArray[Any]]:
    """Yield the stored samples of a page as bands `(h, W, samples)` of about `_BAND` bytes, from top to bottom."""
    rows = max(1, _BAND * page.imagelength // page.nbytes)
    bands = _read_uncompressed(page, file, rows) if page.is_contiguous else _decode_segments(page)
    return regroup_bands(bands, rows)


def _read_uncompressed(page: TiffPage, file: BinaryIO, rows: int) -> Iterator[NDArray[Any]]:
    """Yield bands of rows that follow each other in the file, uncompressed."""
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


def _decode_segments(page: TiffPage) -> Iterator[NDArray[Any]]:
    """Yield decoded strips as bands, or rows of tiles put together."""
    band: NDArray[Any] | None = None
    # One worker: tifffile would otherwise decode far ahead, and bands are meant to save memory.
    for segment, (_, _, top, left, _), (_, height, _, _) in page.segments(maxworkers=1):
        if left == 0:
            if band is not None:
                yield band
            shape = min(height, page.imagelength - top), page.imagewidth, page.samplesperpixel
            band = np.full(shape, page.nodata, page.dtype)
        assert band is not None
        # A segment without data is a hole of a sparse file: `nodata` stays. Tiles at the border are cut.
        if segment is not None:
            part = segment[0, : len(band), : page.imagewidth - left]
            band[: len(part), left : left + part.shape[1]] = part
    if band is not None:
        yield band
