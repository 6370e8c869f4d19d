"""Write picture files: `fit_format` says in advance what a format can hold, `write_picture` writes frame by frame.

The encoders are in `codecs/`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError, ImageUnwritable, first_line, next_step
from dsclora_cli.imaging.codecs.animation import webp_options, write_apng, write_gif, write_webp_animation
from dsclora_cli.imaging.codecs.jpeg import SEGMENT_ROOM, write_jpeg
from dsclora_cli.imaging.codecs.jpeg2000 import write_jpeg2000
from dsclora_cli.imaging.codecs.png import write_png
from dsclora_cli.imaging.codecs.pnm import write_pnm
from dsclora_cli.imaging.color import convert_pixels, pixels_to_image
from dsclora_cli.imaging.color_fit import NUMBERED, fit_colors
from dsclora_cli.imaging.containers.surplus import list_names
from dsclora_cli.imaging.formats import Format, load_plugin, require_format
from dsclora_cli.imaging.isobmff import with_color_numbers
from dsclora_cli.imaging.metadata import read_exif_resolution, tags_without_place, without_details, without_orientation
from dsclora_cli.imaging.profiles import is_default_of_jxl
from dsclora_cli.imaging.types import AnyFrame, Frame, Header, Metadata, Pixels, StreamedFrame

_AVIF_SPEED = 8
"""Of 0 to 10: a seventh of the time of Pillow's 6 on photographs, for files a fifth larger."""

_UNKNOWN_DPI = (72.0, 96.0)
"""Resolutions without a meaning: EXIF prescribes 72 for an unknown resolution, and 96 is the screen of Windows."""

_STREAMED = ("JPEG", "PNG", "TIFF")
"""Formats that are written as bands arrive; others look at a frame again, or at the next frame."""

_ENCODER_BYTES = {"WEBP": 42, "AVIF": 44, "HEIF": 30, "JXL": 56, "JPEG2000": 21, "GIF": 22}
"""Most bytes that an encoder takes for a pixel of RGB, in addition to the pixels.

Measured: WebP and AVIF with 3 and 7.7 megapixels, the others with 1.9.
"""

_OTHER_FORMAT = "choose another format, such as PNG or TIFF"

_BLOCK_NAMES = {
    "icc": "the colour profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "geo": "the place on the map",
}


def fit_format(header: Header, name: str, strict: bool) -> tuple[Header, tuple[str, ...]]:
    """Return the header that a picture has as a file of another format, and a sentence for every loss.

    Args:
        header: The picture to write.
        name: Pillow name of the format of the file.
        strict: Refuse the loss of transparency, depth, frames or colors, in the format and in `header.losses`, while
            reading. Metadata may be lost in either case.

    Raises:
        ImageError: The picture is too large for the format, the optional package of the format is missing, or `strict`
            refuses.
    """
    abilities = require_format(name)
    if max(header.width, header.height) > abilities.limit:
        raise ImageError(
            f"{name} holds at most {abilities.limit} pixels a side, not {header.width} x {header.height}",
            _OTHER_FORMAT,
        )
    fitted, losses = _fit_frames(header, abilities, name)
    # The fewest channels of the format that keep color and alpha; without alpha where the format has none.
    enough = [count for count in abilities.channels if count >= 3 or header.channels <= 2]
    with_alpha = [count for count in enough if count in (2, 4) or header.channels in (1, 3)]
    channels = min(with_alpha or enough)
    if header.channels in (2, 4) and channels in (1, 3):
        losses.append(f"{name} has no transparency: the picture is laid on white")
    deepest = "uint16" if "uint16" in abilities.depths else "uint8"
    depth = np.dtype(header.dtype.name if header.dtype.name in abilities.depths else deepest)
    if depth != header.dtype:
        old = "floating point" if header.dtype.kind == "f" else f"{header.dtype.itemsize * 8}-bit depth"
        losses.append(f"{name} holds {depth.itemsize * 8} bits per channel: {old} is reduced")
    if name == "GIF" and header.format != "GIF" and header.channels > 2:
        losses.append("GIF holds 256 colours per frame: other colours are approximated")
    if name == "GIF" and header.format != "GIF" and channels == 4:
        losses.append("GIF pixels are either opaque or transparent: alpha is cut at one half")
    colored, color_losses, color_notes = fit_colors(header, name, channels)
    losses += color_losses
    if strict:
        _refuse_losses(header.losses, losses)
    metadata, dropped = _fit_metadata(colored, abilities, name)
    fitted = replace(fitted, format=name, channels=channels, dtype=depth, metadata=replace(metadata, notes=()))
    return fitted, (*losses, *metadata.notes, *color_notes, *dropped)


def _refuse_losses(read: Sequence[str], written: Sequence[str]) -> None:
    """Raise ImageError where reading a picture, or writing the picture in a format, loses something."""
    if read:
        # No format of the result brings back what was not read.
        hint = "leave out --strict, or convert the picture with another program first"
        raise ImageError("; ".join((*read, *written)), hint)
    if written:
        raise ImageError("; ".join(written), "choose another format, or leave out --strict")


def _fit_frames(header: Header, abilities: Format, name: str) -> tuple[Header, list[str]]:
    if header.frames == 1 or (header.animated and abilities.frames == "timed"):
        return header, []
    if abilities.frames == "pages":
        losses = [f"{name} holds pages: the timing of the animation is lost"] if header.animated else []
        return replace(header, animated=False, loop=None), losses
    what, kind = ("an animation", "frames") if header.animated else ("pages", "pages")
    loss = f"{name} cannot hold {what}: only the first of {header.frames} {kind} is kept"
    return replace(header, frames=1, animated=False, loop=None), [loss]


def _fit_metadata(metadata: Metadata, abilities: Format, name: str) -> tuple[Metadata, list[str]]:
    """Return the metadata with room in a format, and a sentence about the blocks and texts that are lost."""
    lost = {
        block: words
        for block, words in _BLOCK_NAMES.items()
        if getattr(metadata, block) and block not in abilities.metadata
    }
    if "icc" in lost and is_default_of_jxl(metadata.icc or b""):
        lost["icc"] = ""
    if name == "JPEG":
        too_long = [block for block, room in SEGMENT_ROOM.items() if len(getattr(metadata, block) or b"") > room]
        lost |= {block: f"{_BLOCK_NAMES[block]} of that length" for block in too_long}
    lost |= _lost_resolution(metadata, abilities)
    losses = []
    if name == "TIFF" and (missing := tags_without_place(metadata.exif)):
        losses.append(f"entries of EXIF that have no place in a TIFF were left out: {list_names(map(str, missing))}")
    text = metadata.text
    if "text" not in abilities.metadata:
        allowed = "comment" if "comment" in abilities.metadata else None
        text = tuple((key, value) for key, value in text if key.lower() == allowed)
    languages = metadata.language_texts if "text" in abilities.metadata else ()
    keys = [data.partition(b"\0")[0].decode("latin-1") for data in metadata.language_texts if data not in languages]
    names = [
        *filter(None, lost.values()),
        *(f'text "{key}"' for key in keys),
        *(f'text "{key}"' for key, _ in metadata.text if (key, _) not in text),
    ]
    kept: dict[str, Any] = {"text": text, "language_texts": languages, **dict.fromkeys(lost)}
    if names:
        losses.append(f"{name} has no room for {', '.join(names)}")
    return replace(metadata, **kept), losses


def _lost_resolution(metadata: Metadata, abilities: Format) -> dict[str, str]:
    """Return the fields about resolution that a format has no room for, with words for each."""
    lost = {}
    # Fields in pixels per meter make 72.009 of 72.
    stated = metadata.dpi and all(max(abs(dots - known) for dots in metadata.dpi) > 0.05 for known in _UNKNOWN_DPI)
    if metadata.dpi and stated and "dpi" not in abilities.metadata:
        kept = read_exif_resolution(metadata.exif)[0] if "exif" in abilities.metadata else None
        if not kept or max(abs(one - other) for one, other in zip(kept, metadata.dpi, strict=True)) > 1:
            across, down = metadata.dpi
            lost["dpi"] = f"the resolution of {across:.4g}{'' if across == down else f' x {down:.4g}'} dpi"
    if metadata.density and "density" not in abilities.metadata:
        across, down = metadata.density
        lost["density"] = f"the shape of the pixels, {down / across:.4g} times as wide as high"
    return lost


def can_stream(header: Header) -> bool:
    """Return whether a file is written as bands arrive, so that a picture is never in memory as a whole."""
    return header.format in _STREAMED and not header.animated


def encoder_bytes(header: Header) -> int:
    """Return the bytes that an encoder takes for a pixel of a file that is written whole; 0 for other formats."""
    return _ENCODER_BYTES.get(header.format, 0) * max(3, header.channels) // 3


def write_picture(target: Path | BinaryIO, header: Header, frames: Iterable[AnyFrame], options: SaveOptions) -> None:
    """Write a picture file.

    Frames are pulled one at a time. A PNG, a JPEG and a large TIFF are written as the bands of a frame arrive; for
    other formats the bands are put together first.

    Args:
        target: A path is written in place. Any other target gets the whole file at once.
        header: Describes the file; made by `fit_format`.
        frames: At least `header.frames` frames, `(H, W, C)`; channels and dtype are converted to those of `header`.
        options: Quality, compression, and whether to keep metadata.

    Raises:
        ImageUnwritable: The file cannot be written.
        ImageError: Frames are missing, or a frame of an animation has another size than `header`.
    """
    metadata = header.metadata if options.metadata == "all" else without_details(header.metadata)
    header = replace(header, metadata=metadata)
    ready = _convert_frames(header, frames)
    if isinstance(target, Path):
        with _name_errors(str(target)), target.open("w+b") as file:
            _write_frames(file, header, ready, options)
        return
    # Some encoders seek and read back, which a pipe cannot; and a pipe gets a whole file or nothing.
    with _name_errors("<stdout>"):
        buffer = io.BytesIO()
        _write_frames(buffer, header, ready, options)
        # No view of the buffer: Python 3.12.1 crashes when it collects one that an exception holds. Nothing is copied.
        target.write(buffer.getvalue())


def _convert_frames(header: Header, frames: Iterable[AnyFrame]) -> Iterator[AnyFrame]:
    """Yield exactly `header.frames` frames, `(H, W, header.channels)` of `header.dtype`."""
    count = 0
    for frame in frames:
        if header.animated and frame.shape[:2] != (header.height, header.width):
            raise ImageError(
                f"a frame of shape {frame.shape} in an animation of {header.width} x {header.height} pixels"
            )
        bands = (_convert_band(band, header) for band in frame.bands())
        streamed = StreamedFrame((*frame.shape[:2], header.channels), bands, frame.duration_ms)
        yield streamed if can_stream(header) else Frame(streamed.pixels, frame.duration_ms)
        count += 1
        # Not one frame more: the rest of the input need not be decoded or upscaled.
        if count == header.frames:
            return
    raise ImageError(f"only {count} of {header.frames} frames arrived")


def _convert_band(band: Pixels, header: Header) -> Pixels:
    """Return a band `(h, W, C)` as `(h, W, header.channels)` of `header.dtype`."""
    try:
        return convert_pixels(band, header.channels, header.dtype)
    except ImageError as error:  # floats that no integers hold
        raise ImageError(error.message, f"write a TIFF, or {error.hint}") from error


def _write_frames(file: BinaryIO, header: Header, frames: Iterator[AnyFrame], options: SaveOptions) -> None:
    """Write `header.frames` frames, `(H, W, header.channels)` of `header.dtype`, with the encoder of the format."""
    format, metadata = header.format, header.metadata
    if format == "TIFF":
        from dsclora_cli.imaging.codecs.tiff_writer import write_tiff

        write_tiff(file, header, frames, options.compression)
    elif format == "GIF":
        write_gif(file, header, frames)
    elif format == "PNG" and header.frames > 1:
        write_apng(file, header, frames, options.compression)
    elif format == "WEBP" and header.frames > 1:
        load_plugin("WEBP")
        write_webp_animation(file, header, frames, options.quality)
    elif format == "PNG":
        write_png(file, next(frames), metadata, options.compression)
    elif format == "PPM":
        write_pnm(file, next(frames).pixels, metadata)
    elif format == "JPEG2000":
        pixels = next(frames).pixels
        with _encoder_errors(header):
            write_jpeg2000(file, pixels, metadata)
    elif format == "JPEG":
        load_plugin("JPEG")
        write_jpeg(file, next(frames), metadata, options.quality)
    else:
        load_plugin(format)
        buffer, image = io.BytesIO(), pixels_to_image(next(frames).pixels)
        with _encoder_errors(header):
            image.save(buffer, format, **_pillow_options(header, options.quality))
        data = buffer.getvalue()
        if format in NUMBERED and (numbers := dict(metadata.color_chunks).get(b"cICP")):
            data = with_color_numbers(data, *numbers[:2])
        file.write(data)


def _pillow_options(header: Header, quality: int) -> dict[str, object]:
    """Return the options of Pillow's encoder for `header.format`; absent metadata has no option."""
    metadata = header.metadata
    exif = metadata.exif
    if exif and header.format == "AVIF":
        # Pillow would take out the orientation by writing EXIF anew, and so break the offsets in the maker note.
        exif = without_orientation(exif)
    blocks = {"icc_profile": metadata.icc, "exif": exif and b"Exif\0\0" + exif, "xmp": metadata.xmp}
    present = {name: value for name, value in blocks.items() if value}
    planes = "4:0:0" if header.channels == 1 else "4:4:4"
    options: dict[str, dict[str, object]] = {
        "WEBP": {**webp_options(quality), **present},
        "AVIF": {"quality": quality, "subsampling": planes, "speed": _AVIF_SPEED, **present},
        "HEIF": {"quality": quality, "chroma": "444", **present},
        "JXL": {"quality": quality, "lossless": quality == 100, "use_container": bool(present), **present},
        "BMP": {"dpi": metadata.dpi} if metadata.dpi else {},
    }
    return options.get(header.format, {})


@contextmanager
def _encoder_errors(header: Header) -> Iterator[None]:
    """Turn the refusal of an encoder inside into an ImageError; nothing inside may pull frames, whose errors differ.

    Which pictures an encoder refuses depends on its version: x265 (HEIF) refuses 8200 x 4 pixels, and takes 8200 x 64.
    """
    try:
        yield
    except (RuntimeError, SyntaxError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise
        size = f"{header.width} x {header.height} pixels"
        reason = first_line(error).rstrip(".")
        message = f"the encoder of {header.format} refuses a picture of {size}: {reason}"
        raise ImageError(message, _OTHER_FORMAT) from error


@contextmanager
def _name_errors(name: str) -> Iterator[None]:
    """Turn an OSError inside into an ImageUnwritable that starts with the name of the file; other errors pass."""
    try:
        yield
    except OSError as error:
        message = f"{name}: cannot be written ({error.strerror or error})"
        raise ImageUnwritable(message, next_step(error)) from error
