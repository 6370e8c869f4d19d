"""Build the library of the native engine from its source, as the package's build does."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

from dsclora_cli.inference.native import library

SOURCES = Path(library.__file__).parent
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")


def built(folder: Path, *flags: str) -> Path:
    """Return a library compiled from the sources into a folder, once for all processes of a test run; or skip."""
    if COMPILER is None:
        pytest.skip("no C++ compiler found (g++, clang++ or CXX)")
    target = folder / library.LIBRARY.name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not target.exists():
            common = ["-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"]
            command = [COMPILER, "-O3", *common, *flags, str(SOURCES / "span.cpp"), "-o", str(target)]
            subprocess.run(command, check=True)
    return target


def is_current(path: Path) -> bool:
    """Return whether a library exists and is newer than all of its sources."""
    sources = [*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]
    return path.exists() and path.stat().st_mtime >= max(source.stat().st_mtime for source in sources)
