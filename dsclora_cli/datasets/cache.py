"""Decoded training pictures on disk, mapped into memory: a file for each array, named after the picture's content.

`HASH.hr.npy` holds a picture, and `HASH.x4.npy` LR at scale 4, by MATLAB's bicubic of the whole picture; both are
`(h, w, 3)`, uint8. `HASH.x4-KEY.npy` holds a teacher's output for LR. `HASH-p2.hr.npy` holds the second page, and
`HASH.json` tells of pages and conversions. Every file is written atomically, so processes may share the cache, and a
run uses what a killed run decoded.
"""

from __future__ import annotations

import json
import math
import mmap
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.config import ReadOptions
from dsclora_cli.datasets.pages import CONVERSIONS, check_regular, open_pages
from dsclora_cli.errors import DscloraError, ImageError, next_step
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.paths import (
    append_line,
    atomic_write,
    cache_dir,
    is_taken,
    open_regular,
    read_small,
    remove_abandoned_files,
    sha256_of,
)

_HEADER = re.compile(
    # Numbers only: an array of objects would take the bytes of the file for addresses in memory.
    rb"\x93NUMPY\x01.{1,50}'descr': '(\|u1|<[iuf][248])', "
    rb"'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\), \} *\n",
    re.DOTALL,
)
_MOST_PAGES = 100_000  # a damaged count must not ask for all memory


@dataclass(frozen=True)
class StoredFile:
    """A picture file in the cache."""

    pages: tuple[str, ...]
    """Names of the arrays of the pages; the name starts with the hash of the file's content."""
    conversions: tuple[str, ...] = ()
    """Keys of `CONVERSIONS`: what decoding converted."""


class TrainCache:
    """The cache in `cache_dir()/training`; threads and processes may use the cache at the same time.

    `index.jsonl` keeps the hash of each file with the file's path, size and time of change, a line for each file, so
    that a file is hashed once. Lines are only appended, so no line is lost where several processes write at once, or
    where a process is killed while writing.
    """

    def __init__(self, max_pixels: int = ReadOptions.max_pixels) -> None:
        self.max_pixels = max_pixels
        """Most pixels of a picture to decode."""
        self.folder = cache_dir() / "training"
        self._index = self.folder / "index.jsonl"
        self._known = self._read_index()
        # Here too, because a run that finds all pictures in the cache writes nothing.
        remove_abandoned_files(self.folder)

    def add_file(self, path: Path) -> StoredFile:
        """Decode the pages of a picture file unless the cache has the pages.

        Raises ImageError for a file that cannot be used, and DscloraError where the cache cannot be written.
        """
        key = self.hash_of(path)
        known = self._stored_file(key)
        # Pages above the limit, of a run with a higher limit, are opened again, which refuses them as an empty cache
        # would: the pictures of a run must not depend on earlier runs.
        if known and all(self._holds(name, self.max_pixels) for name in known.pages):
            return known
        with open_pages(path, self.max_pixels) as pages:
            file = StoredFile(tuple(_page_name(key, index) for index in range(pages.count)), pages.conversions)
            # Written before the arrays: a first page without such a file is a whole picture, stored unconverted.
            if file.conversions or len(file.pages) > 1:
                facts = {"pages": pages.count, "conversions": pages.conversions}
                self._write(f"{key}.json", lambda temporary: temporary.write_text(json.dumps(facts), encoding="utf-8"))
            for name, pixels in zip(file.pages, pages.rgb(), strict=True):
                self._store(name, pixels)
        return file

    def _stored_file(self, key: str) -> StoredFile | None:
        """Return what the cache knows of the file with this content; None where `HASH.json` is damaged."""
        path = self.folder / f"{key}.json"
        if not is_taken(path):
            return StoredFile((_page_name(key, 0),))
        try:
            facts = json.loads(read_small(path))
            count = min(int(facts["pages"]), _MOST_PAGES)
            if count < 1:  # the picture would be left out of the training without a message
                return None
            names = tuple(_page_name(key, index) for index in range(count))
            return StoredFile(names, tuple(name for name in CONVERSIONS if name in facts["conversions"]))
        except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return None

    def add_lr(self, picture: str, scale: int) -> str:
        """Make LR of the picture with this name unless the cache has LR, and return the name of the array.

        Raises DscloraError where the cache cannot be written.
        """
        name = f"{content_hash(picture)}.x{scale}.npy"
        return self.add(name, lambda: downscale(np.array(self.open(picture)), scale))

    def add(self, name: str, make: Callable[[], NDArray[Any]]) -> str:
        """Store an array `(h, w, c)` unless the cache has an array of this name, and return the name.

        Raises DscloraError where the cache cannot be written.
        """
        if not self._holds(name):
            self._store(name, make())
        return name

    def _store(self, name: str, array: NDArray[Any]) -> None:
        """Write an array. Raises DscloraError where the cache cannot be written."""

        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.save(file, array)

        self._write(name, save)

    def _write(self, name: str, save: Callable[[Path], object]) -> None:
        """Write a file of the cache atomically. Raises DscloraError where the cache cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.folder / name) as temporary:
                save(temporary)
        except OSError as error:
            # Another process may have been faster, and Windows lets nobody replace a file that is mapped.
            if name.endswith(".npy") and self._holds(name):
                return
            hint = next_step(error, "set DSCLORA_CACHE_DIR to a folder that can be written")
            raise DscloraError(f"cannot write {self.folder / name}: {error.strerror or error}", hint) from error

    def open(self, name: str) -> NDArray[Any]:
        """Return an array `(h, w, c)` of the cache, mapped into memory and read-only.

        No file stays open once the array is dropped. Raises DscloraError where the file is missing or damaged.
        """
        path = self.folder / name
        try:
            # np.load parses the header as Python, which takes ten times as long as this whole method.
            with open_regular(path) as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            header = _HEADER.match(mapped)
            if header is None:
                raise ValueError("unknown header")
            dtype, *shape = header.groups()
            return np.ndarray([int(side) for side in shape], dtype.decode(), mapped, header.end())
        except (OSError, TypeError, ValueError) as error:
            raise DscloraError(f"cannot read {path}: {error}", "run again: missing files are decoded again") from error

    def _holds(self, name: str, max_pixels: float = math.inf) -> bool:
        """Return whether the cache has a whole array of this name, of at most `max_pixels`.

        A crash of the machine may cut a file off.
        """
        try:
            return math.prod(self.open(name).shape[:2]) <= max_pixels
        except DscloraError:
            return False

    def hash_of(self, path: Path) -> str:
        """Return the sha256 of a file's content, from the index where size and time of change are the same.

        Raises ImageError for a file that is no regular file or cannot be read.
        """
        check_regular(path)
        try:
            status, place = path.stat(), str(path.absolute())
            stamp = [status.st_size, status.st_mtime_ns]
            known = self._known.get(place)
            if known and known[:2] == stamp:
                return str(known[2])
            key = sha256_of(path)
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror}", next_step(error)) from error
        # Where the index cannot be written, the file is hashed again the next time. An array that cannot be written is
        # an error, which `add` raises.
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            # A line break comes first as well, so that a line cut off by a kill does not spoil this line.
            append_line(self._index, f"\n{json.dumps([place, *stamp, key])}")
        return key

    def _read_index(self) -> dict[str, list[Any]]:
        """Return size, time of change and hash of each file in the index, by path."""
        known: dict[str, list[Any]] = {}
        try:
            with open_regular(self._index) as file:
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return known
        for line in lines:
            try:
                place, size, changed, key = json.loads(line)
                if re.fullmatch("[0-9a-f]{64}", key):  # the hash becomes the name of a file
                    known[place] = [size, changed, key]
            except (TypeError, ValueError, RecursionError):  # an empty line, or a line that was cut off
                continue
        return known


def content_hash(name: str) -> str:
    """Return the hash of the page that an array of the cache belongs to, from the array's name.

    The hash is that of the file; pages after the first have their number behind the hash.
    """
    return name.partition(".")[0]


def _page_name(key: str, index: int) -> str:
    """Return the name of the array of a page; the first page of a file has index 0."""
    return f"{key}.hr.npy" if index == 0 else f"{key}-p{index + 1}.hr.npy"
