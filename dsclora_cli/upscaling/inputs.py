"""Which pictures a run is about: files, folders, globs, lists and standard input, each once and in a steady order."""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import ImageUnreadable, UsageError
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.upscaling.manifest import is_recorded
from dsclora_cli.upscaling.output_names import check_template, possible_stems
from dsclora_cli.upscaling.types import STDIN, FoundInputs, InputFile, path_key


def find_inputs(arguments: Iterable[str | os.PathLike[str]], batch: BatchOptions) -> FoundInputs:
    """Expand what the user named. Reads standard input for `-`; see docs/files.md for what counts as a picture.

    A file that does not exist is an InputFile with a `problem`. Raises UsageError for a list that cannot be read,
    and for a template of names as `check_template` does.
    """
    check_template(batch.name)
    notes: list[str] = []
    unique: dict[str, InputFile] = {}
    for argument in arguments:
        for found in _expand(os.fspath(argument), batch, notes.append):
            unique.setdefault(found.key, found)
    inputs = _without_earlier_results(tuple(unique.values()), batch.name)
    kept = {found.key for found in inputs}
    left_out = [found.name for found in unique.values() if found.key not in kept and found.folder is None]
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        notes.append(f"left out as the result of another input: {left_out[0]}{more}")
    return FoundInputs(inputs, len(inputs) > 1 or any(found.folder is not None for found in inputs), tuple(notes))


def _expand(argument: str, batch: BatchOptions, note: Callable[[str], None]) -> Iterator[InputFile]:
    if argument == STDIN:
        yield InputFile(sys.stdin.buffer.read(), STDIN)
    elif argument.startswith("@") and not os.path.lexists(argument):
        for line in _read_list(Path(argument[1:])):
            yield from _expand_path(line, batch, note)
    else:
        yield from _expand_path(argument, batch, note)


def _expand_path(argument: str, batch: BatchOptions, note: Callable[[str], None]) -> Iterator[InputFile]:
    path = Path(argument)
    if path.is_dir():
        pictures = list(_walk(path, batch))
        yield from pictures
        if not pictures:
            note(f"{argument} holds no pictures" + ("" if batch.recursive else "; -r looks into its folders too"))
    elif any(sign in argument for sign in "*?[") and not path.exists():
        # Path.glob takes no absolute pattern.
        matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]  # noqa: PTH207
        if not matches:
            yield InputFile(path, argument, problem=ImageUnreadable(f"no file matches {argument}"))
        for match in matches:
            if match.is_dir():
                yield from _walk(match, batch)
            elif is_picture_name(match):
                yield InputFile(match, str(match))
    elif path.exists():
        yield InputFile(path, argument)
    else:
        yield InputFile(path, argument, problem=ImageUnreadable(f"{argument} does not exist"))


def _walk(top: Path, batch: BatchOptions) -> Iterator[InputFile]:
    """Pictures of a folder, and with `recursive` of the folders in it; links to folders are not followed."""
    unreadable: list[OSError] = []
    output = path_key(Path(batch.output)) if batch.output else ""
    for folder, below, names in os.walk(top, onerror=unreadable.append):
        here = Path(folder)
        keep = (name for name in sorted(below) if batch.recursive and not name.startswith("."))
        below[:] = [name for name in keep if path_key(here / name) != output]
        for name in sorted(names):
            path = here / name
            if not name.startswith(".") and is_picture_name(path) and path.is_file():
                yield InputFile(path, str(path), here.relative_to(top))
    for error in unreadable:
        problem = ImageUnreadable(f"{error.filename} cannot be listed: {error.strerror}")
        yield InputFile(Path(error.filename), str(error.filename), Path(), problem)


def _read_list(path: Path) -> list[str]:
    """One path a line, relative to the current folder as everywhere else; UTF-8, or UTF-16 with its mark."""
    try:
        data = path.read_bytes()
        encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        lines = data.decode(encoding).splitlines()
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the list {path} is not text", "save it as UTF-8, one path a line") from error
    return [line.strip() for line in lines if line.strip()]


def _without_earlier_results(inputs: tuple[InputFile, ...], template: str) -> tuple[InputFile, ...]:
    """Leave out what a run has written: by its record, and by the name that another input's result would have."""
    stems = {(_folder_key(found), found.stem) for found in inputs}

    def is_result(found: InputFile) -> bool:
        if not isinstance(found.source, Path) or found.problem:
            return False
        if found.folder is not None and is_recorded(found.source):
            return True
        return any((_folder_key(found), stem) in stems for stem in possible_stems(template, found.source.name))

    return tuple(found for found in inputs if not is_result(found))


def _folder_key(found: InputFile) -> str:
    return path_key(found.source.parent) if isinstance(found.source, Path) else ""
