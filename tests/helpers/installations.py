"""Builds of the package, and environments to install the builds into, for tests of installations."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
NATIVE = "dsclora_cli/inference/native"
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
NO_COMPILER = {"CXX": "/nonexistent"}
PHOTO = ROOT / "examples" / "photo.png"


def build(target: str, folder: Path, source: Path = ROOT, **variables: str) -> Path:
    """Build a source tree with hatchling; the target is "sdist", "wheel:standard" or "wheel:editable"."""
    done = try_build(target, folder, source, **variables)
    assert done.returncode == 0, done.stderr
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def try_build(target: str, folder: Path, source: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Build as `build` does, and return the ended process; `variables` are added to the environment."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, cwd=source, env=environment, check=False, capture_output=True, text=True)


def unpacked_sources(folder: Path) -> Path:
    """Build a source archive, and return the folder of its unpacked files."""
    archive = build("sdist", folder)
    with tarfile.open(archive) as files:
        # Python 3.11.3 and older have no filters.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        files.extractall(folder, **safely)
    return folder / archive.name.removesuffix(".tar.gz")


def compiled_libraries(tree: Path) -> list[Path]:
    """Return the compiled libraries next to the sources of the native engine."""
    return [path for path in (tree / NATIVE).iterdir() if path.suffix in {".so", ".dylib", ".dll"}]


def new_environment(folder: Path, wheel: Path | None) -> Path:
    """Return the interpreter of a new environment with the dependencies, and with the wheel if given."""
    venv.create(folder, symlinks=os.name == "posix")
    site = next(folder.rglob("site-packages"))
    (site / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    if wheel:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(python: Path, folder: Path, *arguments: str) -> str:
    """Run an interpreter in a folder, and return its standard output."""
    done = try_run(python, folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def try_run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run an interpreter in a folder, without a compiler or another program in reach."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = str(python.parent)
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
