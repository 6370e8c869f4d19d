"""What float32 means on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class _FullFloat32:
    """Holds the switch, which is one for all threads, for as long as anyone is inside."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before = True

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.backends.cudnn.allow_tf32 = self._before


_FULL = _FullFloat32()


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, CUDA convolutions in float32 keep all 23 bits of mantissa: by default torch lets TF32 drop 13 of them."""
    _FULL.enter()
    try:
        yield
    finally:
        _FULL.leave()


@contextmanager
def no_subnormals() -> Iterator[None]:
    """Inside, float32 below 1e-38 on this thread's CPU, and on threads it starts, is zero.

    Such numbers come of SiLU's tails once a network is trained for a while, and convolutions over them are up to ten
    times slower.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
