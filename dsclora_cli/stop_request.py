"""Ctrl-C and SIGTERM as a request: work that must not be cut in the middle looks for the request between two steps.

Python otherwise raises KeyboardInterrupt between any two instructions: before a result that was taken is shown, or
while a lock is taken, which nobody then frees.
"""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
