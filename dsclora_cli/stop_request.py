"""Ctrl-C, SIGTERM and SIGHUP: as an exception that ends a command, or as a request.

Python raises KeyboardInterrupt between any two instructions: before a result that was taken is shown, or while a lock
is taken, which nobody then frees. So work that must not be cut in the middle looks for a request between two steps.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

# SIGHUP comes when the window of a terminal is closed, or the connection to another machine is lost. Windows has none.
_HANG_UP = getattr(signal, "SIGHUP", None)
_ENDING = (signal.SIGTERM,) if _HANG_UP is None else (signal.SIGTERM, _HANG_UP)
_AGAIN = 0.01  # seconds


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, by KeyboardInterrupt; during an import all wait for its end.

    An import that is cut cannot be begun again: NumPy refuses, and some modules take the exception for a missing
    package. A signal that still waits when the command ends raises KeyboardInterrupt there, so that none is lost.
    Python sets signal handlers in the main thread only; in other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in _ENDING if _is_heeded(number)]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        heeded.append(signal.SIGINT)
    previous = {number: signal.signal(number, _interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        waiting = [thread.withdraw() for thread in threading.enumerate() if isinstance(thread, _SendAgain)]
        if any(waiting):
            raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or during an import send the signal again a moment later."""
    if not _is_importing(frame):
        _survive_hang_up(number)
        raise KeyboardInterrupt
    _SendAgain(number).start()


class _SendAgain(threading.Timer):
    """Sends a signal once more, a moment later."""

    def __init__(self, number: int) -> None:
        super().__init__(_AGAIN, _send, [number])
        self.daemon = True

    def withdraw(self) -> bool:
        """Return whether the signal was still to be sent, and do not send it."""
        waits = not self.finished.is_set()
        self.cancel()
        return waits


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def _send(number: int) -> None:
    """Send a signal to the main thread, where it also ends a wait."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        signal.raise_signal(number)


def _survive_hang_up(number: int) -> None:
    """After SIGHUP, let the rest of the work end well without a terminal.

    The system and the shell each send a SIGHUP when a terminal is closed, so the second must do nothing. Every write
    to a closed terminal fails, so lines for the terminal are dropped.
    """
    if number != _HANG_UP:
        return
    signal.signal(number, signal.SIG_IGN)
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError as error:
            if error.errno == errno.EIO:
                _drop_lines(stream)


def _drop_lines(stream: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream)
    os.close(nothing)


class StopRequest:
    """Requests to stop, by SIGINT (Ctrl-C), SIGTERM or SIGHUP, counted inside the context.

    A signal that the process ignores stays ignored. Outside the main thread Python allows no signal handlers, so the
    count stays 0.
    """

    def __init__(self) -> None:
        self.count = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            heeded = filter(_is_heeded, (signal.SIGINT, *_ENDING))
            self._previous = {number: signal.signal(number, self._handle) for number in heeded}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # The rest of a command that was hung up must not be interrupted by the second SIGHUP.
            if signal.getsignal(number) != signal.SIG_IGN or handler is not _interrupt:
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Receive a signal. Python runs the handler in the main thread, between two instructions."""
        _survive_hang_up(number)
        self.count += 1
        self.on_request()

    def on_request(self) -> None:
        """Receive a signal that was counted, in the middle of whatever the main thread does."""


def _is_heeded(number: int) -> bool:
    """Return whether a signal has a handler that Python can put back, or the usual effect.

    A shell lets the background jobs of a script ignore Ctrl-C. A handler that is not from Python is None.
    """
    return signal.getsignal(number) not in (signal.SIG_IGN, None)
