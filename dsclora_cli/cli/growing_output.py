"""Outputs whose whole parts stay after a failure, such as the frames of a video: in a file NAME-incomplete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import BinaryIO

from dsclora_cli.paths import LONGEST_NAME, atomic_write, behind_links, is_stream, sync_file, sync_folder


@dataclass
class GrowingOutput:
    """An output whose parts are of use without the rest, such as the frames of a video."""

    file: BinaryIO
    """Open for writing."""
    is_stream: bool
    """True for a pipe or a device, where everything that is written stays."""
    parts: int = 0
    """Number of whole parts so far."""
    kept: Path | None = None
    """After a failure, the file with the whole parts; None where there is no such file."""
    _size: int = 0

    def end_part(self) -> None:
        """Note that everything written so far is of use, whatever happens next. Raises OSError."""
        self.file.flush()
        if not self.is_stream:
            self._size = self.file.tell()
        # Last, as Ctrl-C may come between two lines: no part is counted that the size leaves out.
        self.parts += 1

    def rescue(self, temporary: Path, path: Path) -> None:
        """Give a temporary file with the whole parts a name that says that `path` is incomplete. Raises OSError.

        No file that exists is replaced. Without a whole part nothing happens.
        """
        if not self.parts:
            return
        os.truncate(temporary, self._size)
        place = _create_incomplete(path)
        try:
            temporary.replace(place)
        except BaseException:
            place.unlink()
            raise
        self.kept = place
        # After the name: a second Ctrl-C while much is written to the disk does not cost the file.
        sync_file(place)
        sync_folder(place.parent)


@contextmanager
def open_growing_output(path: Path) -> Iterator[GrowingOutput]:
    """Yield an output as `open_output`, whose whole parts stay after any exception, Ctrl-C included.

    The parts stay next to `path` under the name NAME-incomplete with the same suffix; `path` is whole or as before.
    Raises OSError.
    """
    if is_stream(path):
        with path.open("wb") as file:
            yield GrowingOutput(file, is_stream=True)
        return
    place = behind_links(path)
    opened: list[GrowingOutput] = []

    def rescue(temporary: Path) -> None:
        for output in opened:
            output.rescue(temporary, place)

    with atomic_write(place, rescue) as temporary, temporary.open("wb") as file:
        opened.append(GrowingOutput(file, is_stream=False))
        yield opened[0]


def _create_incomplete(path: Path) -> Path:
    """Create an empty file NAME-incomplete, or NAME-incomplete-2 and so on, next to a file. Raises OSError."""
    for number in count(1):
        ending = f"-incomplete{f'-{number}' if number > 1 else ''}{path.suffix}"
        stem = path.stem
        while stem and len(os.fsencode(stem + ending)) > LONGEST_NAME:
            stem = stem[:-1]
        place = path.with_name(stem + ending)
        with suppress(FileExistsError):
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return place
    raise AssertionError("count has no end")
