"""List the inputs of a run on a cluster, without ever holding all of them in memory.

Folders are listed while the cluster works. The files of a folder are sorted in temporary files where there are many.
"""

from __future__ import annotations

import codecs
import glob
import heapq
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import ErrorCode, ErrorInfo, ImageUnreadable, UsageError
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.storage.places import Place, RemotePlace, is_url, parse_place
from dsclora_cli.upscaling.inputs import ListedInput, has_wildcards, is_glob, reason_of_folder
from dsclora_cli.upscaling.output_names import check_template
from dsclora_cli.upscaling.types import STDIN, FileResult, LeftOut, path_key

_IN_MEMORY = 100_000
"""Most files that are sorted in memory: some 60 MB."""

_BLOCK = 1000  # files that are written to a temporary file at once

FileGroup = tuple[ListedInput, ...]
"""Files that compete for names of results: one worker upscales the files of a group in order, as one machine does."""


class Listing:
    """Files of the arguments, in groups, each group once.

    A single folder is listed folder by folder, in the order of a run on one machine. Several arguments are listed
    completely before the first group, because files of different arguments may compete for a name.

    Raises UsageError for arguments that a cluster cannot take.
    """

    def __init__(self, arguments: Iterable[str | os.PathLike[str]], batch: BatchOptions) -> None:
        self._arguments = [os.fspath(each) for each in arguments]
        self._batch = batch
        check_template(batch.name)
        if "{stem}" not in batch.name:
            raise UsageError(f"--name {batch.name} could give two results one name", "use {stem} in the name")
        if STDIN in self._arguments:
            raise UsageError("--executor ray takes files, not standard input", "name files or folders")
        self._output = path_key(parse_place(batch.output or "."))
        # Before a cluster starts, as far as nobody has to look at files; lists and patterns are checked when read.
        for place in map(parse_place, self._arguments):
            self._check_outside(place)
        self.count = 0
        """Files in the groups so far."""
        self.left_out: list[LeftOut] = []
        """Folders that were not entered; emptied by the caller."""
        self.failed: list[FileResult] = []
        """Folders that could not be listed; emptied by the caller."""

    def groups(self) -> Iterator[FileGroup]:
        """Yield all groups. Raises UsageError for a list that cannot be read, and for results among the inputs."""
        if len(self._arguments) == 1 and _is_folder(top := parse_place(self._arguments[0])):
            parts: Iterable[Iterator[_Keyed]] = (map(partial(_keyed, 0), files) for files in self._walk(top))
        else:
            parts = [self._all_files()]
        for files in parts:
            for group in _sorted_groups(files):
                self.count += len(group)
                yield group

    def _all_files(self) -> Iterator[_Keyed]:
        for index, argument in enumerate(chain.from_iterable(map(_expanded, self._arguments))):
            place = parse_place(argument)
            if _is_folder(place):
                files: Iterable[ListedInput] = chain.from_iterable(self._walk(place))
            elif _is_pattern(place):
                files = self._matches(place)
            else:
                files = [self._listed(place, is_named=True)]
            yield from map(partial(_keyed, index), files)

    def _matches(self, pattern: Place) -> Iterator[ListedInput]:
        is_empty = True
        for match in _matching(pattern):
            is_empty = False
            if _is_folder(match):
                yield from chain.from_iterable(self._walk(match))
            else:
                yield self._listed(match, is_named=False)
        if is_empty:
            error = ErrorInfo(ErrorCode.IMAGE_UNREADABLE, f"no file matches {pattern}", "check the pattern")
            self.failed.append(FileResult(str(pattern), "failed", error=error))

    def _listed(self, place: Place, is_named: bool) -> ListedInput:
        self._check_outside(place)
        return _listed(place, None, is_named)

    def _check_outside(self, place: Place) -> None:
        """Raise UsageError for inputs in the folder of results: a result could replace an input."""
        if f"{path_key(place)}/".startswith(f"{self._output.rstrip('/')}/"):
            raise UsageError(f"{place} lies in the folder of results", "choose another folder with -o")

    def _walk(self, top: Place) -> Iterator[Iterator[ListedInput]]:
        """Yield the files of a folder, and of each folder inside, from the top down."""
        self._check_outside(top)
        waiting: list[tuple[Place, str]] = [(top, ".")]
        while waiting:
            folder, relative = waiting.pop()
            below: list[Place] = []
            yield self._files_of(folder, relative, below)
            # The last folder of the list is listed first.
            above = "" if relative == "." else f"{relative}/"
            waiting += [(each, f"{above}{each.name}") for each in sorted(below, key=str, reverse=True)]

    def _files_of(self, folder: Place, relative: str, below: list[Place]) -> Iterator[ListedInput]:
        """Yield the files of a folder in any order, and add the folders to enter to `below`."""
        try:
            for place, is_folder in _entries(folder):
                if not is_folder:
                    yield _listed(place, relative, is_named=False)
                elif reason := reason_of_folder(place, self._batch):
                    self.left_out.append(LeftOut(place, str(place), reason, "folders"))
                else:
                    below.append(place)
        except (OSError, ImageUnreadable) as error:
            problem = error.info if isinstance(error, ImageUnreadable) else None
            message = f"{folder} cannot be listed: {getattr(error, 'strerror', '')}"
            problem = problem or ErrorInfo(ErrorCode.IMAGE_UNREADABLE, message, "check the permissions")
            self.failed.append(FileResult(str(folder), "failed", error=problem))


def _entries(folder: Place) -> Iterator[tuple[Place, bool]]:
    """Yield the files and folders in a folder, and whether each is a folder. Raises OSError and ImageUnreadable."""
    if isinstance(folder, RemotePlace):
        from dsclora_cli.storage.objects import list_folder

        folders, files = list_folder(folder)
        yield from ((facts.place, True) for facts in folders)
        yield from ((facts.place, False) for facts in files)
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = False
            with suppress(OSError):  # a link into a folder that may not be entered
                # As os.walk: a link to a folder is a folder, which is not entered.
                is_folder = entry.is_dir()
            yield folder / entry.name, is_folder


def _listed(place: Place, folder: str | None, is_named: bool) -> ListedInput:
    path = place.url if isinstance(place, RemotePlace) else os.path.abspath(place)  # noqa: PTH100 - follows no links
    return ListedInput(path, str(place), folder, is_named)


def _is_pattern(place: Place) -> bool:
    return has_wildcards(place.path) if isinstance(place, RemotePlace) else is_glob(str(place))


def _matching(pattern: Place) -> Iterator[Place]:
    if isinstance(pattern, RemotePlace):
        from dsclora_cli.storage.objects import match_objects

        yield from (facts.place for facts in match_objects(pattern))
    else:
        yield from map(Path, glob.iglob(str(pattern), recursive=True))  # noqa: PTH207 - takes absolute patterns


def _is_folder(place: Place) -> bool:
    """Return whether a place is a folder; an object is asked for only where the name is not that of a picture."""
    if isinstance(place, Path):
        return place.is_dir()
    if is_picture_name(Path(place.name)):
        return False
    from dsclora_cli.storage.objects import find_object

    facts = find_object(place)
    return facts is not None and facts.is_folder


def _expanded(argument: str) -> Iterable[str]:
    """Return the lines of a list, or the argument. A file whose name begins with @ is a picture, not a list."""
    is_list = argument.startswith("@") and not os.path.lexists(argument)
    return _lines(Path(argument[1:])) if is_list else [argument]


def _lines(path: Path) -> Iterator[str]:
    """Yield the paths in a list, one a line, in UTF-8, or in UTF-16 with a byte order mark. Raises UsageError."""
    try:
        with path.open("rb") as file:
            has_mark = file.peek(2)[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}
            for line in codecs.getreader("utf-16" if has_mark else "utf-8-sig")(file):
                if line.strip():
                    yield line.strip()
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the list {path} is not text", "save the list as UTF-8, one path a line") from error


class _Keyed(NamedTuple):
    """File with the keys of the order."""

    folder: str
    key: str
    """Stem: pictures with one stem in one folder may compete for a name."""
    argument: int
    """Number of the argument, or of the line in a list: files with equal keys come in the order of the user."""
    path: str
    """Spelling of the user: the files of an argument come in the order of names."""
    file: ListedInput


def _sorted_groups(keyed: Iterator[_Keyed]) -> Iterator[FileGroup]:
    """Sort files, in temporary files where there are many, and yield the files that compete for a name together."""
    runs: list[Iterator[_Keyed]] = []
    while True:
        run = sorted(islice(keyed, _IN_MEMORY))
        if len(run) < _IN_MEMORY:
            runs.append(iter(run))
            break
        # Deleted by the system when closed, also after a kill.
        runs.append(_read(_written(run)))
    for _, group in groupby(heapq.merge(*runs), key=lambda each: (each.folder, each.key)):
        yield tuple(each.file for each in group)


def _keyed(index: int, file: ListedInput) -> _Keyed:
    # os.path: five times faster than Path.
    name = parse_place(file.path).name if is_url(file.path) else os.path.basename(file.path)  # noqa: PTH119
    # As in `upscaling/shards.py`. Numbers at the end stay: else all of IMG-0001, IMG-0002, ... would be a single task.
    key = os.path.splitext(name)[0].casefold()  # noqa: PTH122
    # Results of named files lie in the same folder as results for the top of a folder argument.
    folder = "" if file.folder is None or file.folder == "." else file.folder
    return _Keyed(folder, key, index, file.name, file)


def _written(run: list[_Keyed]) -> IO[bytes]:
    """Write sorted files to a temporary file, and return the file at its beginning. Raises OSError."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_read`
    for start in range(0, len(run), _BLOCK):
        # Plain tuples: half as long as objects. Nobody else can write to the file, so unpickling is safe.
        pickle.dump([(*each[:4], tuple(each.file)) for each in run[start : start + _BLOCK]], file)
    file.seek(0)
    return file


def _read(file: IO[bytes]) -> Iterator[_Keyed]:
    with file:
        while True:
            try:
                block: list[Any] = pickle.load(file)  # noqa: S301 - see `_written`
            except EOFError:
                return
            for folder, key, argument, path, file_fields in block:
                yield _Keyed(folder, key, argument, path, ListedInput(*file_fields))
