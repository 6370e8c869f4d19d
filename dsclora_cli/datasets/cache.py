"""Decoded training pictures on disk, to be mapped into memory: one file for each, named after its content.

`HASH.hr.npy` holds a picture and `HASH.x4.npy` its LR by MATLAB's bicubic of the whole picture, both `(h, w, 3)`
uint8; `HASH.x4-KEY.npy` what a teacher makes of that LR. Files are written whole, so processes may share them, and
what a killed one made is used by the next.
"""

from __future__ import annotations

import json
import mmap
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.datasets.benchmarks import read_rgb
from dsclora_cli.errors import DscloraError, ImageError
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.paths import atomic_write, cache_dir, sha256_of

_HEADER = re.compile(
    rb"\x93NUMPY\x01.{1,50}'descr': '(\S+)', 'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\), \} *\n",
    re.DOTALL,
)
_ABANDONED_SECONDS = 3600


class TrainCache:
    """The cache, below `cache_dir()/training`; threads may share one.

    `index.jsonl` remembers hashes by path, size and time of change, a line for each, so that files are hashed once.
    Lines are only added, so nothing is lost where processes do so at once or one is killed at it.
    """

    def __init__(self) -> None:
        self.folder = cache_dir() / "training"
        self._index = self.folder / "index.jsonl"
        self._known = self._read_index()
        self._drop_abandoned()

    def picture(self, path: Path) -> str:
        """The name of a picture's array, decoded where it is missing; it starts with the hash of the file's content.

        Raises ImageError as `read_rgb` does, and DscloraError as `made` does.
        """
        return self.made(f"{self._hash(path)}.hr.npy", lambda: read_rgb(path))

    def lr(self, picture: str, scale: int) -> str:
        """The name of the LR of a picture of the cache, made where it is missing. Raises as `made` does."""
        name = f"{content(picture)}.x{scale}.npy"
        return self.made(name, lambda: downscale(np.array(self.open(picture)), scale))

    def made(self, name: str, make: Callable[[], NDArray[Any]]) -> str:
        """`name`, whose file is there and whole afterwards. Raises DscloraError where it cannot be written."""
        if not self._holds(name):
            array = make()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with atomic_write(self.folder / name) as temporary, temporary.open("wb") as file:
                    np.save(file, array)
            except OSError as error:
                if not self._holds(name):  # else another process was faster, and Windows lets nobody replace its file
                    hint = "free some space, or set DSCLORA_CACHE_DIR to a folder that can be written"
                    raise DscloraError(f"cannot write {self.folder / name}: {error.strerror or error}", hint) from error
        return name

    def open(self, name: str) -> NDArray[Any]:
        """An array `(h, w, c)` of the cache, mapped into memory and read-only.

        Nothing stays open for it once it is dropped. Raises DscloraError where it is gone or damaged.
        """
        path = self.folder / name
        try:
            # np.load parses the header as Python, which takes ten times as long as all of this.
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            header = _HEADER.match(mapped)
            if header is None:
                raise ValueError("its header is not ours")
            dtype, *shape = header.groups()
            return np.ndarray([int(side) for side in shape], dtype.decode(), mapped, header.end())
        except (OSError, TypeError, ValueError) as error:
            raise DscloraError(f"cannot read {path}: {error}", "run again: what is missing is made anew") from error

    def _holds(self, name: str) -> bool:
        """Whether an array is there and not cut off, as by a crash of the machine."""
        try:
            self.open(name)
        except DscloraError:
            return False
        return True

    def _hash(self, path: Path) -> str:
        try:
            status, place = path.stat(), str(path.absolute())
            stamp = [status.st_size, status.st_mtime_ns]
            known = self._known.get(place)
            if known and known[:2] == stamp:
                return str(known[2])
            key = sha256_of(path)
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror}") from error
        with suppress(OSError):  # then it is hashed again the next time; arrays that cannot be written are an error
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._index.open("a", encoding="utf-8") as file:
                # The break comes first, so that a line which a kill cut off spoils no other.
                file.write(f"\n{json.dumps([place, *stamp, key])}")
        return key

    def _read_index(self) -> dict[str, list[Any]]:
        known: dict[str, list[Any]] = {}
        try:
            lines = self._index.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return known
        for line in lines:
            try:
                place, size, changed, key = json.loads(line)
                known[place] = [size, changed, key]
            except (TypeError, ValueError):  # empty, or cut off
                continue
        return known

    def _drop_abandoned(self) -> None:
        """Remove what a killed process had begun to write."""
        for part in self.folder.glob(".dsclora-*.part"):
            with suppress(OSError):  # gone meanwhile, or open on Windows
                if time.time() - part.stat().st_mtime > _ABANDONED_SECONDS:
                    part.unlink()


def content(name: str) -> str:
    """The hash of the picture that an array of the cache belongs to."""
    return name.partition(".")[0]
