"""Open picture files: `open_picture` reads the header at once, `PictureReader.frames` decodes the pixels.

The decoders are in `codecs/`. Any error becomes an `ImageUnreadable`: one line that starts with the name of the file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from types import TracebackType
from typing import BinaryIO, TypeVar

import numpy as np

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageError, ImageUnreadable, escape_control, first_line, is_debugging
from dsclora_cli.imaging.codecs.jxl import read_jxl_facts
from dsclora_cli.imaging.codecs.unsupported import CONVERT, refuse_unsupported, says_unsupported
from dsclora_cli.imaging.color import apply_orientation
from dsclora_cli.imaging.color_fit import with_exif_colors
from dsclora_cli.imaging.containers.surplus import surplus_notes
from dsclora_cli.imaging.decoder_messages import silent
from dsclora_cli.imaging.formats import CAMERA_RAW, FORMATS, detect_format, is_camera_raw
from dsclora_cli.imaging.limits import TOO_LARGE_HINT, check_claim
from dsclora_cli.imaging.metadata import read_orientation, with_size
from dsclora_cli.imaging.types import AnyFrame, Frame, Header, OpenedFile, StreamedFrame
from dsclora_cli.paths import is_folder, open_regular

T = TypeVar("T")

_DEFAULTS = ReadOptions()
_GET_AGAIN = "copy or download the file again"
_SALVAGE = "get the file again, or take what is there with upscale --salvage"
_TRY_SALVAGE = "get the file again, or see what upscale --salvage can take"
_PROBED = 2**22
"""Bytes of a damaged file, and pixels, up to which `--salvage` is tried to find the next step."""


def open_picture(
    source: Path | bytes, options: ReadOptions = _DEFAULTS, *, in_bands: bool = True, name: str = ""
) -> PictureReader:
    """Open a picture file and read the header; no pixel is decoded yet.

    Args:
        source: Path of a file, or a whole file in memory. The content decides about the format, not the name.
        options: Limits.
        in_bands: False where the caller needs the pixels of a `StreamedFrame` all at once, so that all count.
        name: Name for messages, with the suffix; for a picture that was copied from elsewhere.

    Returns:
        A reader, to be used as a context manager.

    Raises:
        ImageUnreadable: The file cannot be read, is no picture, is damaged, claims more pixels than allowed or
            than memory can hold, or needs an optional package. The message names the file.
    """
    name = name or ("<stdin>" if isinstance(source, bytes) else str(source))
    with _name_errors(name):
        if isinstance(source, Path) and is_folder(source):
            raise ImageError("is a folder, not a picture", "give the path of a picture file")
        file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else open_regular(source)
    try:
        with _name_errors(name, file, options), silent():
            return _open_checked(name, file, options, in_bands)
    except BaseException:
        file.close()
        raise


def _open_checked(name: str, file: BinaryIO, options: ReadOptions, in_bands: bool) -> PictureReader:
    """Return a reader of an open file. Raise ImageError for a file that claims too many pixels."""
    opened = _open_by_content(name, file, options)
    header = opened.header
    whole = header.width * header.height
    at_once = whole if opened.at_once is None or not in_bands else opened.at_once
    check_claim(header, at_once, options.max_pixels)
    return PictureReader(name, file, opened, options)


def _open_by_content(name_of_file: str, file: BinaryIO, options: ReadOptions) -> OpenedFile:
    """Detect the format of a file and open the file with the decoder of the format."""
    suffix = PurePath(name_of_file).suffix if name_of_file != "<stdin>" else ""
    file.seek(0)
    head = file.read(64)
    if not head:
        # Bytes in memory come from a pipe, or from another program.
        arrived = isinstance(file, io.BytesIO)
        raise ImageError("the file is empty", "check the program that sends the picture" if arrived else _GET_AGAIN)
    file.seek(max(0, file.seek(0, io.SEEK_END) - 18))  # the footer of a TGA
    name = detect_format(head, file.read(), suffix)
    if name in (None, "TIFF") and is_camera_raw(head, suffix):
        raise ImageError(*CAMERA_RAW)
    if name is None:
        raise ImageError("is not a picture in a known format", f"known formats: {', '.join(FORMATS)}")
    if name == "JXL" and (facts := read_jxl_facts(file)):
        # The plugin decodes all pixels to open the file.
        claim = Header(name, facts.width, facts.height, channels=4, dtype=np.dtype(np.uint8))
        check_claim(claim, facts.width * facts.height, options.max_pixels)
    file.seek(0)
    # Decoders are imported on demand: tifffile, imagecodecs and Pillow's plugins would slow down the start of commands.
    if name == "TIFF":
        from dsclora_cli.imaging.codecs.tiff_reader import open_tiff

        return open_tiff(file, options.salvage)
    opened = _open_other(file, name, options)
    notes = (*opened.header.notes, *surplus_notes(file, name))
    return replace(opened, header=replace(opened.header, notes=notes))


def _open_other(file: BinaryIO, name: str, options: ReadOptions) -> OpenedFile:
    """Open a file of another format than TIFF; with `salvage`, what is missing is filled first."""
    from dsclora_cli.imaging.codecs.pillow import open_with_pillow

    refuse_unsupported(file, name)
    if not options.salvage:
        return open_with_pillow(file, name)
    from dsclora_cli.imaging.codecs.incomplete import fill_gaps

    filled, note = fill_gaps(file, name, options.max_pixels)
    opened = open_with_pillow(filled, name, salvage=True)
    notes = (*opened.header.notes, note) if note else opened.header.notes
    return replace(opened, header=replace(opened.header, notes=notes))


class PictureReader:
    """An open picture file: a context manager with the upright header, and `frames()` to decode the pixels."""

    def __init__(self, name: str, file: BinaryIO, opened: OpenedFile, options: ReadOptions) -> None:
        """Use `open_picture` instead. `name` is for messages; `file` is closed together with the reader."""
        self._name, self._file, self._opened = name, file, opened
        self._name_errors = partial(_name_errors, name, file, options)
        stored = opened.header
        self._orientation = read_orientation(stored.metadata)
        # Orientations from 5 on swap width and height.
        width, height = (stored.width, stored.height)[:: -1 if self._orientation >= 5 else 1]
        metadata = with_size(stored.metadata, width, height, orientation=self._orientation)
        upright = replace(
            stored,
            width=width,
            height=height,
            metadata=replace(metadata, notes=()),
            notes=(*stored.notes, *metadata.notes),
        )
        self.header: Header = with_exif_colors(upright)

    def __enter__(self) -> PictureReader:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; frames can no longer be read."""
        self._file.close()

    def frames(self) -> Iterator[AnyFrame]:
        """Yield each frame or page, upright, `(H, W, C)` as in the header; decode one frame at a time.

        Raises:
            ImageUnreadable: The file is truncated or damaged; with a `StreamedFrame`, raised while bands are read.
        """
        stored = self._opened.header
        pages = stored.frames > 1 and not stored.animated
        for frame in _guarded(self._opened.frames(), self._name_errors):
            with self._name_errors():
                # Only pages may differ in size from the header.
                same_size = frame.shape[:2] == (stored.height, stored.width)
                if frame.shape[2] != stored.channels or not (pages or same_size):
                    raise ImageError(f"pixels of shape {frame.shape} do not match the file's header")
                upright = self._upright(frame)
            del frame  # else the pixels would stay in memory while the next frame is decoded
            yield upright
            del upright

    def _upright(self, frame: AnyFrame) -> AnyFrame:
        if isinstance(frame, Frame):
            return replace(frame, pixels=apply_orientation(frame.pixels, self._orientation))
        # Bands are decoded after `frames` has yielded.
        return StreamedFrame(frame.shape, _guarded(frame.bands(), self._name_errors), frame.duration_ms)


def _guarded(items: Iterator[T], name_errors: Callable[[], AbstractContextManager[None]]) -> Iterator[T]:
    """Yield what a decoder yields; errors of the decoder name the file, and warnings of libraries are dropped."""
    while True:
        with name_errors(), silent():
            item = next(items, None)
        if item is None:
            return
        yield item
        del item  # else the pixels would stay in memory while the next item is decoded


@contextmanager
def _name_errors(name: str, file: BinaryIO | None = None, options: ReadOptions = _DEFAULTS) -> Iterator[None]:
    """Turn any exception inside into an ImageUnreadable that starts with the name of the file.

    A decoder that names no next step has found damage: the next step of every format is decided here.
    """
    shown = escape_control(name)
    try:
        yield
    except ImageError as error:
        raise ImageUnreadable(f"{shown}: {error.message}", error.hint or _after_damage(name, file, options)) from error
    except MemoryError as error:
        raise ImageUnreadable(f"{shown}: not enough memory for this picture", "cut the picture into parts") from error
    except Exception as error:
        # An error of the system (such as a missing permission) has words of the system; an error of a decoder has none.
        # Decoders meet a damaged file with any exception that their parser happens to run into.
        if isinstance(error, OSError) and error.strerror:
            raise ImageUnreadable(f"{shown}: {error.strerror}", "check the path and the permissions") from error
        hint = CONVERT if says_unsupported(error) else _after_damage(name, file, options)
        raise ImageUnreadable(f"{shown}: {_describe(error)}", hint) from error


def _after_damage(name: str, file: BinaryIO | None, options: ReadOptions) -> str:
    """Return the next step for a damaged file: `--salvage` is named only if the option can take the first frame.

    The first rows are decoded to find out: which strips, rows or frames can be salvaged, no header tells. For a large
    file that would take too much time and memory.
    """
    if file is None or options.salvage:
        return _GET_AGAIN
    # Decoders meet damage with any exception.
    with suppress(Exception), silent():
        if file.seek(0, io.SEEK_END) > _PROBED:
            return _TRY_SALVAGE
        probe = replace(options, salvage=True, max_pixels=min(options.max_pixels, _PROBED))
        try:
            reader = _open_checked(name, file, probe, in_bands=True)
        except ImageError as error:
            return _TRY_SALVAGE if error.hint == TOO_LARGE_HINT else _GET_AGAIN
        if next(next(reader.frames()).bands()).size:
            return _SALVAGE
    return _GET_AGAIN


def _describe(error: Exception) -> str:
    """Return words for the exception of a library; the library's own words only where the words name an unread kind."""
    reason = first_line(error)
    if says_unsupported(error):
        return f"this kind of file is not supported ({reason})"
    return f"the file is damaged or truncated{f' ({reason})' if is_debugging() else ''}"
