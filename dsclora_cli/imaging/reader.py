"""Picture files in: what is in them at once, their pixels when asked for, and one clear error for what is broken."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dsclora_cli.errors import ImageError, ImageUnreadable
from dsclora_cli.imaging import metadata as blocks
from dsclora_cli.imaging.color import upright
from dsclora_cli.imaging.formats import sniff
from dsclora_cli.imaging.types import AnyFrame, Header, Opened, Pixels, StreamedFrame

MAX_PIXELS = 10**9
"""Pictures beyond a gigapixel are refused: a header of a few bytes could otherwise ask for all memory."""


class PictureReader:
    """An open picture file: a context manager with `header`, known at once, and `frames()`, decoded when asked."""

    def __init__(self, name: str, file: BinaryIO, opened: Opened) -> None:
        """Use `open_picture`. `name` is for messages; `file` is closed with the reader."""
        self._name, self._file, self._opened = name, file, opened
        stored = opened.header
        self._orientation = blocks.orientation(stored.metadata.exif)
        width, height = (stored.width, stored.height)[:: -1 if self._orientation >= 5 else 1]
        metadata = blocks.with_size(stored.metadata, width, height)
        self.header: Header = replace(stored, width=width, height=height, metadata=metadata)

    def __enter__(self) -> PictureReader:
        """The reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; frames can no longer be read."""
        self._file.close()

    def frames(self) -> Iterator[AnyFrame]:
        """Each frame or page, upright, `(H, W, C)` as the header says; one is decoded at a time.

        Raises ImageError where the file is truncated or damaged, at the latest in the bands of a frame that has any.
        """
        with _naming(self._name):
            for frame in self._opened.frames():
                stored = self._opened.header
                if not stored.holds(frame.shape):
                    raise ImageError(f"pixels of shape {frame.shape} do not match the file's header")
                if isinstance(frame, StreamedFrame):
                    yield StreamedFrame(frame.shape, self._decoded(frame.bands()), frame.duration_ms)
                else:
                    yield replace(frame, pixels=upright(frame.pixels, self._orientation))

    def _decoded(self, bands: Iterator[Pixels]) -> Iterator[Pixels]:
        with _naming(self._name):
            yield from bands


def open_picture(source: Path | bytes) -> PictureReader:
    """Open a picture file, or a whole file in memory, and read its header; no pixel is decoded yet.

    The format is told from the content, not from the name. Raises ImageError, naming the file, where it cannot be
    read, is no picture, is broken or larger than `MAX_PIXELS`, or needs an optional package.
    """
    name = "<stdin>" if isinstance(source, bytes) else str(source)
    with _naming(name):
        file: BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else _open(source)
        try:
            opened = _decoder(file, "" if isinstance(source, bytes) else source.suffix)
            header = opened.header
            if header.width * header.height > MAX_PIXELS:
                raise ImageError(
                    f"{header.width} x {header.height} pixels are more than the {MAX_PIXELS // 10**6} million allowed"
                )
            return PictureReader(name, file, opened)
        except BaseException:
            file.close()
            raise


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise ImageError("is a folder, not a picture")
    return path.open("rb")


def _decoder(file: BinaryIO, suffix: str) -> Opened:
    head = file.read(64)
    if not head:
        raise ImageError("the file is empty")
    file.seek(max(0, file.seek(0, io.SEEK_END) - 18))
    name = sniff(head, file.read(), suffix)
    if name is None:
        raise ImageError("is no picture of a known format")
    file.seek(0)
    if name == "TIFF":
        from dsclora_cli.imaging.codecs.tiff_reader import open_tiff

        return open_tiff(file)
    from dsclora_cli.imaging.codecs.pillow import open_with_pillow

    return open_with_pillow(file, name)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Errors inside become one ImageUnreadable that starts with the file's name."""
    try:
        yield
    except ImageError as error:
        raise ImageUnreadable(f"{name}: {error.message}", error.hint) from error
    except MemoryError as error:
        raise ImageUnreadable(f"{name}: there is not enough memory for this picture") from error
    except OSError as error:
        raise ImageUnreadable(f"{name}: {error.strerror or _reason(error)}") from error
    # Decoders answer a broken file with whatever exception their parser happens to run into.
    except Exception as error:
        raise ImageUnreadable(f"{name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"the file is damaged or truncated ({lines[0] if lines else type(error).__name__})"
