"""Types of an upscaling run: input files, results, callbacks, and errors for a single picture."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.errors import DscloraError, ErrorCode, ErrorInfo, ImageError, OutOfMemory

STDIN = "-"

NETWORK_ERRORS = (ImageError, OutOfMemory, MemoryError)
"""Errors of decoding and of the network for a single picture; any other error ends the run.

OSError is missing on purpose: in the thread of the network, an OSError comes from the caller, such as a closed pipe
where results are shown.
"""

FILE_ERRORS = (*NETWORK_ERRORS, OSError)
"""Errors for a single picture while files are opened and written."""


@dataclass(frozen=True)
class InputFile:
    """Picture to upscale, or the reason for a missing picture."""

    source: Path | bytes
    """A file, or the bytes of a whole file."""
    name: str
    """Name of the input in messages and results."""
    folder: Path | None = None
    """Place in the tree of a folder argument, kept below an output folder; None for a file named by the user."""
    problem: ImageError | None = None
    """Reason for failing before any file is opened, for example a missing file."""

    @property
    def stem(self) -> str:
        """Return the text for `{stem}` in a name template."""
        return self.source.stem if isinstance(self.source, Path) else "stdin"

    @property
    def key(self) -> str:
        """Return an identifier of the file, equal for two inputs of the same file."""
        return path_key(self.source) if isinstance(self.source, Path) else STDIN


@dataclass(frozen=True)
class FoundInputs:
    """Inputs of a run, in order."""

    inputs: tuple[InputFile, ...]
    many: bool
    """Whether results need a folder: there are several inputs, or an argument was a folder."""
    notes: tuple[str, ...] = ()
    """Sentences for the user."""


def path_key(path: Path) -> str:
    """Return an identifier of a path, equal for all spellings of the path.

    Links are resolved. Upper and lower case are equal where the system ignores case in file names.
    """
    key = os.path.normcase(path.resolve())
    return key.casefold() if sys.platform == "darwin" else key


FileStatus = Literal["done", "skipped", "kept", "failed", "interrupted"]


@dataclass(frozen=True)
class StageSeconds:
    """Seconds of work, by stage, without the time spent waiting for another stage."""

    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0


@dataclass(frozen=True)
class FileResult:
    """Result for an input. Values of the network are None where no network ran."""

    input: str
    """Name of the input, as given by the user."""
    status: FileStatus
    """done; skipped: the result exists already or the picture is large enough; kept: another file has the name of the
    result; failed: see `error`; interrupted."""
    output: str | None = None
    """File that now exists, "-" for standard output, None for no file."""
    input_size: tuple[int, int] | None = None
    """(width, height) in pixels."""
    output_size: tuple[int, int] | None = None
    """(width, height) in pixels."""
    frames: int = 1
    scale: float | None = None
    """Factor between the sides of input and output."""
    model: str | None = None
    """Catalog name, or stem of the weights file; names joined with "+" where passes use several models."""
    choice: str | None = None
    """Property of the picture that made `auto` choose the model."""
    weights_sha256: str | None = None
    device: str | None = None
    dtype: str | None = None
    engine: str | None = None
    tile: int | None = None
    """Edge of a tile in input pixels, 0 for the whole picture."""
    seconds: StageSeconds = StageSeconds()
    warnings: tuple[str, ...] = ()
    error: ErrorInfo | None = None


def describe_error(error: Exception) -> ErrorInfo:
    """Return the `error` for a result, from an error in `FILE_ERRORS`."""
    if isinstance(error, DscloraError):
        return error.info
    if isinstance(error, MemoryError):
        return ErrorInfo(ErrorCode.OUT_OF_MEMORY, "there is not enough memory")
    return ErrorInfo(ErrorCode.IMAGE_UNUSABLE, str(error))


class UpscaleCallbacks(Callbacks):
    """Callbacks of `upscale_files`; results come from the iterator, not from a callback.

    All methods run in the thread iterating over the results.
    """

    def on_inputs(self, found: FoundInputs) -> None:
        """Receive the inputs before the first picture is opened; notes about inputs come through `on_note`."""

    def on_start(self, file: InputFile) -> None:
        """Receive the next picture of the network, before the network starts."""

    def on_progress(self, file: InputFile, share: float) -> None:
        """Receive the share of a started picture, from 0 to 1, for which the network is done."""
