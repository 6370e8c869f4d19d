"""Expand arguments into a list of pictures, without duplicates: files, folders, globs, URLs, lists, standard input.

Every file that is seen becomes an input, or is left out with a reason.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from dsclora_cli.config import BatchOptions, ReadOptions
from dsclora_cli.errors import ImageUnreadable, UsageError
from dsclora_cli.globs import Glob, has_wildcards, is_glob
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.imaging.reader import PictureReader, open_picture
from dsclora_cli.paths import MOST_TEXT, is_file, is_folder, is_link, named_chunks, read_pipe
from dsclora_cli.storage.places import Place, RemotePlace, is_url, parse_place
from dsclora_cli.upscaling.manifest import is_recorded
from dsclora_cli.upscaling.output_names import STDOUT, check_template, possible_stems
from dsclora_cli.upscaling.shards import keep_shard
from dsclora_cli.upscaling.types import (
    LINK_TO_FOLDER,
    RESULT,
    STDIN,
    SYSTEM_FILE,
    Argument,
    FoundInputs,
    InputFile,
    LeftOut,
    left_out_for,
    path_key,
    reason_of_empty,
    reason_of_folder,
    texts_of,
)

_PIPE_LIMIT = 2**30
"""Most bytes of a picture from a pipe or from standard input."""

_HIDDEN_ON_WINDOWS = ("thumbs.db", "desktop.ini")
_SECOND_NAMES = "second names of inputs"
_BY_NAME = "results by their names"


def find_inputs(arguments: Argument | Iterable[Argument], batch: BatchOptions) -> FoundInputs:
    """Expand arguments into inputs, in a steady order, by the rules of docs/files.md.

    Standard input is read for `-`, and a named pipe is read. A missing file becomes an InputFile with a `problem`.

    Raises:
        UsageError: an argument is empty or no path, a list cannot be read, or `check_template` or `keep_shard` refuses
            the name template.
    """
    check_template(batch.name)
    found = _Found(batch)
    for argument in texts_of(arguments):
        if not argument:
            raise UsageError("an input is empty", "give a file or a folder; the folder of the terminal is .")
        if argument == STDIN:
            found.add(_read_stdin())
            continue
        for path in expand_list(argument):
            found.add_all(path)
    return keep_shard(found.sorted_out(), batch)


def expand_list(argument: str, limit: float = MOST_TEXT) -> Iterator[str]:
    """Yield the paths in a list such as `@list.txt`, local or at a URL, while the list is read; else the argument.

    Raises UsageError for a list that cannot be read, or that has more than `limit` bytes; `inf` is no limit.
    """
    # A file whose name begins with @ is a picture, not a list.
    if not argument.startswith("@") or os.path.lexists(argument):
        yield argument
        return
    place = parse_place(argument[1:])
    try:
        for line in _lines(_list_chunks(place, limit)):
            if line.strip():
                yield line.strip()
    except OSError as error:
        raise UsageError(f"the list {place} cannot be read: {error.strerror}", "check the path") from error
    except ImageUnreadable as error:
        raise UsageError(f"the list cannot be read: {error.message}", error.hint) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the list {place} is not text", "save the list as UTF-8, one path a line") from error


def _list_chunks(place: Place, limit: float) -> Iterator[bytes]:
    """Yield the bytes of a list, a part at a time. Raises OSError and ImageUnreadable."""
    if isinstance(place, Path):
        yield from named_chunks(place, limit)
        return
    from dsclora_cli.storage.objects import local_copy, require_object

    facts = require_object(place)
    if facts.size is not None and facts.size > limit:
        raise OSError(errno.EFBIG, f"larger than {int(limit) >> 20} MiB")
    with local_copy(facts) as copy:
        yield from [copy] if isinstance(copy, bytes) else named_chunks(copy, limit)


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of a text in UTF-8, or in UTF-16 with a byte order mark. Raises UnicodeDecodeError."""
    start = next(chunks, b"")
    is_utf16 = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    coding = codecs.getincrementaldecoder("utf-16" if is_utf16 else "utf-8-sig")()
    # Lines end with LF, CR or both; other characters that end lines for Python may be part of a file name.
    decoder = io.IncrementalNewlineDecoder(coding, translate=True)
    rest = ""
    for chunk in chain([start], chunks):
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from lines
    yield rest + decoder.decode(b"", final=True)


def open_input(
    file: InputFile, options: ReadOptions, in_bands: bool, opened: ExitStack
) -> tuple[InputFile, PictureReader]:
    """Open the picture of an input; a picture at a URL is copied to this machine first. Raises as `open_picture` does.

    Args:
        file: The input.
        options: Limits.
        in_bands: As for `open_picture`.
        opened: Closes the reader, and removes the copy.

    Returns:
        The input, with the copy as `content` for a picture at a URL, and a reader with the header.
    """
    if not isinstance(file.source, RemotePlace):
        return file, opened.enter_context(open_picture(file.source, options, in_bands=in_bands))
    from dsclora_cli.storage.objects import local_copy, require_object

    facts = require_object(file.source)
    content = opened.enter_context(local_copy(facts))
    reader = open_picture(content, options, in_bands=in_bands, name=str(file.source))
    return replace(file, content=content, version=facts.version), opened.enter_context(reader)


class ListedInput(NamedTuple):
    """File of a listing that nobody has opened yet; small, because millions travel between machines."""

    path: str
    """Absolute path, or a URL."""
    name: str
    """Name in messages and results."""
    folder: str | None
    """Place in the tree of a folder argument; None for a file that the user named, or that a glob matches."""
    is_named: bool
    """Whether the user named the file; a file that only was seen may be left out."""
    has_record: bool = False
    """Whether a record lies next to the object, which may be the result of an earlier run; False for local files."""


def find_listed(files: Iterable[ListedInput], batch: BatchOptions) -> FoundInputs:
    """Return files of a listing as inputs, by the rules of `find_inputs`; `many` is True."""
    found = _Found(batch)
    for file in files:
        place = parse_place(file.path)
        if file.has_record and isinstance(place, RemotePlace):
            found.recorded.add(place.key)
        if file.is_named:
            found.add_named(place, file.name)
        else:
            found.add_seen(place, None if file.folder is None else Path(file.folder), file.name)
    return replace(found.sorted_out(), many=True)


def unlisted_problem(folder: object, error: OSError) -> ImageUnreadable:
    """Return the error for a folder that cannot be listed."""
    return ImageUnreadable(f"{folder} cannot be listed: {error.strerror}", "check the permissions")


class _Found:
    """The files seen so far."""

    def __init__(self, batch: BatchOptions) -> None:
        self._batch = batch
        self._files: dict[str, InputFile] = {}
        self._left_out: dict[str, LeftOut] = {}
        self.recorded: set[str] = set()
        """Keys of the objects with a record, in the folders seen so far."""

    def add(self, file: InputFile) -> None:
        """Take a file, unless the same file was taken before."""
        before = self._files.setdefault(file.key, file)
        # Another spelling of a path is the same name; the name of a link is another name.
        known = before.source
        if isinstance(file.source, bytes) or isinstance(known, bytes):
            return
        if _absolute(file.source) != _absolute(known):
            self._leave_out(file.source, file.name, f"the same file as {before.name}", _SECOND_NAMES)

    def add_all(self, argument: str) -> None:
        """Take the pictures of a file, a folder, a glob or a URL."""
        path = parse_place(argument)
        if isinstance(path, RemotePlace):
            self._add_url(path)
            return
        # The place of file:// is a path like any other.
        argument = str(path) if is_url(argument) else argument
        try:
            if is_folder(path):
                if not self._walk(path):
                    self._leave_out(path, argument, reason_of_empty(self._batch))
            elif is_glob(argument):
                self._add_glob(path, argument)
            else:
                self.add_named(path, argument)
        except (OSError, ValueError) as error:
            self.add(_unopened(path, argument, error))

    def add_named(self, path: Place, name: str) -> None:
        """Take a file that the user has named, whatever the file is; nobody looks for an object before reading."""
        try:
            named = _named_file(path, name, self._batch) if isinstance(path, Path) else InputFile(path, name)
            self.add(named)
        except (OSError, ValueError) as error:
            self.add(_unopened(path, name, error))

    def sorted_out(self) -> FoundInputs:
        """Return the inputs without results of other inputs, and everything that is left out."""
        # The place of the result, not of the input: a file elsewhere is no result, whatever the name is.
        owners = {
            (path_key(folder), file.stem): file.name
            for file in self._files.values()
            if not isinstance(file.source, bytes) and (folder := self._result_folder(file, file.source)) is not None
        }
        inputs = []
        for file in self._files.values():
            reason = self._reason_of_result(file, owners)
            if reason is None:
                inputs.append(file)
            elif not isinstance(file.source, bytes):
                self._leave_out(file.source, file.name, reason, _BY_NAME)
        # A hidden file, for example, may be named as well as seen in a folder.
        kept = {_absolute(file.source) for file in inputs if not isinstance(file.source, bytes)}
        left_out = tuple(each for each in self._left_out.values() if _absolute(each.path) not in kept)
        many = len(inputs) > 1 or any(file.folder is not None for file in inputs)
        by_name = frozenset(path_key(each.path) for each in left_out if each.kind == _BY_NAME)
        return FoundInputs(tuple(inputs), many, left_out=left_out, by_name=by_name)

    def _result_folder(self, file: InputFile, source: Place) -> Place | None:
        """Return the folder of the result of an input, where several pictures are upscaled."""
        if self._batch.output is None:
            return source.parent
        return None if self._batch.output == STDOUT else parse_place(self._batch.output) / (file.folder or "")

    def _reason_of_result(self, file: InputFile, owners: dict[tuple[str, str], str]) -> str | None:
        """Return why a file is the result of another input: by a record, or by the name; None for a true input."""
        if isinstance(file.source, bytes) or file.problem:
            return None
        # A recorded result that the user names is upscaled again; the record counts in folders only.
        if file.folder is not None and self._may_be_recorded(file.source) and is_recorded(file.source):
            return RESULT
        folder = path_key(file.source.parent)
        for stem in possible_stems(self._batch.name, file.source.name):
            if (folder, stem) in owners:
                return f"by its name the result of {owners[folder, stem]}; to upscale the file, choose a folder with -o"
        return None

    def _may_be_recorded(self, source: Place) -> bool:
        # A request for each of a million pictures would take hours.
        return isinstance(source, Path) or source.key in self.recorded

    def _leave_out(self, path: Place, name: str, reason: str, kind: str = "") -> None:
        self._left_out.setdefault(name, left_out_for(path, name, reason, kind))

    def _add_url(self, place: RemotePlace) -> None:
        """Take the pictures of an object, a folder of objects, or a pattern of URLs."""
        from dsclora_cli.storage.objects import find_object

        try:
            has_signs = has_wildcards(place.path)
            # A list may name millions of pictures, and asking for each would take hours: reading finds what is missing.
            if is_picture_name(Path(place.name)) and not has_signs:
                self.add(InputFile(place, str(place)))
                return
            facts = find_object(place)
            if facts is not None and facts.is_folder:
                if not self._walk_objects(place):
                    self._leave_out(place, str(place), reason_of_empty(self._batch))
            elif facts is None and has_signs:
                self._add_matches(place)
            else:
                problem = None if facts else ImageUnreadable(f"{place} does not exist", "check the URL")
                self.add(InputFile(place, str(place), problem=problem))
        except ImageUnreadable as error:
            self.add(InputFile(place, str(place), problem=error))

    def _add_matches(self, place: RemotePlace) -> None:
        from dsclora_cli.storage.objects import match_objects

        matches = match_objects(place)
        if not matches:
            problem = ImageUnreadable(f"no object matches {place}", "check the pattern")
            self.add(InputFile(place, str(place), problem=problem))
        for match in matches:
            if match.is_folder:
                self._walk_objects(match.place)
            else:
                self.add_seen(match.place, None)

    def _walk_objects(self, top: RemotePlace) -> bool:
        """Take the pictures of a folder of objects as `_walk` does, in the same order."""
        from dsclora_cli.storage.objects import list_folder
        from dsclora_cli.storage.records import RECORDS, recorded_places

        pictures = False
        folders = [(top, Path())]
        while folders:
            here, relative = folders.pop()
            try:
                below, files = list_folder(here)
                if any(facts.place.name == RECORDS for facts in below):
                    self.recorded |= recorded_places(here)
            except ImageUnreadable as problem:
                self.add(InputFile(here, str(here), relative, problem))
                pictures = True
                continue
            reasons = {facts.place: reason_of_folder(facts.place, self._batch) for facts in below}
            for folder, reason in reasons.items():
                if reason is not None:
                    self._leave_out(folder, str(folder), reason)
            for facts in files:
                pictures |= self.add_seen(facts.place, relative)
            entered = [folder for folder, reason in reasons.items() if reason is None]
            folders += [(folder, relative / folder.name) for folder in reversed(entered)]
        return pictures

    def _add_glob(self, path: Path, argument: str) -> None:
        expanded = Glob(argument)
        matches = sorted(set(expanded.matches()))
        for link in expanded.links:
            self._leave_out(link, str(link), LINK_TO_FOLDER)
        for error in expanded.unreadable.values():
            self._add_unreadable(error)
        if not matches and not expanded.unreadable:
            self.add(
                InputFile(path, argument, problem=ImageUnreadable(f"no file matches {argument}", "check the pattern"))
            )
        for match in matches:
            if is_folder(match):
                self._walk(match)
            else:
                self.add_seen(match, None)

    def _walk(self, top: Path) -> bool:
        """Take the pictures of a folder and, with `recursive`, of the folders inside; return whether there are any."""
        pictures = False
        unreadable: list[OSError] = []
        for folder, below, names in os.walk(top, onerror=unreadable.append):
            here = Path(folder)
            reasons = {name: reason_of_folder(here / name, self._batch) for name in sorted(below)}
            for name, reason in reasons.items():
                if reason is not None:
                    self._leave_out(here / name, str(here / name), reason)
            # Changed in place: os.walk enters only the folders that remain in the list.
            below[:] = [name for name, reason in reasons.items() if reason is None]
            for name in sorted(names):
                pictures |= self.add_seen(here / name, here.relative_to(top))
        for error in unreadable:
            self._add_unreadable(error)
        return pictures or bool(unreadable)

    def _add_unreadable(self, error: OSError) -> None:
        """Take a folder that could not be listed, as an input that fails."""
        problem = unlisted_problem(error.filename, error)
        self.add(InputFile(Path(error.filename), str(error.filename), Path(), problem))

    def add_seen(self, path: Place, folder: Path | None, name: str | None = None) -> bool:
        """Take a file that the user has not named, or leave the file out; return whether the file was taken.

        Args:
            path: The file.
            folder: Place in the tree of a folder argument; None for a match of a glob.
            name: Name in messages and results; None takes the path.
        """
        name = name or str(path)
        hidden = path.name.startswith(".")
        if not is_picture_name(Path(path.name)):
            of_system = hidden or path.name.lower() in _HIDDEN_ON_WINDOWS
            self._leave_out(path, name, SYSTEM_FILE if of_system else "not named like a picture")
        elif hidden and folder is not None:
            self._leave_out(path, name, "a hidden file")
        elif isinstance(path, RemotePlace) or is_file(path):
            self.add(InputFile(path, name, folder))
            return True
        elif problem := _problem_of(path):
            self.add(InputFile(path, name, folder, problem))
            return True
        else:
            self._leave_out(path, name, "a link that leads nowhere" if is_link(path) else "no regular file")
        return False


def _absolute(path: Place) -> str:
    """Return the absolute path with links unresolved: a link and the file of the link are two names."""
    if isinstance(path, RemotePlace):
        return path.key
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve follows links


def _problem_of(path: Path) -> ImageUnreadable | None:
    """Return why the system does not even tell what is at a path: a folder that can be listed, and not be entered."""
    try:
        path.stat()
    except PermissionError as error:
        return ImageUnreadable(f"{path} cannot be opened: {error.strerror}", "check the permissions of its folder")
    except OSError:  # a link that leads nowhere, or to itself
        pass
    return None


def _unopened(path: Place, name: str, error: OSError | ValueError) -> InputFile:
    """Return an input that fails: a name that is too long or holds a NUL, or a folder that may not be entered."""
    reason = error.strerror if isinstance(error, OSError) else error
    return InputFile(path, name, problem=ImageUnreadable(f"{name} cannot be opened: {reason}", "check the path"))


def _named_file(path: Path, argument: str, batch: BatchOptions) -> InputFile:
    """Return the file that an argument names; the bytes of a pipe are read. Raises OSError."""
    problem = None
    try:
        mode = path.stat().st_mode
        if stat.S_ISFIFO(mode):
            if batch.output is None:
                raise ImageUnreadable(f"{argument} is a pipe, which has no folder", "name the result with -o")
            return InputFile(_read_pipe(path), argument)
        if not stat.S_ISREG(mode):
            problem = ImageUnreadable(f"{argument} is no regular file", "give the path of a picture file")
    except FileNotFoundError:
        fault = "leads nowhere" if is_link(path) else "does not exist"
        problem = ImageUnreadable(f"{argument} {fault}", "check the path")
    except ImageUnreadable as error:
        problem = error
    return InputFile(path, argument, problem=problem)


def _read_stdin() -> InputFile:
    problem, data = None, b""
    try:
        # Python has no stream where the file descriptor was closed.
        data = sys.stdin.buffer.read(_PIPE_LIMIT + 1) if sys.stdin is not None else b""
    except OSError as error:  # nohup, for example, opens it for writing only
        problem = ImageUnreadable(f"standard input cannot be read: {error.strerror}", "send a picture through a pipe")
    if len(data) > _PIPE_LIMIT:
        problem = _too_long("standard input")
    return InputFile(b"" if problem else data, STDIN, problem=problem)


def _read_pipe(path: Path) -> bytes:
    """Return the picture in a named pipe. Raises ImageUnreadable."""
    try:
        return read_pipe(path, _PIPE_LIMIT)
    except OSError as error:
        raise ImageUnreadable(f"{path}: {error.strerror}", "write a file first, and name the file") from error


def _too_long(name: str) -> ImageUnreadable:
    return ImageUnreadable(f"{name} has more than {_PIPE_LIMIT >> 30} GiB", "write a file first, and name the file")
