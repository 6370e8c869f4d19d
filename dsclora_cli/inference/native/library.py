"""Load the compiled library of the native engine, or say why the library is not available."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

from dsclora_cli.paths import is_file

_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

LIBRARY = Path(__file__).with_name(f"libdsclora_native{_SUFFIX}")
"""File of the library, compiled from span.cpp when the package is built."""

CPU_VARIABLE = "DSCLORA_NATIVE_CPU"
"""Environment variable with the instruction set to use: avx512, avx2, neon or portable. Without it, the fastest."""

_VERSION = 1
"""Version of the interface in span.cpp that this module calls."""

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_float


def load_library() -> ctypes.CDLL:
    """Return the library with the types of all functions declared. Raises RuntimeError where it is not available."""
    library, reason = _load(LIBRARY)
    if library is None:
        raise RuntimeError(reason)
    return library


def why_unavailable() -> str:
    """Return the reason why the library cannot be used on this machine; an empty text where it can be used."""
    return _load(LIBRARY)[1]


def chosen_cpu() -> str:
    """Return the instruction set that the user chose in the environment; an empty text leaves the choice open."""
    return os.environ.get(CPU_VARIABLE, "").strip().lower()


@cache
def _load(path: Path) -> tuple[ctypes.CDLL | None, str]:
    """Return the library of a file, or None and the reason."""
    if not is_file(path):
        return None, f"{path.name} was not built when the package was installed: no C++ compiler, or DSCLORA_NATIVE=off"
    try:
        library = ctypes.CDLL(str(path))
        if (version := library.dsclora_native_version()) != _VERSION:
            return None, f"{path.name} has version {version} of the interface, not {_VERSION}"
        return _declared(library), ""
    except (OSError, AttributeError) as error:  # not for this machine; not this library
        return None, f"{path.name} cannot be loaded: {error}"


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declare arguments and results of the functions as span.cpp documents them. Raises AttributeError."""
    functions = {
        "open": (_POINTER, [_INT, _INT, _INT, _POINTER, _FLOAT, _POINTER, ctypes.c_char_p]),
        "cpu": (ctypes.c_char_p, [_POINTER]),
        "close": (None, [_POINTER]),
        "upscale": (_INT, [_POINTER, _POINTER, _POINTER, *[_INT] * 4, _FLOAT, _FLOAT, _INT, _INT]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, f"dsclora_native_{name}")
        function.restype, function.argtypes = result, arguments
    return library
