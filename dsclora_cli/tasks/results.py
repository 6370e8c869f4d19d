"""What a run says about each picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FileStatus = Literal["done", "skipped", "kept", "failed", "interrupted"]


@dataclass(frozen=True)
class StageSeconds:
    """Seconds of work in each stage, waiting for another stage left out."""

    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0


@dataclass(frozen=True)
class FileResult:
    """What became of one input.

    `status`: done; skipped, as the result is already there or the picture is large enough; kept, as another file has
    the result's name; failed, with `error` and the next step in `hint`; interrupted. `output` is the file that is now
    there, "-" for standard output, None for no file. Sizes are (width, height) in pixels. `scale` is the factor of the
    sides. `choice` is what about the picture made `auto` take the model. `tile` is the edge of a tile in input pixels,
    0 for the whole picture. What is not known, as no network ran, is None.
    """

    input: str
    status: FileStatus
    output: str | None = None
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None
    frames: int = 1
    scale: float | None = None
    model: str | None = None
    choice: str | None = None
    weights_sha256: str | None = None
    device: str | None = None
    dtype: str | None = None
    engine: str | None = None
    tile: int | None = None
    seconds: StageSeconds = StageSeconds()
    warnings: tuple[str, ...] = ()
    error: str | None = None
    hint: str = ""
