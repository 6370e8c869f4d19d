"""Expand arguments into a list of pictures, without duplicates: files, folders, globs, lists, standard input."""

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
    """Expand arguments into inputs, in a steady order, by the rules of docs/files.md.

    Standard input is read for `-`. A missing file becomes an InputFile with a `problem`.

    Raises:
        UsageError: a list cannot be read, or `check_template` refuses the name template.
    """
    check_template(batch.name)
    notes: list[str] = []
    unique: dict[str, InputFile] = {}
    for argument in (os.fspath(each) for each in arguments):
        if argument == STDIN:
            unique.setdefault(STDIN, InputFile(sys.stdin.buffer.read(), STDIN))
            continue
        # A file whose name begins with @ is a picture, not a list.
        is_list = argument.startswith("@") and not os.path.lexists(argument)
        for path in _read_list(Path(argument[1:])) if is_list else [argument]:
            for file in _expand(path, batch, notes.append):
                unique.setdefault(file.key, file)
    files = tuple(unique.values())
    stems = {(path_key(file.source.parent), file.stem) for file in files if isinstance(file.source, Path)}
    inputs = tuple(file for file in files if not _is_result(file, batch.name, stems))
    kept = {file.key for file in inputs}
    # Only for files that the user named: in folders, earlier results are expected.
    left_out = [file.name for file in files if file.key not in kept and file.folder is None]
    if left_out:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        notes.append(f"left out as the result of another input: {left_out[0]}{more}")
    return FoundInputs(inputs, len(inputs) > 1 or any(file.folder is not None for file in inputs), tuple(notes))


def _expand(argument: str, batch: BatchOptions, on_note: Callable[[str], None]) -> Iterator[InputFile]:
    """Yield the pictures of a file, a folder or a glob."""
    path = Path(argument)
    if path.is_dir():
        pictures = list(_walk(path, batch))
        yield from pictures
        if not pictures:
            on_note(f"{argument} holds no pictures" + ("" if batch.recursive else "; -r includes subfolders"))
    # A file that really has brackets in its name is no glob.
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
    """Yield the pictures of a folder and, with `recursive`, of the folders inside.

    Hidden files, hidden folders and the output folder are left out.
    """
    unreadable: list[OSError] = []
    output = path_key(Path(batch.output)) if batch.output else ""
    # Links to folders are not followed: a link to a folder above would never end.
    for folder, below, names in os.walk(top, onerror=unreadable.append):
        here = Path(folder)
        keep = (name for name in sorted(below) if batch.recursive and not name.startswith("."))
        # Changed in place: os.walk enters only the folders that remain in the list.
        below[:] = [name for name in keep if path_key(here / name) != output]
        for name in sorted(names):
            path = here / name
            if not name.startswith(".") and is_picture_name(path) and path.is_file():
                yield InputFile(path, str(path), here.relative_to(top))
    for error in unreadable:
        problem = ImageUnreadable(f"{error.filename} cannot be listed: {error.strerror}")
        yield InputFile(Path(error.filename), str(error.filename), Path(), problem)


def _read_list(path: Path) -> list[str]:
    """Return the paths in a list: one path a line, in UTF-8, or in UTF-16 with a byte order mark."""
    try:
        data = path.read_bytes()
        encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        lines = data.decode(encoding).splitlines()
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the list {path} is not text", "save the list as UTF-8, one path a line") from error
    return [line.strip() for line in lines if line.strip()]


def _is_result(file: InputFile, template: str, stems: set[tuple[str, str]]) -> bool:
    """Return whether a file is the result of another input: by a record, or by the name template.

    `stems` holds folder and stem of all inputs.
    """
    if not isinstance(file.source, Path) or file.problem:
        return False
    # A recorded result that the user names is upscaled again; the record counts in folders only.
    if file.folder is not None and is_recorded(file.source):
        return True
    folder = path_key(file.source.parent)
    return any((folder, stem) in stems for stem in possible_stems(template, file.source.name))
