"""Picture files out: what a format can hold of a picture, said before, and the file itself, frame by frame."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError, ImageUnwritable
from dsclora_cli.imaging import isobmff
from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.codecs import animation, jpeg, png
from dsclora_cli.imaging.codecs.pnm import write_pnm
from dsclora_cli.imaging.color import convert, image_of
from dsclora_cli.imaging.formats import Format, load_plugin, lookup, require_extra
from dsclora_cli.imaging.types import AnyFrame, Frame, Header, Metadata, Pixels, StreamedFrame

_AVIF_SPEED = 8
"""Of 0 to 10: a seventh of the time of Pillow's 6 on photographs, for files a fifth larger."""

_BANDED = ("JPEG", "PNG", "TIFF")
"""Formats that are written as bands come; others look at a frame again, or at the next one."""

_JPEG_SEGMENT = 65535 - 2
_BLOCK_NAMES = {"icc": "the colour profile", "exif": "EXIF", "xmp": "XMP", "iptc": "IPTC"}
_JPEG_PREFIXES = {"exif": 6, "xmp": 29, "iptc": 27}


def fit_format(header: Header, name: str, strict: bool) -> tuple[Header, tuple[str, ...]]:
    """The header of the picture as a file of format `name` can hold it, and sentences that say what is lost.

    Raises ImageError where the picture is too large for the format, the format's optional package is missing, or,
    with `strict`, where transparency, depth, frames or colours would be lost. Metadata is lost with a note only.
    """
    require_extra(name)
    held = lookup(name)
    if max(header.width, header.height) > held.limit:
        raise ImageError(
            f"{name} holds at most {held.limit} pixels a side, not {header.width} x {header.height}",
            "choose another format, such as PNG or TIFF",
        )
    fitted, losses = _fit_frames(header, held, name)
    channels = _fit_channels(header.channels, held)
    if header.channels in (2, 4) and channels in (1, 3):
        losses.append(f"{name} has no transparency: the picture is laid on white")
    depth = _fit_depth(header.dtype, held)
    if depth != header.dtype:
        losses.append(f"{name} holds {depth.itemsize * 8} bits per channel: {_depth_name(header.dtype)} is reduced")
    if name == "GIF" and header.format != "GIF" and header.channels > 2:
        losses.append("GIF holds 256 colours a frame: the others are approximated")
    if name == "GIF" and header.format != "GIF" and channels == 4:
        losses.append("GIF pixels are seen or not: alpha is cut at a half")
    if losses and strict:
        raise ImageError("; ".join(losses), "choose another format, or leave out --strict")
    metadata, dropped = _fit_metadata(header.metadata, held, name)
    return replace(fitted, format=name, channels=channels, dtype=depth, metadata=metadata), (*losses, *dropped)


def can_stream(header: Header) -> bool:
    """Whether a picture of this format is written as its bands come, and never is in memory as a whole."""
    return header.format in _BANDED and not header.animated


def write_picture(target: Path | BinaryIO, header: Header, frames: Iterable[AnyFrame], options: SaveOptions) -> None:
    """Write a picture file as `header` describes it, which `fit_format` made possible.

    Frames are pulled one at a time, and converted where their channels or depth are not the header's. Bands go into a
    PNG, a JPEG and a large TIFF as they come, and are put together for any other format. A file given as
    a path is written in place; nothing but whole files reach any other target. Raises ImageError where writing fails,
    and where frames are missing or those of an animation are not `header.width` x `header.height`.
    """
    metadata = header.metadata if options.metadata == "all" else blocks.without_details(header.metadata)
    header = replace(header, metadata=metadata)
    ready = _converted(header, frames)
    if isinstance(target, Path):
        with _naming(str(target)), target.open("w+b") as file:
            _write(file, header, ready, options)
        return
    with _naming("<stdout>"):
        buffer = io.BytesIO()
        _write(buffer, header, ready, options)
        target.write(buffer.getbuffer())


def _write(file: BinaryIO, header: Header, frames: Iterator[AnyFrame], options: SaveOptions) -> None:
    if header.format == "TIFF":
        from dsclora_cli.imaging.codecs.tiff_writer import write_tiff

        write_tiff(file, header, frames, options.compression)
    elif header.format == "GIF":
        animation.write_gif(file, header, frames)
    elif header.format == "PNG" and header.frames > 1:
        animation.write_apng(file, header, frames, options.compression)
    elif header.format == "WEBP" and header.frames > 1:
        load_plugin("WEBP")
        animation.write_webp_animation(file, header, frames, options.quality)
    else:
        for frame in frames:
            _write_still(file, header, frame, options)


def _write_still(file: BinaryIO, header: Header, frame: AnyFrame, options: SaveOptions) -> None:
    if header.format == "PNG":
        png.write(file, frame, header.metadata, options.compression)
    elif header.format == "PPM":
        write_pnm(file, frame.pixels)
    elif header.format == "JPEG2000":
        file.write(_jpeg2000(frame.pixels, header.metadata))
    else:
        load_plugin(header.format)
        told = _pillow_options(header, options.quality)
        if header.format == "JPEG":
            jpeg.write(file, frame, told)
        else:
            image_of(frame.pixels).save(file, header.format, **told)


def _jpeg2000(pixels: Pixels, metadata: Metadata) -> bytes:
    """A lossless JP2 file of `(H, W, C)` uint8 or uint16."""
    import imagecodecs

    array = np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    coded = imagecodecs.jpeg2k_encode(array, level=0, codecformat="jp2", reversible=True)
    alpha = pixels.shape[2] - 1 if pixels.shape[2] in (2, 4) else None
    return isobmff.with_jp2_metadata(bytes(coded), metadata, alpha)


def _pillow_options(header: Header, quality: int) -> dict[str, object]:
    """What Pillow's encoder of this format is told; absent metadata is not mentioned to it."""
    metadata = header.metadata
    exif = metadata.exif and b"Exif\0\0" + _exif_for(header.format, metadata.exif)
    carried = {"icc_profile": metadata.icc, "exif": exif, "xmp": metadata.xmp}
    present = {name: value for name, value in carried.items() if value}
    planes = "4:0:0" if header.channels == 1 else "4:4:4"
    options: dict[str, dict[str, object]] = {
        "JPEG": {"quality": quality, "subsampling": 0, **present, **_jpeg_options(metadata)},
        "WEBP": {**animation.webp_options(quality), **present},
        "AVIF": {"quality": quality, "subsampling": planes, "speed": _AVIF_SPEED, **present},
        "HEIF": {"quality": quality, "chroma": "444", **present},
        "JXL": {"quality": quality, "lossless": quality == 100, "use_container": bool(present), **present},
        "BMP": {"dpi": metadata.dpi} if metadata.dpi else {},
    }
    return options.get(header.format, {})


def _exif_for(name: str, exif: bytes) -> bytes:
    """Pillow takes the orientation out of an AVIF's EXIF by writing it anew, which would break the maker note."""
    return blocks.without_orientation(exif) if name == "AVIF" else exif


def _jpeg_options(metadata: Metadata) -> dict[str, object]:
    options: dict[str, object] = {}
    if metadata.dpi:
        options["dpi"] = tuple(min(round(dots), 65535) for dots in metadata.dpi)
    if text := blocks.comment(metadata):
        options["comment"] = text.encode()[: _JPEG_SEGMENT - 2]
    if metadata.iptc:
        data = b"Photoshop 3.0\0" + blocks.resources_of_iptc(metadata.iptc)
        options["extra"] = b"\xff\xed" + (len(data) + 2).to_bytes(2, "big") + data
    return options


def _converted(header: Header, frames: Iterable[AnyFrame]) -> Iterator[AnyFrame]:
    """Exactly `header.frames` frames, as the header says they are."""
    count = 0
    for frame in frames:
        if header.animated and frame.shape[:2] != (header.height, header.width):
            raise ImageError(f"frame of shape {frame.shape} for {header.width} x {header.height} pixels")
        yield _converted_frame(header, frame)
        count += 1
        if count == header.frames:
            return
    raise ImageError(f"{count} of {header.frames} frames were given to the writer")


def _converted_frame(header: Header, frame: AnyFrame) -> AnyFrame:
    bands = (convert(band, header.channels, header.dtype) for band in frame.bands())
    banded = StreamedFrame((*frame.shape[:2], header.channels), bands, frame.duration_ms)
    return banded if can_stream(header) else Frame(banded.pixels, frame.duration_ms)


def _fit_frames(header: Header, held: Format, name: str) -> tuple[Header, list[str]]:
    if header.frames == 1 or (header.animated and held.frames == "timed"):
        return header, []
    if held.frames == "pages":
        losses = [f"{name} holds pages: the timing of the animation is lost"] if header.animated else []
        return replace(header, animated=False, loop=None), losses
    what = "frame" if header.animated else "page"
    loss = f"{name} cannot hold them: only the first of {header.frames} {what}s is kept"
    return replace(header, frames=1, animated=False, loop=None), [loss]


def _fit_channels(channels: int, held: Format) -> int:
    """The fewest channels of the format that keep colour and alpha; without alpha where it has none."""
    enough = [count for count in held.channels if (count >= 3 or channels <= 2)]
    with_alpha = [count for count in enough if channels in (1, 3) or count in (2, 4)]
    return min(with_alpha or enough)


def _fit_depth(dtype: np.dtype[np.uint8 | np.uint16 | np.float32], held: Format) -> np.dtype[np.uint8 | np.uint16]:
    return np.dtype(dtype.name if dtype.name in held.depths else "uint16" if "uint16" in held.depths else "uint8")


def _depth_name(dtype: np.dtype[np.uint8 | np.uint16 | np.float32]) -> str:
    return "floating point" if dtype.kind == "f" else f"{dtype.itemsize * 8}-bit depth"


def _fit_metadata(metadata: Metadata, held: Format, name: str) -> tuple[Metadata, list[str]]:
    """The metadata that the format has room for, and a sentence that names what people would miss."""
    lost = {
        block: text for block, text in _BLOCK_NAMES.items() if getattr(metadata, block) and block not in held.metadata
    }
    if name == "JPEG":
        room = {block: _JPEG_SEGMENT - used for block, used in _JPEG_PREFIXES.items()}
        too_long = [block for block, most in room.items() if len(getattr(metadata, block) or b"") > most]
        lost |= {block: f"{_BLOCK_NAMES[block]} of that length" for block in too_long}
    text = metadata.text
    if "text" not in held.metadata:
        allowed = "comment" if "comment" in held.metadata else None
        text = tuple((key, value) for key, value in text if key.lower() == allowed)
    names = [*lost.values(), *(f'text "{key}"' for key, _ in metadata.text if (key, _) not in text)]
    kept: dict[str, Any] = {"text": text, **dict.fromkeys(lost)}
    return replace(metadata, **kept), [f"{name} has no room for {', '.join(names)}"] if names else []


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Failures to write become one ImageUnwritable that starts with the file's name; those of the frames pass."""
    try:
        yield
    except OSError as error:
        raise ImageUnwritable(f"{name}: cannot be written ({error.strerror or error})") from error
