"""Entry point of `python -m dsclora_cli` and of the console script `dsclora`."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import warnings
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType

_INTERRUPTED = 130  # the exit code of `errors.ExitCode`, which is not imported yet


def run() -> None:
    """Run the command line and exit with its code."""
    # Ctrl-C would show a traceback of the imports. Nothing is half-done yet, so the process just ends.
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handled:
        signal.signal(signal.SIGINT, _end_unbegun)
    # `main` has handlers of its own while a command runs. Before and after, the signals end with the same exit code.
    ending = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}  # Windows has no SIGHUP
    ending = {number for number in ending if signal.getsignal(number) is signal.SIG_DFL}
    for number in ending:
        signal.signal(number, _end_unbegun)
    _mend_streams()
    from dsclora_cli.errors import is_debugging

    if not is_debugging():
        _silence_libraries()
    from dsclora_cli.cli.app import main

    for number in ending:
        signal.signal(number, _end_at_once)
    try:
        if handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main()
        if handled:
            signal.signal(signal.SIGINT, _end_at_once)
    except KeyboardInterrupt:  # the second Ctrl-C, or Ctrl-C in the instant before `main` begins or after it ends
        signal.signal(signal.SIGINT, _end_at_once)
        code = _INTERRUPTED
    _leave(code)


def _end_unbegun(number: int, frame: FrameType | None) -> None:
    """End the process with a line: no command has begun."""
    if sys.stderr is not None:  # a file may have the number of a closed stderr
        with suppress(OSError):
            os.write(2, b"interrupted: nothing was done yet\n")
    _end_at_once(number, frame)


def _end_at_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    os._exit(_INTERRUPTED)


def _silence_libraries() -> None:
    """Keep remarks of libraries off stderr: users read sentences of this program, and can do nothing about the others.

    The settings of Python and of the libraries let the remarks through.
    """
    import logging  # slow, and Ctrl-C shows a traceback until `run` has begun

    # Read by the C++ part of torch and by OpenMP when they are loaded.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("KMP_WARNINGS", "0")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    # Also for loggers that do not exist yet, such as those of torch.compile.
    logging.disable(logging.WARNING)


def _mend_streams() -> None:
    """Give the process all three standard streams, and let stdout and stderr take any text.

    A shell can close a stream with `>&-`: Python then has None for the stream, and the next file that is opened gets
    the number of the stream.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # A descriptor may be open although Python has no stream, for example for writing only.
            with suppress(OSError):
                os.close(number)
            mode = os.O_RDONLY if number == 0 else os.O_WRONLY
            if os.open(os.devnull, mode) != number:
                continue
            opened = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, opened)
    for stream in (sys.stdout, sys.stderr):
        # A name can hold letters that the encoding lacks, or bytes that are no text.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _leave(code: int) -> None:
    """Exit at once, without destroying every object of torch, which would take half a second."""
    # os._exit skips what a normal exit does, so exit handlers and buffers come first.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the reader has closed the pipe, or the disk is full
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
