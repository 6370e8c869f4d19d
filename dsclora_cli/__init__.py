"""Upscale photographs well with a network of 131 thousand parameters.

`Upscaler` and `upscale_files` are the Python API, `cli` is the command line. Importing the package loads nothing else;
a public name is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module

# Type checkers take the name for true. The name of the module `typing` would cost a slow import, and Ctrl-C shows a
# traceback until the program can catch Ctrl-C.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from dsclora_cli.config import UpscaleOptions as UpscaleOptions
    from dsclora_cli.errors import DscloraError as DscloraError
    from dsclora_cli.upscaling.batch import FileResult as FileResult
    from dsclora_cli.upscaling.batch import upscale_files as upscale_files
    from dsclora_cli.upscaling.upscaler import Upscaler as Upscaler

_PUBLIC = {
    "DscloraError": "errors",
    "FileResult": "upscaling.batch",
    "UpscaleOptions": "config",
    "Upscaler": "upscaling.upscaler",
    "upscale_files": "upscaling.batch",
}

__version__ = "0.1.0"
__all__ = ["DscloraError", "FileResult", "UpscaleOptions", "Upscaler", "__version__", "upscale_files"]


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    public: object = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    return public


def __dir__() -> list[str]:
    """Return the public names, for completion in interactive shells."""
    return __all__
