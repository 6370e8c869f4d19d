"""What every decoder answers: a header at once, pixels when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dsclora_cli.imaging.picture import AnyFrame, Header


@dataclass(frozen=True)
class Opened:
    """An open picture file as it is stored: EXIF orientation is still to be applied.

    `frames` decodes, one frame at a time, `(H, W, header.channels)` of `header.dtype`; those that come in bands are
    upright.
    """

    header: Header
    frames: Callable[[], Iterator[AnyFrame]]
