"""Decoded training pictures on disk, to be mapped into memory: one file for each, named after its content.

`HASH.hr.npy` holds a picture and `HASH.x4.npy` its LR by MATLAB's bicubic of the whole picture, both `(h, w, 3)`
uint8; `HASH.x4-KEY.npy` what a teacher makes of that LR. Files are written whole, so processes may share them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsclora_cli.errors import DscloraError
from dsclora_cli.imaging.resize import downscale
from dsclora_cli.paths import cache_dir, sha256_of, written_whole
from dsclora_cli.tasks.benchmarks import read_rgb

_INDEX = "index.json"


class TrainCache:
    """The cache, below `cache_dir()/training`. Hashes are remembered by path, size and time of change."""

    def __init__(self) -> None:
        self.folder = cache_dir() / "training"
        self._known: dict[str, list[Any]] = self._read_index()
        self._changed = False

    def picture(self, path: Path) -> str:
        """The content hash of a picture, decoded into the cache. Raises ImageError as `read_rgb` does."""
        key = self._hash(path)
        self.made(f"{key}.hr.npy", lambda: read_rgb(path))
        return key

    def lr(self, key: str, scale: int) -> str:
        """The name of a picture's LR, made where it is missing."""
        return self.made(f"{key}.x{scale}.npy", lambda: downscale(np.array(self.open(f"{key}.hr.npy")), scale))

    def made(self, name: str, make: Callable[[], NDArray[Any]]) -> str:
        """`name`, whose file is there afterwards. Raises DscloraError where it cannot be written."""
        target = self.folder / name
        if not target.exists():
            array = make()
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with written_whole(target) as temporary, temporary.open("wb") as file:
                    np.save(file, array)
            except OSError as error:
                hint = "free some space, or set DSCLORA_CACHE_DIR to a folder that can be written"
                raise DscloraError(f"cannot write {target}: {error.strerror}", hint) from error
        return name

    def open(self, name: str) -> NDArray[Any]:
        """An array of the cache, mapped into memory and read-only."""
        array: NDArray[Any] = np.load(self.folder / name, mmap_mode="r")
        return array

    def close(self) -> None:
        """Remember the hashes of the pictures that were decoded."""
        if self._changed and self.folder.is_dir():
            self._known |= self._read_index()
            with written_whole(self.folder / _INDEX) as temporary:
                temporary.write_text(json.dumps(self._known), encoding="utf-8")

    def _hash(self, path: Path) -> str:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        size_time_hash = self._known.get(str(path.resolve()))
        if size_time_hash is not None and size_time_hash[:2] == stamp:
            return str(size_time_hash[2])
        key = sha256_of(path)
        self._known[str(path.resolve())] = [*stamp, key]
        self._changed = True
        return key

    def _read_index(self) -> dict[str, list[Any]]:
        try:
            known: dict[str, list[Any]] = json.loads((self.folder / _INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known
