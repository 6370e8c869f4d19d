"""Ctrl-C and SIGTERM: as an exception that ends a command, or as a request.

Python raises KeyboardInterrupt between any two instructions: before a result that was taken is shown, or while a lock
is taken, which nobody then frees. So work that must not be cut in the middle looks for a request between two steps.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


_AGAIN = 0.05  # seconds


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, by KeyboardInterrupt; during an import both wait for its end.

    An import that is cut cannot be begun again: NumPy refuses, and some modules take the exception for a missing
    package. Python sets signal handlers in the main thread only; in other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        previous[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or during an import send the signal again a moment later."""
    if not _is_importing(frame):
        raise KeyboardInterrupt
    again = threading.Timer(_AGAIN, _send, [number])
    again.daemon = True
    again.start()


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


class StopRequest:
    """Requests to stop, by SIGINT (Ctrl-C) or SIGTERM, counted inside the context.

    A signal that the process ignores stays ignored. Outside the main thread Python allows no signal handlers, so the
    count stays 0.
    """

    def __init__(self) -> None:
        self.count = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in filter(_is_heeded, _SIGNALS)}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, *_: object) -> None:
        """Receive a signal. Python runs the handler in the main thread, between two instructions."""
        self.count += 1
        self.on_request()

    def on_request(self) -> None:
        """Receive a signal that was counted, in the middle of whatever the main thread does."""


def _is_heeded(number: int) -> bool:
    """Return whether a signal has a handler that Python can put back, or the usual effect.

    A shell lets the background jobs of a script ignore Ctrl-C. A handler that is not from Python is None.
    """
    return signal.getsignal(number) not in (signal.SIG_IGN, None)
