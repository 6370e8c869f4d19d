"""A parser to fuzz, and a place for parsers that take a path."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Parser:
    """A parser to fuzz."""

    parse: Callable[[bytes], object]

    seeds: Callable[[], list[bytes]]
    """Return whole files."""

    allowed: tuple[type[Exception], ...] = ()
    """Exceptions that the documentation of the parser names; any other one is a finding."""

    is_text: bool = False
    """Whether mutations edit words and numbers."""


@cache
def scratch() -> Path:
    """Return a folder for parsers that take a path; in memory where the system has such a folder."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="dsclora-fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def as_file(data: bytes, name: str = "file") -> Path:
    """Write bytes to a file in the folder, and return the path."""
    path = scratch() / name
    path.write_bytes(data)
    return path
