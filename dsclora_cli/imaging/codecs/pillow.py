"""Decoding with Pillow: every format but TIFF, with what Pillow leaves out taken from the file itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import BinaryIO

from PIL import Image
from PIL.ImageFile import ImageFile

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging import color, isobmff
from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.codecs import png
from dsclora_cli.imaging.codecs.jpeg import jpeg_quality
from dsclora_cli.imaging.codecs.jpeg2000 import open_deep_jpeg2000, open_still_png
from dsclora_cli.imaging.codecs.pnm import open_deep_pnm
from dsclora_cli.imaging.formats import load_plugin, lookup
from dsclora_cli.imaging.types import Frame, Header, Metadata, Opened

_IPTC_RESOURCE = 0x0404
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
_UPRIGHT_ALREADY = ("HEIF", "JXL")
_ELSEWHERE: Mapping[str, Callable[[BinaryIO], Opened | None]] = MappingProxyType(
    {"PPM": open_deep_pnm, "PNG": open_still_png, "JPEG2000": open_deep_jpeg2000}
)


def open_with_pillow(file: BinaryIO, name: str) -> Opened:
    """Header and frames of a file of format `name`, which has been recognised by its signature."""
    elsewhere = _ELSEWHERE[name](file) if name in _ELSEWHERE else None
    if elsewhere:
        return elsewhere
    image = _image(file, name)
    metadata, notes = _metadata(image, file, name), _notes(image, file, name)
    icc = metadata.icc
    note = color.conversion_note(image, icc)
    if note:
        metadata, notes = blocks.with_icc(metadata, color.srgb_profile()), [note, *notes]
    if name in _UPRIGHT_ALREADY:
        metadata = blocks.with_size(metadata, image.width, image.height)
    numbers = _frame_numbers(image, name)
    animated = len(numbers) > 1
    header = Header(
        format=name,
        width=image.width,
        height=image.height,
        # Frames after the first may have holes that the first one does not tell of.
        channels=4 if animated and name == "GIF" else color.channels_of(image),
        dtype=color.depth_of(image),
        frames=len(numbers),
        animated=animated,
        loop=_loop(image, name) if animated else None,
        metadata=metadata,
        notes=tuple(notes),
        jpeg_quality=jpeg_quality(image.quantization) if name == "JPEG" else None,  # type: ignore[attr-defined]
    )
    return Opened(header, partial(_frames, image, header, numbers, icc))


def _image(file: BinaryIO, name: str) -> ImageFile:
    """A Pillow image whose pixels are not decoded yet, of this format only: no other decoder is tried.

    `Image.open` would also refuse or warn of large pictures; the reader has a limit of its own.
    """
    load_plugin(name)
    file.seek(0)
    if name == "JPEG":
        from PIL.JpegImagePlugin import JpegImageFile

        # Pillow's own entry turns a JPEG with a second picture behind it (MPO) into an animation.
        return JpegImageFile(file)
    image = Image.OPEN[name][0](file, "")
    assert isinstance(image, ImageFile)  # the registry has no other kind
    return image


def _metadata(image: ImageFile, file: BinaryIO, name: str) -> Metadata:
    if name == "PNG":
        return png.scan(file)[1]
    info = image.info
    comment = info.get("comment")
    text = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else comment
    dpi = info.get("dpi")
    metadata = Metadata(
        icc=info.get("icc_profile"),
        exif=blocks.plain_exif(info.get("exif")),
        xmp=blocks.plain_xmp(info.get("xmp")),
        iptc=info.get("photoshop", {}).get(_IPTC_RESOURCE) or None,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(dpi) else None,
        text=(("comment", text),) if text and "comment" in lookup(name).metadata else (),
    )
    return isobmff.merged(metadata, isobmff.read_metadata(file)) if name in ("JPEG2000", "JXL") else metadata


def _notes(image: ImageFile, file: BinaryIO, name: str) -> list[str]:
    """What of the file is not read, as sentences for the user."""
    notes = []
    bits = _stored_bits(image, file, name)
    if bits > 8 and not image.mode.startswith("I;16"):
        notes.append(f"{bits} bits per channel were reduced to 8")
    if name == "JXL" and image.mode not in ("I;16", "F"):
        notes.append("JPEG XL is read with 8 bits per channel, even where the file holds more")
    if name == "JPEG" and "mp" in image.info:
        notes.append("the second picture in this JPEG (a depth or gain map, or another view) was left out")
    segments = getattr(image, "applist", ())
    if any(data.startswith(_EXTENDED_XMP) for _, data in segments):
        notes.append("the extended part of the XMP was left out")
    pictures = getattr(image, "n_frames", 1)
    if name in ("HEIF", "AVIF") and pictures > 1:
        notes.append(f"only the first of {pictures} pictures in this {name} was read")
    return notes


def _stored_bits(image: ImageFile, file: BinaryIO, name: str) -> int:
    """Bits per channel that the file holds, where Pillow may give fewer; 8 for other formats."""
    if name == "PNG":
        return png.scan(file)[0][b"IHDR"][8]
    if name == "JPEG2000":
        return isobmff.jpeg2000_codestream(file).bits
    return isobmff.avif_depth(file) if name == "AVIF" else int(image.info.get("bit_depth", 8))


def _frame_numbers(image: ImageFile, name: str) -> range:
    """Which of Pillow's frames to show: a PNG's default image outside its animation is for viewers without any."""
    if lookup(name).frames != "timed":
        return range(1)
    return range(1 if image.info.get("default_image") else 0, getattr(image, "n_frames", 1))


def _loop(image: ImageFile, name: str) -> int:
    """How often to play, 0 for ever; a GIF states how often to *repeat*, and nothing for playing once."""
    loop = image.info.get("loop")
    if name != "GIF":
        return int(loop or 0)
    return 1 if loop is None else loop + 1 if loop else 0


def _frames(image: ImageFile, header: Header, numbers: range, icc: bytes | None) -> Iterator[Frame]:
    for number in numbers:
        # A still is not told to seek: some decoders know no frames.
        if header.animated:
            image.seek(number)
        image.load()
        if image.size != (header.width, header.height):
            raise ImageError(f"frame {number} is {image.width} x {image.height} pixels, not as large as the picture")
        duration = image.info.get("duration") if header.animated else None
        pixels = color.pixels_of(image, header.channels, icc)
        yield Frame(pixels, None if duration is None else float(duration))
