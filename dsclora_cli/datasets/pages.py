"""Read a picture file as pages of 8-bit RGB: the form of training pictures, whatever the file holds.

Scans bring 16 bits, transparency and several pages. `open_pages` converts them, and `Pages.conversions` names what was
converted, so that a run can report the conversions.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.config import ReadOptions
from dsclora_cli.errors import ImageError, next_step
from dsclora_cli.imaging.color import convert_pixels
from dsclora_cli.imaging.reader import PictureReader, open_picture
from dsclora_cli.imaging.types import Pixels

CONVERSIONS = {
    "depth": "more than 8 bits a channel, rounded to 8 bits",
    "alpha": "transparency, laid on white",
    "frames": "an animation, of which the first frame is used",
}
"""What to say of a picture that was converted, by name of the conversion."""


@dataclass(frozen=True)
class Pages:
    """An open picture file."""

    count: int
    """Number of pages; 1 for an animation, because its frames are much alike."""
    conversions: tuple[str, ...]
    """Keys of `CONVERSIONS`."""
    reader: PictureReader

    def rgb(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the pages as `(H, W, 3)`, uint8, C-contiguous: rounded to 8 bits, transparency on white."""
        for pixels in self.stored():
            yield np.ascontiguousarray(convert_pixels(pixels, 3, np.uint8), np.uint8)

    def stored(self) -> Iterator[Pixels]:
        """Yield the pages `(H, W, C)` as stored, decoded one at a time."""
        for number, frame in enumerate(self.reader.frames(), start=1):
            yield frame.pixels
            if number == self.count:
                return
        raise ImageError(f"holds fewer pages than the {self.count} of its header")


@contextmanager
def open_pages(path: Path, max_pixels: int = ReadOptions.max_pixels) -> Iterator[Pages]:
    """Open a picture file. Every ImageError inside names the file.

    Raises:
        ImageError: The file is no regular file, cannot be read, has more than `max_pixels`, or has floats outside
            [0, 1].
    """
    check_regular(path)
    try:
        with open_picture(path, ReadOptions(max_pixels), in_bands=False) as reader:
            header = reader.header
            found = {
                "depth": header.dtype != np.uint8,
                "alpha": header.channels in {2, 4},
                "frames": header.animated and header.frames > 1,
            }
            count = 1 if header.animated else header.frames
            yield Pages(count, tuple(name for name, happens in found.items() if happens), reader)
    except ImageError as error:
        # Conversions know no path, while every error of the reader begins with the path.
        named = error.message if error.message.startswith(str(path)) else f"{path}: {error.message}"
        raise error.reworded(named) from error


def check_regular(path: Path) -> None:
    """Raise ImageError unless `path` is a regular file or a link to one: opening a pipe waits, perhaps for ever."""
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: {getattr(error, 'strerror', None) or error}", next_step(error)) from error
    if not regular:
        raise ImageError(f"{path}: is no regular file, but a pipe, a device or a folder", "remove it, or give a file")
