"""Ctrl-C and SIGTERM during a run: asked for, and obeyed between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stoppable(on_ask: Callable[[], None]) -> Iterator[threading.Event]:
    """SIGINT and SIGTERM set an event instead of raising, so that a step is never cut; the second one raises.

    The first calls `on_ask`, from another thread: a signal may come while the one it interrupts is writing.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(_: int, __: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        threading.Thread(target=on_ask).start()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
