"""One input of a run, and what makes two paths the same file.

What a run says about each picture.

How a batch tells what it does.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsclora_cli.errors import ErrorInfo, ImageError

if TYPE_CHECKING:
    from dsclora_cli.upscaling.jobs import Job

STDIN = "-"


@dataclass(frozen=True)
class InputFile:
    """One picture to upscale, or the reason why it is none.

    `source` is a file or the bytes of one. `name` is what reports call it. `folder` is its place in the tree of the
    folder that was named, kept under an output folder; None for a file that was named itself.
    """

    source: Path | bytes
    name: str
    folder: Path | None = None
    problem: ImageError | None = None

    @property
    def stem(self) -> str:
        """What `{stem}` stands for."""
        return self.source.stem if isinstance(self.source, Path) else "stdin"

    @property
    def key(self) -> str:
        """Equal for two inputs that are the same file."""
        return path_key(self.source) if isinstance(self.source, Path) else STDIN


@dataclass(frozen=True)
class FoundInputs:
    """The inputs of a run in order, whether results need a folder, and sentences for the user."""

    inputs: tuple[InputFile, ...]
    many: bool
    notes: tuple[str, ...] = ()


def path_key(path: Path) -> str:
    """Equal for two spellings of one path, links resolved, also where upper and lower case are one."""
    key = os.path.normcase(path.resolve())
    return key.casefold() if sys.platform == "darwin" else key


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
    the result's name; failed, with an `error`; interrupted. `output` is the file that is now
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
    error: ErrorInfo | None = None


class Observer:
    """Hears how a batch goes, in the thread that iterates over it; override what is of interest."""

    def on_found(self, found: FoundInputs) -> None:
        """The inputs are known; its notes come as `on_note`."""

    def on_note(self, note: str) -> None:
        """A sentence about the whole run, said once."""

    def on_start(self, job: Job) -> None:
        """The network starts on a picture."""

    def on_progress(self, job: Job, share: float) -> None:
        """So much of a picture that was started, 0 to 1, has been through the network."""

    def on_done(self, result: FileResult) -> None:
        """A picture is finished, one way or another; called before the result is yielded."""
