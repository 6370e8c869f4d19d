"""Entry point of `python -m dsclora_cli` and of the console script `dsclora`."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress


def run() -> None:
    """Run the command line and exit with its code."""
    from dsclora_cli.cli.app import main

    _leave(main())


def _leave(code: int) -> None:
    """Exit at once, without destroying every object of torch, which would take half a second."""
    # os._exit skips what a normal exit does, so exit handlers and buffers come first.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader has closed the pipe
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
