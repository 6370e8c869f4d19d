"""`python -m dsclora_cli`, and the console script `dsclora`."""

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
    """Exit at once: taking torch apart object by object would be half a second that nobody gains by."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a pipe that its reader has closed
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
