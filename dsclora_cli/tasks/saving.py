"""A result becomes a file at once or not at all, and is recorded."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.picture import AnyFrame, Header
from dsclora_cli.imaging.writer import write_picture
from dsclora_cli.paths import written_whole
from dsclora_cli.tasks.records import Recipe, remember


def save_result(
    target: Path | None, header: Header, frames: Iterable[AnyFrame], options: SaveOptions, recipe: Recipe
) -> tuple[str, ...]:
    """Write a picture as `write_picture` does, to `target`, or to standard output for None.

    The file is written under a hidden name in the same folder and renamed, so no reader ever sees half a picture;
    whatever goes wrong, nothing else stays behind. Gives warnings. Raises ImageError.
    """
    if target is None:
        write_picture(sys.stdout.buffer, header, frames, options)
        sys.stdout.buffer.flush()
        return ()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{target.parent}: no such folder can be made ({error.strerror})") from error
    try:
        with written_whole(target) as temporary:
            try:
                write_picture(temporary, header, frames, options)
            except ImageError as error:
                # The user knows nothing of the hidden name.
                raise ImageError(error.message.replace(str(temporary), str(target)), error.hint) from error
            return _remember(target, temporary, recipe)
    except OSError as error:
        raise ImageError(f"{target}: cannot be written ({error.strerror or error})") from error


def _remember(target: Path, temporary: Path, recipe: Recipe) -> tuple[str, ...]:
    """Record before the rename: cut short in between, the record fits no file, and is as good as none."""
    try:
        remember(target, temporary, recipe)
    except OSError as error:
        return (f"not recorded, so the next run cannot skip it: {error}",)
    return ()
