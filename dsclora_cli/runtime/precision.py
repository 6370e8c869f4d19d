"""What float32 means on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, CUDA convolutions in float32 keep all 23 bits of mantissa: by default torch lets TF32 drop 13 of them."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


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
