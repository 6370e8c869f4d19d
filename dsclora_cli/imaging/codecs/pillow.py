"""Open files of all formats but TIFF.

PNG, JPEG 2000 and most kinds of PNM go to `_OWN_DECODERS`. Pillow decodes all others, and metadata that Pillow leaves
out are read from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, BinaryIO, cast

from PIL import Image
from PIL.ImageFile import ImageFile

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import tiff_ifd
from dsclora_cli.imaging.codecs.avif import estimate_avif_quality
from dsclora_cli.imaging.codecs.incomplete import decode_salvaged, decode_whole
from dsclora_cli.imaging.codecs.jpeg import estimate_quality
from dsclora_cli.imaging.codecs.jpeg2000 import open_jpeg2000
from dsclora_cli.imaging.codecs.jxl import JxlFacts, read_first_frame, read_jxl_facts
from dsclora_cli.imaging.codecs.png import open_png
from dsclora_cli.imaging.codecs.pnm import further_picture, open_pnm, read_pnm_comments
from dsclora_cli.imaging.codecs.unsupported import CONVERT
from dsclora_cli.imaging.codecs.webp import estimate_webp_quality
from dsclora_cli.imaging.color import (
    apply_orientation,
    conversion_note,
    image_to_pixels,
    pixel_layout,
    unpremultiply,
)
from dsclora_cli.imaging.containers.bmp import read_bmp_colors
from dsclora_cli.imaging.containers.gif import read_gif_parts
from dsclora_cli.imaging.containers.tga import read_tga_alpha, read_tga_metadata
from dsclora_cli.imaging.decoder_messages import collect_complaints
from dsclora_cli.imaging.formats import FORMATS, load_plugin
from dsclora_cli.imaging.isobmff import (
    fill_missing,
    read_avif_depth,
    read_box_metadata,
    read_color_numbers,
    read_item_orientation,
    read_pixel_shape,
)
from dsclora_cli.imaging.metadata import (
    exif_notes,
    normalize_dpi,
    normalize_exif,
    normalize_xmp,
    pixel_density,
    read_exif_resolution,
    with_icc,
    with_size,
)
from dsclora_cli.imaging.profiles import chunks_of_numbers, srgb_profile
from dsclora_cli.imaging.types import Frame, Header, LossNote, Metadata, OpenedFile

_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
UPRIGHT_ALREADY = ("HEIF", "JXL")  # the plugins of these formats apply the orientation of the container to the pixels


def open_with_pillow(file: BinaryIO, name: str, salvage: bool = False) -> OpenedFile:
    """Open a picture file of format `name`, known from the signature; read the header and decode no pixel.

    Args:
        file: The file.
        name: Pillow name of the format.
        salvage: Take what is there of an incomplete picture; a note in the frame says how much. Else an error.

    Raises:
        ImageError: The file is damaged, or the optional package of the format is missing. (Pillow may raise others.)
    """
    open_own = _OWN_DECODERS.get(name)
    if open_own and (opened := open_own(file, salvage)):
        return opened
    image = _open_image(file, name)
    facts = read_jxl_facts(file) if name == "JXL" else None
    metadata, notes = _read_metadata(image, file, name), [*_reading_notes(image, file, name), *_jxl_notes(facts, image)]
    icc = metadata.icc
    note = conversion_note(image, icc)
    if note:
        metadata, notes = with_icc(metadata, srgb_profile()), [note, *notes]
    stated = read_item_orientation(file) if name == "HEIF" else facts.orientation if facts else 1
    # A JPEG that was packed into a JPEG XL without loss comes as it was, on its side.
    turn = stated if getattr(image, "jpeg", False) else 1
    width, height = (image.width, image.height)[:: -1 if turn >= 5 else 1]
    count = getattr(image, "n_frames", 1) if FORMATS[name].frames == "timed" else 1
    animated = count > 1
    channels, dtype = pixel_layout(image)
    alpha = read_tga_alpha(file) if name == "TGA" else "premultiplied" if facts and facts.premultiplied else "straight"
    if channels in (2, 4) and alpha == "none":
        channels -= 1
    header = Header(
        format=name,
        width=width,
        height=height,
        # Later frames of a GIF may have holes that the first frame does not tell of.
        channels=4 if animated and name == "GIF" else channels,
        dtype=dtype,
        frames=count,
        animated=animated,
        loop=_read_loop(image, name) if animated else None,
        metadata=_with_one_orientation(metadata, name, width, height, stated),
        notes=tuple(notes),
        lossy_quality=_lossy_quality(image, file, name),
    )
    shown = read_first_frame(file) if facts and facts.animated else image
    decode = partial(_decode, shown, header, icc, alpha == "premultiplied", turn)
    return OpenedFile(header, partial(decode_salvaged if salvage else decode_whole, file, header, decode))


def _open_jpeg2000(file: BinaryIO, salvage: bool) -> OpenedFile:
    opened = open_jpeg2000(file)
    decode = cast("Callable[[], Iterator[Frame]]", opened.frames)
    return replace(opened, frames=partial(decode_salvaged if salvage else decode_whole, file, opened.header, decode))


_OWN_DECODERS: Mapping[str, Callable[[BinaryIO, bool], OpenedFile | None]] = MappingProxyType(
    {
        "PPM": open_pnm,
        "PNG": lambda file, _: open_png(file),
        "JPEG2000": _open_jpeg2000,
    }
)
"""Decoders of dsclora by format; that of PNM returns None for a file that Pillow decodes as well."""


def _with_one_orientation(metadata: Metadata, name: str, width: int, height: int, stated: int) -> Metadata:
    """Return the metadata without an orientation that the decoder applies; `stated` is that of a HEIF or JPEG XL."""
    if name in UPRIGHT_ALREADY:
        # Places in the picture count from the corner of the stored picture, as in a JPEG.
        return with_size(metadata, width, height, orientation=stated)
    if name == "AVIF":
        # Pillow states the orientation of the container in EXIF; the orientation in XMP means nothing in AVIF.
        return replace(with_size(replace(metadata, exif=None), width, height), exif=metadata.exif)
    return metadata


def _lossy_quality(image: ImageFile, file: BinaryIO, name: str) -> int | None:
    if name == "WEBP":
        return estimate_webp_quality(file)
    if name == "AVIF":
        return estimate_avif_quality(file)
    return estimate_quality(image.quantization) if name == "JPEG" else None  # type: ignore[attr-defined]


def _open_image(file: BinaryIO, name: str) -> ImageFile:
    """Return a Pillow image of format `name` without decoded pixels.

    Not `Image.open`: there, other plugins may take the file, and large pictures are refused. (The limit is the
    reader's own.)
    """
    load_plugin(name)
    file.seek(0)
    if name == "JPEG":
        from PIL.JpegImagePlugin import JpegImageFile

        # The registered function turns a JPEG with a second picture behind it (MPO) into an animation.
        return JpegImageFile(file)
    # The plugin of JPEG XL decodes at once, and prints lines about damaged boxes.
    with collect_complaints() if name == "JXL" else nullcontext():
        image = Image.OPEN[name][0](file, "")
    assert isinstance(image, ImageFile)  # the registry has no other kind
    return image


def _read_metadata(image: ImageFile, file: BinaryIO, name: str) -> Metadata:
    info = image.info
    # Of several comments in a JPEG, Pillow's `info` has the last.
    comments = [data for kind, data in getattr(image, "applist", ()) if kind == "COM"]
    exif = normalize_exif(info.get("exif"))
    dpi, density = _read_resolution(info, exif)
    metadata = Metadata(
        icc=info.get("icc_profile"),
        exif=exif,
        notes=exif_notes(info.get("exif")),
        xmp=normalize_xmp(info.get("xmp")),
        iptc=info.get("photoshop", {}).get(tiff_ifd.IPTC_RESOURCE) or None,
        dpi=dpi,
        density=density,
        text=_comment_texts(comments),
    )
    return _add_from_file(metadata, file, name)


def _read_resolution(
    info: Mapping[Any, Any], exif: bytes | None
) -> tuple[tuple[float, float] | None, tuple[int, int] | None]:
    """Return dots per inch, and the shape of pixels without a unit; the head of a JPEG (JFIF) comes before EXIF."""
    dpi = normalize_dpi(*info["dpi"]) if info.get("dpi") else None
    if "jfif_density" not in info and "dpi" not in info:
        return dpi, None
    if info.get("jfif_unit") in (1, 2):
        return dpi, None
    density = pixel_density(*info["jfif_density"]) if "jfif_density" in info else None
    # Of the resolution in EXIF, Pillow gives the horizontal for both.
    stated, shape = read_exif_resolution(exif)
    if stated and stated[0] != stated[1]:
        return stated, None
    return (None, shape) if shape else (None if density else dpi, density)


def _add_from_file(metadata: Metadata, file: BinaryIO, name: str) -> Metadata:
    """Return the metadata with what Pillow does not read."""
    if name == "JXL":
        metadata = fill_missing(metadata, read_box_metadata(file))
    elif name == "BMP":
        icc, chunks, notes = read_bmp_colors(file)
        metadata = replace(metadata, icc=icc, color_chunks=chunks, notes=notes)
    elif name == "GIF":
        parts = read_gif_parts(file)
        text, packet = _comment_texts(parts.comments), normalize_xmp(parts.xmp)
        metadata = replace(metadata, text=text, icc=parts.icc, xmp=packet, density=parts.density)
    elif name == "TGA":
        metadata = read_tga_metadata(file)
    elif name == "PPM":
        metadata = Metadata(text=read_pnm_comments(file))
    elif name in ("AVIF", "HEIF"):
        numbers = None if metadata.icc else read_color_numbers(file)
        chunks = chunks_of_numbers(*numbers) if numbers else ()
        metadata = replace(metadata, color_chunks=chunks, density=read_pixel_shape(file))
    return metadata


def _comment_texts(comments: list[bytes]) -> tuple[tuple[str, str], ...]:
    return tuple(("comment", text.decode("utf-8", "surrogateescape")) for text in comments if text)


def _reading_notes(image: ImageFile, file: BinaryIO, name: str) -> list[str]:
    """Return sentences for the user about parts of the file that are not read."""
    notes: list[str] = []
    # Bits per channel in the file, of which Pillow may give only 8.
    bits = read_avif_depth(file) if name == "AVIF" else int(image.info.get("bit_depth", 8))
    if bits > 8 and not image.mode.startswith("I;16"):
        notes.append(LossNote(f"{bits} bits per channel were reduced to 8"))
    if name == "JPEG" and "mp" in image.info:
        notes.append("the second picture in this JPEG (a depth or gain map, or another view) was left out")
    segments = getattr(image, "applist", ())
    if any(data.startswith(_EXTENDED_XMP) for _, data in segments):
        notes.append("the extended part of the XMP was left out")
    if name == "PPM" and image.tile and image.tile[0].codec_name == "raw":
        rows = image.height * ((image.width + 7) // 8 if image.mode == "1" else image.width * len(image.getbands()))
        notes += further_picture(file, image.tile[0].offset + rows)
    if image.info.get("depth_images") or image.info.get("aux"):
        notes.append(f"depth maps, gain maps and other extra pictures in this {name} were left out")
    pictures = getattr(image, "n_frames", 1)
    if name in ("HEIF", "AVIF") and pictures > 1:
        notes.append(LossNote(f"only the first of {pictures} pictures in this {name} was read"))
    return notes


def _jxl_notes(facts: JxlFacts | None, image: ImageFile) -> Iterator[str]:
    """Yield sentences for the user about what the decoder leaves out of a JPEG XL. Raise ImageError for CMYK."""
    if facts is None:
        return
    if facts.cmyk:
        raise ImageError("JPEG XL with CMYK colours is not supported", CONVERT)
    if facts.animated:
        yield LossNote("only the first frame of this animated JPEG XL was read")
    if facts.bits > 8 and image.mode not in ("I;16", "F"):
        what = f"floats of {facts.bits} bits" if facts.floats else f"{facts.bits} bits per channel"
        yield LossNote(f"{what} were reduced to 8")
    extra = [*facts.extra, *["a second alpha"] * (facts.alphas > 1)]
    if extra:
        yield f"extra channels of this JPEG XL were left out: {', '.join(dict.fromkeys(extra))}"


def _read_loop(image: ImageFile, name: str) -> int:
    """Return how often to play an animation, 0 forever."""
    loop = image.info.get("loop")
    if name != "GIF":
        return int(loop or 0)
    # A GIF states how often to *repeat*, and nothing for playing once.
    return 1 if loop is None else loop + 1 if loop else 0


def _decode(image: Image.Image, header: Header, icc: bytes | None, premultiplied: bool, turn: int) -> Iterator[Frame]:
    """Yield the frames, `(H, W, header.channels)` of `header.dtype`, turned by the EXIF orientation `turn`."""
    size = (header.width, header.height)[:: -1 if turn >= 5 else 1]
    for number in range(header.frames):
        # No seek in a still: some plugins know no frames.
        if header.animated:
            image.seek(number)
        image.load()
        shown: Image.Image = image
        if header.format == "GIF" and image.size != (header.width, header.height):
            # Pillow grows the picture for a later frame beyond the screen; browsers cut the frame.
            shown = image.crop((0, 0, header.width, header.height))
        if shown.size != size:
            raise ImageError(f"frame {number} has {image.width} x {image.height} pixels, another size than the picture")
        duration = image.info.get("duration") if header.animated else None
        pixels = apply_orientation(image_to_pixels(shown, header.channels, icc), turn)
        if premultiplied and header.channels in (2, 4):
            pixels = unpremultiply(pixels)
        yield Frame(pixels, None if duration is None else float(duration))
