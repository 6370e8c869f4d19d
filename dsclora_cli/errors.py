"""Failures that a user can act on, with their exit codes and error codes.

    DscloraError                  failed
    ├── ImageError                image-unusable
    │   ├── SetUnavailable        set-unavailable
    │   ├── ImageUnreadable       image-unreadable
    │   └── ImageUnwritable       image-unwritable
    ├── OutputUnwritable          output-unwritable
    ├── UsageError                usage
    ├── WeightsError              weights-unusable
    ├── UploadFailed              upload-failed
    ├── OutOfMemory               out-of-memory
    └── Unforeseen                bug

    KeyboardInterrupt             interrupted
    any other exception           bug; `Upscaler` raises Unforeseen for a file that ended so

A message names problem and place; a hint names the next step. docs/exit-codes.md explains all codes to users. Three
subclasses stand where they are raised: `HubUnavailable` in hub_client.py, `AlreadyLargeEnough` in upscaling/sizes.py,
`NotFinite` in inference/engine.py.
"""

from __future__ import annotations

import copy
import errno
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, ClassVar, Self


class ExitCode(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    WEIGHTS = 3
    INTERRUPTED = 130


class ErrorCode(StrEnum):
    """Stable names of failures in the JSON output: scripts compare codes, never sentences."""

    FAILED = "failed"
    """A command cannot continue, for a reason that no other code names."""

    IMAGE_UNUSABLE = "image-unusable"
    """A picture, or a set of pictures, cannot be used as asked."""

    SET_UNAVAILABLE = "set-unavailable"
    """A benchmark set cannot be fetched, or the archive of the set cannot be unpacked."""

    IMAGE_UNREADABLE = "image-unreadable"
    """A picture file cannot be read: missing, damaged, too large, or of a format that is unknown or needs a package."""

    IMAGE_UNWRITABLE = "image-unwritable"
    """A result cannot be written: no permission, no space, no such folder."""

    OUTPUT_UNWRITABLE = "output-unwritable"
    """A file that is no upscaled picture cannot be written: a video, weights, a report, a model for other programs."""

    USAGE = "usage"
    """The command line, a configuration file or an argument is wrong."""

    WEIGHTS_UNUSABLE = "weights-unusable"
    """Weights are missing, unreachable, corrupt or not understood."""

    OUT_OF_MEMORY = "out-of-memory"
    """The smallest tile does not fit the memory of the device or the limit of `--max-memory`."""

    WORKER_LOST = "worker-lost"
    """On a cluster, every process that began a picture ended before the picture was finished."""

    UPLOAD_FAILED = "upload-failed"
    """The Hub takes no files: no internet, no token, no right to write, or a refusal."""

    INTERRUPTED = "interrupted"
    """Ctrl-C, SIGTERM or SIGHUP ended the command."""

    BUG = "bug"
    """An exception that nobody foresaw ended the command, or the work on a picture."""


@dataclass(frozen=True)
class ErrorInfo:
    """A failure in results and JSON output."""

    code: ErrorCode
    """Stable name of the kind of failure."""

    message: str
    """What went wrong and where, for people; the wording may change."""

    hint: str = ""
    """The next step, empty where there is none; the wording may change."""

    def __str__(self) -> str:
        """Return the message and the hint on one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


def is_debugging() -> bool:
    """Tell whether the user asked for tracebacks and for the remarks of libraries."""
    return os.environ.get("DSCLORA_DEBUG") == "1"


def bug_info(error: BaseException) -> ErrorInfo:
    """Return the description of an exception that nobody foresaw."""
    hint = "run again with DSCLORA_DEBUG=1 and report what it shows"
    return ErrorInfo(ErrorCode.BUG, f"this is a bug in dsclora: {class_and_line(error)}", hint)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's text; the name of the class where the exception has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip() if lines else type(error).__name__


def class_and_line(error: BaseException) -> str:
    """Return the name of an exception's class, and the first line of the text where the exception has a text."""
    name = type(error).__name__
    return f"{name}: {first_line(error)}" if str(error).strip() else name


_NO_THREAD = "can't start new thread"

_NEXT_STEPS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files: ulimit -f",
    errno.EMFILE: "raise the limit on open files: ulimit -n",
    errno.ENFILE: "close other programs",
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "check the path: it is a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EEXIST: "choose another name",
}
"""What helps against an error of the system, whatever the file is."""


def next_step(error: BaseException, instead: str = "") -> str:
    """Return what helps against an error of the system, for a hint; `instead` is another way, which comes last."""
    number = error.errno if isinstance(error, OSError) else None
    step = _NEXT_STEPS.get(number or 0, "check the path, its permissions and the free space")
    return f"{step}, or {instead}" if instead else step


def system_info(error: BaseException, code: ErrorCode) -> ErrorInfo | None:
    """Return the description of an error of the system, such as a name that is too long; None for other exceptions."""
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        hint = "end other programs, or raise the limit on processes: ulimit -u"
        return ErrorInfo(code, "the system starts no more threads", hint)
    if not isinstance(error, OSError) or not error.strerror:
        return None
    # str(error) would begin with a number.
    message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return ErrorInfo(code, escape_control(message), next_step(error))


def list_some(names: Sequence[str], most: int = 5) -> str:
    """Return the first `most` names with commas between, and the number of the others, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def escape_control(text: str) -> str:
    """Return a text that is safe on a terminal: control characters, line ends and marks of direction as escapes.

    Names of files may hold any of them: an escape sequence would change the terminal, a line end would forge a line.
    """
    return "".join(sign if _is_shown(sign) else sign.encode("unicode_escape").decode() for sign in text)


def _is_shown(sign: str) -> bool:
    # Joiners are part of emoji and of words in several scripts; other signs of format turn the direction of the text.
    return sign.isprintable() or sign in "\u200c\u200d" or unicodedata.category(sign) == "Zs"


def _unpickled(kind: type[DscloraError], arguments: tuple[Any, ...]) -> DscloraError:
    error = kind.__new__(kind)
    error.args = arguments
    return error


class DscloraError(Exception):
    """Any failure that a user can act on."""

    exit_code: ClassVar[ExitCode] = ExitCode.SOME_FAILED
    code: ClassVar[ErrorCode] = ErrorCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        # Messages quote names of files, and texts of servers and libraries.
        self.message, self.hint = escape_control(message), escape_control(hint)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the attributes: subclasses take other arguments, and workers of a cluster send errors."""
        return _unpickled, (type(self), self.args), self.__dict__

    def reworded(self, message: str | None = None, hint: str | None = None) -> Self:
        """Return a copy of the error with another message, another hint or both; None keeps the text.

        The copy has the class and all other attributes of the error, and neither traceback nor cause.
        """
        # `type(self)(message, hint)` would fail: subclasses take other arguments.
        error = copy.copy(self)
        if message is not None:
            error.message = escape_control(message)
            error.args = (error.message,)
        if hint is not None:
            error.hint = escape_control(hint)
        return error

    @property
    def info(self) -> ErrorInfo:
        """Return code, message and hint in plain data."""
        return ErrorInfo(self.code, self.message, self.hint)

    def __str__(self) -> str:
        """Return the message and the hint on one line."""
        return str(self.info)


class ImageError(DscloraError):
    """A picture cannot be read, upscaled or written."""

    code = ErrorCode.IMAGE_UNUSABLE


class SetUnavailable(ImageError):
    """A benchmark set cannot be fetched, or the archive of the set cannot be unpacked."""

    code = ErrorCode.SET_UNAVAILABLE


class ImageUnreadable(ImageError):
    """A picture file cannot be read: missing, damaged, too large, or of a format that is unknown or needs a package."""

    code = ErrorCode.IMAGE_UNREADABLE


class ImageUnwritable(ImageError):
    """A result cannot be written: no permission, no space, no such folder."""

    code = ErrorCode.IMAGE_UNWRITABLE


class OutputUnwritable(DscloraError):
    """A file that is no upscaled picture cannot be written: a video, weights, a report, a model for other programs."""

    code = ErrorCode.OUTPUT_UNWRITABLE


class UsageError(DscloraError):
    """The command line, a configuration file or an argument asks for something impossible or absent."""

    exit_code = ExitCode.USAGE
    code = ErrorCode.USAGE


class WeightsError(DscloraError):
    """Weights are missing, unreachable, corrupt or not understood."""

    exit_code = ExitCode.WEIGHTS
    code = ErrorCode.WEIGHTS_UNUSABLE

    def __init__(self, message: str, hint: str = "", instead: str = "") -> None:
        super().__init__(message, ", or ".join(filter(None, (hint, instead))))
        self._instead = escape_control(instead)

    @property
    def step(self) -> ErrorInfo:
        """Return the failure for a command that has no other way to name weights: the hint leaves `instead` out."""
        hint = self.hint.removesuffix(self._instead).removesuffix(", or ")
        return ErrorInfo(self.code, self.message, hint)


class UploadFailed(DscloraError):
    """The Hub takes no files: no internet, no token, no right to write, or a refusal."""

    code = ErrorCode.UPLOAD_FAILED


class OutOfMemory(DscloraError):
    """A tile does not fit the memory of the device.

    Tiling halves the tile where the user has not fixed the size; elsewhere the error reaches the user.
    """

    code = ErrorCode.OUT_OF_MEMORY


class Unforeseen(DscloraError):
    """An exception that nobody foresaw ended the work on a picture; `__cause__` is the exception."""

    code = ErrorCode.BUG


_WITH_A_CODE = (
    *(ImageError, SetUnavailable, ImageUnreadable, ImageUnwritable, OutputUnwritable),
    *(UsageError, WeightsError, UploadFailed, OutOfMemory, Unforeseen),
)


def error_of(info: ErrorInfo) -> DscloraError:
    """Return the exception for a failure in a result, of the class that the code belongs to."""
    kind = next((each for each in _WITH_A_CODE if each.code is info.code), DscloraError)
    return kind(info.message, info.hint)
