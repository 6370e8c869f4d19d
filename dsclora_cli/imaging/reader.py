"""Open picture files: `open_picture` reads the header at once, `PictureReader.frames` decodes the pixels.

The decoders are in `codecs/`. Any error becomes an `ImageUnreadable`: one line that starts with the name of the file.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dsclora_cli.errors import ImageError, ImageUnreadable
from dsclora_cli.imaging.color import apply_orientation
from dsclora_cli.imaging.formats import CAMERA_RAW, FORMATS, detect_format, is_camera_raw
from dsclora_cli.imaging.metadata import read_orientation, with_size
from dsclora_cli.imaging.types import AnyFrame, Header, OpenedFile, Pixels, StreamedFrame

MAX_PIXELS = 10**9
"""Pictures beyond a gigapixel are refused: a header of a few bytes could otherwise ask for all memory."""

_GET_AGAIN = "copy or download the file again"


def open_picture(source: Path | bytes) -> PictureReader:
    """Open a picture file and read the header; no pixel is decoded yet.

    Args:
        source: Path of a file, or a whole file in memory. The content decides about the format, not the name.

    Returns:
        A reader, to be used as a context manager.

    Raises:
        ImageUnreadable: The file cannot be read, is no picture, is damaged, is larger than `MAX_PIXELS`, or needs an
            optional package. The message names the file.
    """
    name, suffix = ("<stdin>", "") if isinstance(source, bytes) else (str(source), source.suffix)
    with _name_errors(name):
        if isinstance(source, Path) and source.is_dir():
            raise ImageError("is a folder, not a picture", "give the path of a picture file")
        file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        try:
            opened = _open_by_content(file, suffix)
            header = opened.header
            if header.width * header.height > MAX_PIXELS:
                raise ImageError(
                    f"{header.width} x {header.height} pixels are more than the {MAX_PIXELS // 10**6} million allowed",
                    "cut the picture into parts",
                )
            return PictureReader(name, file, opened)
        except BaseException:
            file.close()
            raise


def _open_by_content(file: BinaryIO, suffix: str) -> OpenedFile:
    """Detect the format of a file and open the file with the decoder of the format."""
    head = file.read(64)
    if not head:
        raise ImageError("the file is empty", _GET_AGAIN)
    file.seek(max(0, file.seek(0, io.SEEK_END) - 18))  # the footer of a TGA
    name = detect_format(head, file.read(), suffix)
    if name in (None, "TIFF") and is_camera_raw(head, suffix):
        raise ImageError(*CAMERA_RAW)
    if name is None:
        raise ImageError("is not a picture in a known format", f"known formats: {', '.join(FORMATS)}")
    file.seek(0)
    # Decoders are imported on demand: tifffile, imagecodecs and Pillow's plugins would slow down the start of commands.
    if name == "TIFF":
        from dsclora_cli.imaging.codecs.tiff_reader import open_tiff

        return open_tiff(file)
    from dsclora_cli.imaging.codecs.pillow import open_with_pillow

    return open_with_pillow(file, name)


class PictureReader:
    """An open picture file: a context manager with the upright header, and `frames()` to decode the pixels."""

    def __init__(self, name: str, file: BinaryIO, opened: OpenedFile) -> None:
        """Use `open_picture` instead. `name` is for messages; `file` is closed together with the reader."""
        self._name, self._file, self._opened = name, file, opened
        stored = opened.header
        self._orientation = read_orientation(stored.metadata)
        # Orientations from 5 on swap width and height.
        width, height = (stored.width, stored.height)[:: -1 if self._orientation >= 5 else 1]
        metadata = with_size(stored.metadata, width, height, orientation=self._orientation)
        self.header: Header = replace(
            stored,
            width=width,
            height=height,
            metadata=replace(metadata, notes=()),
            notes=(*stored.notes, *metadata.notes),
        )

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
        with _name_errors(self._name):
            for frame in self._opened.frames():
                # Only pages may differ in size from the header.
                same_size = frame.shape[:2] == (stored.height, stored.width)
                if frame.shape[2] != stored.channels or not (pages or same_size):
                    raise ImageError(f"pixels of shape {frame.shape} do not match the file's header")
                if isinstance(frame, StreamedFrame):
                    yield StreamedFrame(frame.shape, self._named_bands(frame), frame.duration_ms)
                else:
                    yield replace(frame, pixels=apply_orientation(frame.pixels, self._orientation))

    def _named_bands(self, frame: StreamedFrame) -> Iterator[Pixels]:
        # Bands are decoded after `frames` has yielded, outside its `_name_errors`.
        with _name_errors(self._name):
            yield from frame.bands()


@contextmanager
def _name_errors(name: str) -> Iterator[None]:
    """Turn any exception inside into an ImageUnreadable that starts with the name of the file."""
    try:
        yield
    except ImageError as error:
        # A decoder that names no next step has found damage.
        raise ImageUnreadable(f"{name}: {error.message}", error.hint or _GET_AGAIN) from error
    except MemoryError as error:
        raise ImageUnreadable(f"{name}: not enough memory for this picture", "cut the picture into parts") from error
    except OSError as error:
        # An error of the system (such as a missing permission) has words of the system; an error of a decoder has none.
        if not error.strerror:
            raise ImageUnreadable(f"{name}: {_damage(error)}", _GET_AGAIN) from error
        raise ImageUnreadable(f"{name}: {error.strerror}", "check the path and the permissions") from error
    # Decoders meet a damaged file with any exception that their parser happens to run into.
    except Exception as error:
        raise ImageUnreadable(f"{name}: {_damage(error)}", _GET_AGAIN) from error


def _damage(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"the file is damaged or truncated ({lines[0] if lines else type(error).__name__})"
