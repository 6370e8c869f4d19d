"""Compile the native engine while hatchling builds the package; without a C++ compiler, build the package without it.

`DSCLORA_NATIVE` decides: `auto` (default), `require` (fail without the engine, for wheels to publish) or `off`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "dsclora_cli/inference/native"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread")
COMPILERS = ("c++", "g++", "clang++")
SUFFIXES = {"win32": ".dll", "darwin": ".dylib"}
LIBRARY = f"libdsclora_native{SUFFIXES.get(sys.platform, '.so')}"
WITHOUT = "dsclora is built without its native engine; OpenVINO or PyTorch runs the networks, only slower."


class NativeEngineHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hook of hatchling that adds the compiled library, and the tag of the platform, to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the library into a wheel, or for an editable install next to the sources."""
        # A source archive holds sources only; whoever installs the archive compiles.
        if self.target_name != "wheel":
            return
        wish, root = os.environ.get("DSCLORA_NATIVE", "auto"), Path(self.root)
        if wish not in {"auto", "require", "off"}:
            raise RuntimeError(f"DSCLORA_NATIVE is {wish!r}: choose auto, require or off")
        in_place = root / FOLDER / LIBRARY if version == "editable" else None
        self._scrap = tempfile.TemporaryDirectory(dir=in_place and in_place.parent, prefix=".build-")
        compiled = Path(self._scrap.name) / LIBRARY
        problem = "DSCLORA_NATIVE is off" if wish == "off" else compile_library(root / FOLDER, compiled)
        if problem:
            self._leave_out(problem, wish, in_place)
            return
        if in_place:
            # Replaced at once, because a running program may have the old file mapped.
            compiled.replace(in_place)
        else:
            build_data["force_include"][str(compiled)] = f"{FOLDER}/{LIBRARY}"
        build_data["pure_python"] = False
        # Not tied to a version of Python: the library knows nothing of Python, and ctypes loads it.
        build_data["tag"] = f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the folder of the compiler."""
        if self.target_name == "wheel":
            self._scrap.cleanup()

    def _leave_out(self, problem: str, wish: str, stale: Path | None) -> None:
        if wish == "require":
            raise RuntimeError(f"the native engine cannot be built: {problem}")
        if stale:
            # Of an earlier build, perhaps from other sources.
            stale.unlink(missing_ok=True)
        again = "" if wish == "off" else " To add it, install g++ or clang++, and install dsclora again."
        self.app.display_warning(f"{WITHOUT} ({problem}){again}")


def compile_library(sources: Path, target: Path) -> str:
    """Compile all sources in a folder into a shared library; return the problem, or an empty text."""
    compiler = find_compiler()
    if not compiler:
        chosen = os.environ.get("CXX")
        return f"CXX={chosen} is no program" if chosen else f"no C++ compiler: none of {', '.join(COMPILERS)} is there"
    flags = [*FLAGS, *platform_flags(), *shlex.split(os.environ.get("CXXFLAGS", ""))]
    inputs = sorted(map(str, sources.glob("*.cpp")))
    command = [*compiler, *flags, *inputs, "-o", str(target), *shlex.split(os.environ.get("LDFLAGS", ""))]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    except OSError as error:
        return f"{compiler[0]} does not start: {error.strerror}"
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        target.unlink(missing_ok=True)
        return f"{compiler[0]} failed with code {done.returncode}; its messages stand above"
    return ""


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler, `CXX` first; an empty list where there is none."""
    chosen = os.environ.get("CXX")
    if chosen:
        command = shlex.split(chosen)
        return command if shutil.which(command[0]) else []
    return next(([name] for name in COMPILERS if shutil.which(name)), [])


def platform_flags() -> list[str]:
    """Return the flags that a platform needs besides `FLAGS`."""
    if sys.platform == "win32":
        return ["-static"]  # MinGW's own libraries are on no other machine
    if sys.platform == "darwin":
        both = "-arch x86_64 -arch arm64" if sysconfig.get_platform().endswith("universal2") else ""
        return shlex.split(os.environ.get("ARCHFLAGS", both))
    return []


def platform_tag() -> str:
    """Return the platform of the wheel, such as linux_x86_64; cibuildwheel's repair step makes it manylinux."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
