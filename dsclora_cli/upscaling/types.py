"""Types of an upscaling run: input files, files that are left out, results, callbacks, errors for a single picture."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from time import perf_counter
from typing import Literal

from dsclora_cli.callbacks import Callbacks
from dsclora_cli.claims import local_key
from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import (
    DscloraError,
    ErrorCode,
    ErrorInfo,
    ImageError,
    UsageError,
    WeightsError,
    bug_info,
    escape_control,
    system_info,
)
from dsclora_cli.paths import is_link
from dsclora_cli.storage.places import Place, RemotePlace, parse_place, place_text

STDIN = "-"

Argument = str | os.PathLike[str] | RemotePlace
"""A file, a folder, a glob, a URL, `@list.txt`, or `-` for standard input."""

PATHS = (str, os.PathLike, RemotePlace)
"""Classes of an `Argument`."""

RUN_ERRORS = (UsageError, WeightsError)
"""Errors that concern every picture, and end the run. Any other exception concerns a single picture."""

RESULT = "a result of an earlier run"
SYSTEM_FILE = "a hidden file of a system or program"
LINK_TO_FOLDER = "a link to a folder"
"""Reason for a folder that is not entered: a link to a folder above would never end."""
_EXPECTED = (RESULT, SYSTEM_FILE)
"""Reasons that no user wonders about."""

_KINDS = {
    RESULT: "results of earlier runs",
    SYSTEM_FILE: "hidden files of systems and programs",
    "not named like a picture": "not named like pictures",
    "a hidden file": "hidden pictures",
    "the folder of results": "folder of results",
    "a hidden folder": "hidden folders",
    LINK_TO_FOLDER: "links to folders",
    "a folder; -r includes subfolders": "folders",
    "a link that leads nowhere": "links that lead nowhere",
    "no regular file": "no regular files",
    "holds no pictures": "folders without pictures",
    "holds no pictures; -r includes subfolders": "folders without pictures",
}
"""Plurals by reason."""


@dataclass(frozen=True)
class InputFile:
    """Picture to upscale, or the reason for a missing picture."""

    source: Place | bytes
    """A local file, an object at a URL, or the bytes of a whole file."""
    name: str
    """Name of the input in messages and results."""
    folder: Path | None = None
    """Place in the tree of a folder argument, kept below an output folder; None for a file named by the user."""
    problem: ImageError | None = None
    """Reason for failing before any file is opened, for example a missing file."""
    content: Path | bytes | None = None
    """Local copy of an object at a URL, while the picture is read."""
    version: str | None = None
    """Text that changes with the bytes of an object at a URL; None for a local file, and until the storage is asked."""

    @property
    def stem(self) -> str:
        """Return the text for `{stem}` in a name template."""
        if not isinstance(self.source, bytes):
            return self.source.stem
        return "stdin" if self.name == STDIN else PurePath(self.name).stem

    @cached_property
    def key(self) -> str:
        """Return an identifier of the file, equal for two inputs of the same file."""
        return self.name if isinstance(self.source, bytes) else path_key(self.source)


@dataclass(frozen=True)
class FoundInputs:
    """Inputs of a run, in order."""

    inputs: tuple[InputFile, ...]
    many: bool
    """Whether results need a folder: there are several inputs, or an argument was a folder."""
    notes: tuple[str, ...] = ()
    """Sentences for the user."""
    left_out: tuple[LeftOut, ...] = ()
    """Files and folders that were seen and will not be upscaled."""
    others: tuple[InputFile, ...] = ()
    """Inputs of other shards, or of other parts of a watch; no result may replace the files or their results."""
    by_name: frozenset[str] = frozenset()
    """Keys of all files that are left out because of their names, also of files that `left_out` of a part lacks."""
    made: Mapping[str, str] = field(default_factory=dict)
    """Keys of the results that earlier parts of a watch have made, each with the key of the input."""


@dataclass(frozen=True)
class LeftOut:
    """File or folder that was seen and will not be upscaled."""

    path: Place
    name: str
    """Name in messages and results."""
    reason: str
    """Words that follow the name and a colon."""
    kind: str
    """Plural for all files with a reason of this kind, for a count."""
    expected: bool = False
    """Whether no user wonders about the reason, as with the results of earlier runs."""


def texts_of(inputs: object) -> list[str]:
    """Return the texts of one `Argument` or of several. Raises UsageError for anything else."""
    # A text would be read letter by letter.
    arguments = inputs if isinstance(inputs, Iterable) and not isinstance(inputs, (*PATHS, bytes)) else [inputs]
    texts = []
    for each in arguments:
        text = place_text(each) if isinstance(each, PATHS) else None
        if not isinstance(text, str):  # a path may be made of bytes
            raise UsageError(f"the input {reprlib.repr(each)} is no path", "give texts or paths of files and folders")
        texts.append(text)
    return texts


def path_key(path: Place) -> str:
    """Return an identifier of a path, equal for all spellings of the path.

    Links are resolved. Upper and lower case are equal where the system ignores case in file names.
    """
    return path.key if isinstance(path, RemotePlace) else local_key(path)


def folder_key(place: Place) -> str:
    """Return the key of a place as a folder: the folder keys of the folder and of all places inside begin with it."""
    # Keys of local paths have backslashes on Windows.
    separator = "/" if isinstance(place, RemotePlace) else os.sep
    return f"{path_key(place).rstrip(separator)}{separator}"


def check_link(path: Path) -> None:
    """Raise OSError for a link to a place that cannot be reached, such as a file on a drive that is not mounted."""
    if is_link(path):
        path.stat()


ResultOwner = Literal["free", "own", "other", "unknown"]
"""free: nothing is there; own: the result of the input; other: the result of another input; unknown: any other file."""

FileStatus = Literal["done", "skipped", "kept", "failed", "interrupted", "not-reached", "left-out"]


def reason_of_folder(path: Place, batch: BatchOptions) -> str | None:
    """Return why a folder inside a folder is not entered; None for a folder to enter."""
    if batch.output and path_key(path) == path_key(parse_place(batch.output)):
        return "the folder of results"
    if path.name.startswith("."):
        return "a hidden folder"
    if isinstance(path, Path) and is_link(path):
        return LINK_TO_FOLDER
    return None if batch.recursive else "a folder; -r includes subfolders"


def reason_of_empty(batch: BatchOptions) -> str:
    """Return why a folder without pictures is left out."""
    return "holds no pictures" if batch.recursive else "holds no pictures; -r includes subfolders"


def left_out_for(path: Place, name: str, reason: str, kind: str = "") -> LeftOut:
    """Return a file or folder that is left out, with the words for several of the same kind.

    Args:
        path: The file or folder.
        name: Name in messages.
        reason: Reason of `find_inputs`.
        kind: Plural for a reason that holds a name.
    """
    return LeftOut(path, name, reason, _KINDS.get(reason, kind), expected=reason in _EXPECTED)


@dataclass(frozen=True)
class StageSeconds:
    """Seconds of work, by stage, without the time spent waiting for another stage."""

    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0


class Stopwatch:
    """Seconds of work of a stage, without waiting. A single thread works; any thread may read the seconds meanwhile."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """Seconds up to the last switch; the number only grows."""
        self._started: float | None = None

    def switch(self, is_work: bool) -> bool:
        """Count the time from now on as work, or as waiting; return how the time before was counted."""
        before, now = self._started, perf_counter()
        if before is not None:
            self.seconds += now - before
        self._started = now if is_work else None
        return before is not None


@dataclass(frozen=True)
class FileResult:
    """Result for an input. Values of the network are None where no network ran."""

    input: str
    """Name of the input, as given by the user."""
    status: FileStatus
    """done; skipped: the result exists already, the picture is large enough, or another process or thread is upscaling
    the picture; kept: another file has the name of the result; failed: see `error`; interrupted: given up while being
    written; not-reached: the run ended before; left-out: no input of the run, `warnings` has the reason."""
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
    faithfulness: float | None = None
    """PSNR of luma in dB between the input and the result, reduced to the size of the input by MATLAB's bicubic; None
    where nothing was measured, and for floating-point pictures, whose values have no fixed range."""
    warnings: tuple[str, ...] = ()
    error: ErrorInfo | None = None
    attempts: int = 1
    """How often the picture was begun; more than 1 only on a cluster, after a lost worker or a refused write."""


def describe_error(error: Exception) -> ErrorInfo:
    """Return the `error` for the result of a picture, whatever the exception is."""
    if isinstance(error, DscloraError):
        return error.info
    if isinstance(error, MemoryError):
        hint = "close other programs, or write PNG, JPEG or TIFF, which are never in memory whole"
        return ErrorInfo(ErrorCode.OUT_OF_MEMORY, "there is not enough memory", hint)
    if isinstance(error, OSError) and not error.strerror:  # of a library that reads files
        return ErrorInfo(ErrorCode.IMAGE_UNUSABLE, escape_control(str(error)))
    return system_info(error, ErrorCode.IMAGE_UNUSABLE) or bug_info(error)


class UpscaleCallbacks(Callbacks):
    """Callbacks of `upscale_files`; results come from the iterator, not from a callback.

    All methods run in the thread iterating over the results.
    """

    def on_inputs(self, found: FoundInputs) -> None:
        """Receive the inputs before the first picture is opened; notes about inputs come through `on_note`.

        A watch and a run on a cluster call the method again with the inputs found since.
        """

    def on_listed(self, count: int, is_complete: bool) -> None:
        """Receive the number of inputs listed so far, where a run on a cluster upscales while listing."""

    def stop_requests(self) -> int:
        """Return the number of requests to stop so far; asked several times a second while the run waits.

        After the first request the run stops as after Ctrl-C; after the second the run gives up the pictures that wait
        for the encoder. Every result is reported. A KeyboardInterrupt that Python raises may come between the end of a
        picture and the result, or after a lock was taken.
        """
        return 0

    def on_start(self, file: InputFile) -> None:
        """Receive a picture just before the network starts on the picture."""

    def on_progress(self, file: InputFile, share: float) -> None:
        """Receive the share of a started picture, from 0 to 1, for which the network is done."""

    def on_bug(self, file: InputFile, error: Exception) -> None:
        """Receive an exception that nobody foresaw and that ended the work on a picture, before the result comes."""


def check_stop(callbacks: UpscaleCallbacks) -> None:
    """Raise KeyboardInterrupt where the callbacks request a stop."""
    if callbacks.stop_requests():
        raise KeyboardInterrupt
