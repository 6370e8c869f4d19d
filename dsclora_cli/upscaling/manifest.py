"""What was done, so that it is not done again: one small JSON file per result, in the user's state folder.

A result becomes a file at once or not at all, and is recorded.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError, ImageUnwritable
from dsclora_cli.imaging.types import AnyFrame, Header
from dsclora_cli.imaging.writer import write_picture
from dsclora_cli.paths import atomic_write, sha256_of, state_dir
from dsclora_cli.upscaling.types import path_key

_VERSION = 1

ResultState = Literal["missing", "complete", "different"]


@dataclass(frozen=True)
class ResultKey:
    """All that decides the pixels of a result: input and weights by their sha256, and every setting that matters."""

    input_sha256: str
    weights_sha256: str
    settings: Mapping[str, object]


def result_state(output: Path, recipe: ResultKey) -> ResultState:
    """Whether `output` is absent, is what `recipe` gave when it was written, or is anything else."""
    if not output.exists():
        return "missing"
    record = _read(output)
    return "complete" if record.get("recipe") == _plain(recipe) and _is_unchanged(output, record) else "different"


def is_recorded(path: Path) -> bool:
    """Whether this file is a result that an earlier run wrote, unchanged since."""
    return _is_unchanged(path, _read(path))


def record_result(output: Path, written: Path, recipe: ResultKey) -> None:
    """Record the result lying at `written`, about to be renamed to `output`. Raises OSError."""
    record = {
        "version": _VERSION,
        "output": str(output.resolve()),
        "bytes": written.stat().st_size,
        "sha256": sha256_of(written),
        "recipe": _plain(recipe),
    }
    place = _place(output)
    place.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(place) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")


def _place(output: Path) -> Path:
    return state_dir() / "results" / f"{hashlib.sha256(os.fsencode(path_key(output))).hexdigest()}.json"


def _read(output: Path) -> dict[str, Any]:
    """The record of `output`; empty where there is none that this version understands."""
    try:
        record = json.loads(_place(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("version") == _VERSION else {}


def _is_unchanged(output: Path, record: Mapping[str, Any]) -> bool:
    # The size first: it costs nothing, and tells most changed files without reading them.
    return output.stat().st_size == record.get("bytes") and sha256_of(output) == record.get("sha256")


def _plain(recipe: ResultKey) -> dict[str, object]:
    """As it comes back from JSON, where tuples are lists."""
    plain: dict[str, object] = json.loads(json.dumps(vars(recipe)))
    return plain


def save_result(
    target: Path | None, header: Header, frames: Iterable[AnyFrame], options: SaveOptions, recipe: ResultKey
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
        raise ImageUnwritable(f"{target.parent}: no such folder can be made ({error.strerror})") from error
    try:
        with atomic_write(target) as temporary:
            try:
                write_picture(temporary, header, frames, options)
            except ImageError as error:
                # The user knows nothing of the hidden name.
                raise type(error)(error.message.replace(str(temporary), str(target)), error.hint) from error
            return _remember(target, temporary, recipe)
    except OSError as error:
        raise ImageUnwritable(f"{target}: cannot be written ({error.strerror or error})") from error


def _remember(target: Path, temporary: Path, recipe: ResultKey) -> tuple[str, ...]:
    """Record before the rename: cut short in between, the record fits no file, and is as good as none."""
    try:
        record_result(target, temporary, recipe)
    except OSError as error:
        return (f"not recorded, so the next run cannot skip it: {error}",)
    return ()
