"""What decoders say on standard error: caught, so that no user reads lines of libraries without a file's name.

Python warnings of Pillow and NumPy are dropped inside `silent`: what matters becomes an error or a note. libtiff, which
mends and complains, writes to the file descriptor; `collect_complaints` returns the lines.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO

_LIBRARY_LINE = re.compile(rb"(?!note|warning|error|failed|skipped)[A-Za-z_][\w. ]*: ")
_ABOUT_METADATA = re.compile(rb"TIFFFetch|TIFFReadDirectory|TIFFReadCustomDirectory|\S+: Warning")
_DESCRIPTOR = threading.Lock()
_shown_before = warnings.showwarning


class ThreadFlag(threading.local):
    """Flag that each thread raises for itself: some settings of libraries are one variable for all threads."""

    is_up = False

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise the flag of this thread inside the context."""
        before, self.is_up = self.is_up, True
        try:
            yield
        finally:
            self.is_up = before


_silence = ThreadFlag()


@contextmanager
def silent() -> Iterator[None]:
    """Drop Python warnings of this thread; `warnings.catch_warnings` would drop the warnings of other threads too."""
    global _shown_before
    # Whoever replaced the function since the last time is asked for warnings of other threads.
    if warnings.showwarning is not _show:
        _shown_before, warnings.showwarning = warnings.showwarning, _show
    with _silence.raised():
        yield


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if not _silence.is_up:
        _shown_before(message, category, filename, lineno, file, line)


@contextmanager
def collect_complaints() -> Iterator[list[str]]:
    """Yield a list that holds, after the block, the lines of libtiff about damaged pixels.

    Lines of other threads reach standard error after the block. Only one thread at a time can be inside.
    """
    complaints: list[str] = []
    with _DESCRIPTOR, ExitStack() as opened:
        try:
            store = opened.enter_context(tempfile.TemporaryFile())
            before = os.dup(2)
        except OSError:  # no folder for temporary files, or standard error is closed
            yield complaints
            return
        try:
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.flush()
            os.dup2(store.fileno(), 2)
            try:
                yield complaints
            finally:
                os.dup2(before, 2)
                store.seek(0)
                for line in store.read().splitlines(keepends=True):
                    if not _LIBRARY_LINE.match(line):
                        os.write(2, line)
                    elif not _ABOUT_METADATA.match(line):
                        complaints.append(line.decode("utf-8", "replace").strip())
        finally:
            os.close(before)
