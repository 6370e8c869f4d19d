"""What can go wrong, each with the exit code a script sees.

A message says what and where, the hint is the next step; the terminal shows both on one line.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line, documented in docs/exit-codes.md."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    WEIGHTS = 3
    INTERRUPTED = 130


class DscloraError(Exception):
    """Any failure that a user can act on."""

    exit_code: ExitCode = ExitCode.SOME_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """The message and its next step on one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ImageError(DscloraError):
    """A picture cannot be read, upscaled or written."""


class UsageError(DscloraError):
    """The command line, a config file or an argument asks for something that does not exist."""

    exit_code = ExitCode.USAGE


class WeightsError(DscloraError):
    """Weights are missing, unreachable, corrupt or not understood."""

    exit_code = ExitCode.WEIGHTS


class OutOfMemory(DscloraError):
    """A tile does not fit the device; the tiler halves it where it may, else this reaches the user."""
