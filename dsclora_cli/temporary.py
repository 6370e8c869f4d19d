"""Folders for temporary files."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsclora_cli.errors import DscloraError, next_step


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder inside the system's folder for temporary files; it is removed at the end.

    Raises DscloraError where no such folder can be made, or where the files of the caller do not fit into it.
    """
    instead = "set TMPDIR to a folder that can be written"
    try:
        folder = tempfile.TemporaryDirectory(prefix="dsclora-", ignore_cleanup_errors=True)
    except OSError as error:
        message = f"there is no folder for temporary files: {error.strerror}"
        raise DscloraError(message, next_step(error, instead)) from error
    with folder as name:
        try:
            yield Path(name)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            message = f"temporary files in {Path(name).parent}: {error.strerror}"
            raise DscloraError(message, next_step(error, instead)) from error
