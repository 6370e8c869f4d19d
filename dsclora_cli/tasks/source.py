"""One input of a run, and what makes two paths the same file."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from dsclora_cli.errors import ImageError

STDIN = "-"


@dataclass(frozen=True)
class Input:
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
class Found:
    """The inputs of a run in order, whether results need a folder, and sentences for the user."""

    inputs: tuple[Input, ...]
    many: bool
    notes: tuple[str, ...] = ()


def path_key(path: Path) -> str:
    """Equal for two spellings of one path, links resolved, also where upper and lower case are one."""
    key = os.path.normcase(path.resolve())
    return key.casefold() if sys.platform == "darwin" else key
