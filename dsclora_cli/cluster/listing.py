"""List the inputs of a run on a cluster, without ever holding all of them in memory.

Folders are listed while the cluster works. The files of a folder are sorted in temporary files where there are many.
"""

from __future__ import annotations

import heapq
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, groupby, islice
from math import inf
from pathlib import Path
from typing import IO, Any, NamedTuple

from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import ErrorCode, ErrorInfo, ImageUnreadable, UsageError
from dsclora_cli.globs import Glob, has_wildcards, is_glob
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.paths import is_folder
from dsclora_cli.storage.places import Place, RemotePlace, absolute_place, is_url, parse_place
from dsclora_cli.upscaling.inputs import (
    ListedInput,
    expand_list,
    unlisted_problem,
)
from dsclora_cli.upscaling.output_names import check_template
from dsclora_cli.upscaling.types import (
    LINK_TO_FOLDER,
    STDIN,
    Argument,
    FileResult,
    LeftOut,
    folder_key,
    left_out_for,
    reason_of_empty,
    reason_of_folder,
    texts_of,
)

_IN_MEMORY = 100_000
"""Most files that are sorted in memory: some 60 MB."""

_BLOCK = 1000  # files that are written to a temporary file at once

FileGroup = tuple[ListedInput, ...]
"""Files that compete for names of results: one worker upscales the files of a group in order, as one machine does."""


class Listing:
    """Files of the arguments, in groups without repeats.

    A single folder is listed folder by folder, in the order of a run on one machine. Several arguments are listed
    completely before the first group, because files of different arguments may compete for a name.

    Raises UsageError for arguments that a cluster cannot take.
    """

    def __init__(self, arguments: Argument | Iterable[Argument], batch: BatchOptions) -> None:
        self._arguments = texts_of(arguments)
        self._batch = batch
        check_template(batch.name)
        if "{stem}" not in batch.name:
            raise UsageError(f"--name {batch.name} could give two results one name", "use {stem} in the name")
        if STDIN in self._arguments:
            raise UsageError("--executor ray takes files, not standard input", "name files or folders")
        self._output_key = folder_key(parse_place(batch.output or "."))
        self._seen_picture = False
        """Whether the folder of an argument, with the folders inside, holds a picture so far."""
        # Before a cluster starts, as far as nobody has to look at files; lists and patterns are checked when read.
        for place in map(parse_place, self._arguments):
            self._check(place)
        self.count = 0
        """Files in the groups so far."""
        self.left_out: list[LeftOut] = []
        """Folders that were not entered; emptied by the caller."""
        self.failed: list[FileResult] = []
        """Folders that could not be listed; emptied by the caller."""

    def groups(self) -> Iterator[FileGroup]:
        """Yield all groups. Raises UsageError for a list that cannot be read, and for results among the inputs."""
        top = self._single_folder()
        if top is None:
            parts: Iterable[Iterator[_Keyed]] = [self._all_files()]
        else:
            parts = (map(partial(_keyed, 0), files) for files in self._walk(top))
        for files in parts:
            for group in _sorted_groups(files):
                self.count += len(group)
                yield group

    def _single_folder(self) -> Place | None:
        """Return the folder where a folder is the only argument."""
        with suppress(ImageUnreadable):  # reported by `_files_at`
            if len(self._arguments) == 1 and _is_folder(place := parse_place(self._arguments[0])):
                return place
        return None

    def _all_files(self) -> Iterator[_Keyed]:
        # A list is sorted in temporary files, so a list may have any length.
        lines = chain.from_iterable(expand_list(argument, limit=inf) for argument in self._arguments)
        for index, argument in enumerate(lines):
            yield from map(partial(_keyed, index), self._files_at(parse_place(argument)))

    def _files_at(self, place: Place) -> Iterator[ListedInput]:
        try:
            if _is_folder(place):
                yield from chain.from_iterable(self._walk(place))
            elif _is_pattern(place):
                yield from self._matches(place)
            else:
                yield self._listed(place, is_named=True)
        except ImageUnreadable as error:  # such as a bucket that does not exist
            self.failed.append(FileResult(str(place), "failed", error=error.info))

    def _matches(self, pattern: Place) -> Iterator[ListedInput]:
        expanded, is_empty = Glob(str(pattern)), True
        for match in _objects_of(pattern) if isinstance(pattern, RemotePlace) else expanded.matches():
            is_empty = False
            if _is_folder(match):
                yield from chain.from_iterable(self._walk(match))
            else:
                yield self._listed(match, is_named=False)
        self.left_out += (left_out_for(link, str(link), LINK_TO_FOLDER) for link in expanded.links)
        self.failed += (_unlisted(error.filename, error) for error in expanded.unreadable.values())
        if is_empty and not expanded.unreadable:
            error = ErrorInfo(ErrorCode.IMAGE_UNREADABLE, f"no file matches {pattern}", "check the pattern")
            self.failed.append(FileResult(str(pattern), "failed", error=error))

    def _listed(self, place: Place, is_named: bool) -> ListedInput:
        self._check(place)
        return _listed(place, None, is_named)

    def _check(self, place: Place) -> None:
        """Raise UsageError for inputs in the folder of results, where a result could replace an input, or in memory."""
        if isinstance(place, RemotePlace) and place.scheme == "memory":
            raise UsageError(f"{place} lies in the memory of one process, and workers see nothing", "name files")
        if folder_key(place).startswith(self._output_key):
            raise UsageError(f"{place} lies in the folder of results", "choose another folder with -o")

    def _walk(self, top: Place) -> Iterator[Iterator[ListedInput]]:
        """Yield the files of a folder, and of all folders inside, from the top down."""
        self._check(top)
        self._seen_picture = False
        waiting: list[tuple[Place, str]] = [(top, ".")]
        while waiting:
            folder, relative = waiting.pop()
            below: list[Place] = []
            yield self._files_of(folder, relative, below)
            # The last folder of the list is listed first.
            above = "" if relative == "." else f"{relative}/"
            waiting += [(each, f"{above}{each.name}") for each in sorted(below, key=str, reverse=True)]
        if not self._seen_picture:
            self.left_out.append(left_out_for(top, str(top), reason_of_empty(self._batch)))

    def _files_of(self, folder: Place, relative: str, below: list[Place]) -> Iterator[ListedInput]:
        """Yield the files of a folder in any order, and add the folders to enter to `below`."""
        try:
            for place, is_folder, has_record in _entries(folder):
                if not is_folder:
                    self._seen_picture = self._seen_picture or _is_visible_picture(place)
                    yield _listed(place, relative, is_named=False, has_record=has_record)
                elif reason := reason_of_folder(place, self._batch):
                    self.left_out.append(left_out_for(place, str(place), reason))
                else:
                    below.append(place)
        except (OSError, ImageUnreadable) as error:
            self._seen_picture = True  # perhaps, and the failure says enough
            self.failed.append(_unlisted(folder, error))


def _unlisted(folder: object, error: OSError | ImageUnreadable) -> FileResult:
    """Return the result for a folder that cannot be listed."""
    problem = error if isinstance(error, ImageUnreadable) else unlisted_problem(folder, error)
    return FileResult(str(folder), "failed", error=problem.info)


def _entries(folder: Place) -> Iterator[tuple[Place, bool, bool]]:
    """Yield the content of a folder. Raises OSError and ImageUnreadable.

    Yields:
        File or folder, whether the place is a folder, and whether a record lies next to the object.
    """
    if isinstance(folder, RemotePlace):
        yield from _objects(folder)
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = False
            with suppress(OSError):  # a link into a folder that may not be entered
                # As os.walk: a link to a folder is a folder, which is not entered.
                is_folder = entry.is_dir()
            yield folder / entry.name, is_folder, False


def _objects(folder: RemotePlace) -> Iterator[tuple[Place, bool, bool]]:
    from dsclora_cli.storage.objects import list_folder
    from dsclora_cli.storage.records import RECORDS, recorded_places

    folders, files = list_folder(folder)
    # Listed once here: a worker would have to ask for the record of each object.
    recorded = recorded_places(folder) if any(facts.place.name == RECORDS for facts in folders) else set()
    yield from ((facts.place, True, False) for facts in folders)
    yield from ((facts.place, False, facts.place.key in recorded) for facts in files)


def _listed(place: Place, folder: str | None, is_named: bool, has_record: bool = False) -> ListedInput:
    return ListedInput(absolute_place(place), str(place), folder, is_named, has_record)


def _is_visible_picture(place: Place) -> bool:
    return is_picture_name(Path(place.name)) and not place.name.startswith(".")


def _is_pattern(place: Place) -> bool:
    return has_wildcards(place.path) if isinstance(place, RemotePlace) else is_glob(str(place))


def _objects_of(pattern: RemotePlace) -> Iterator[Place]:
    from dsclora_cli.storage.objects import match_objects

    return (facts.place for facts in match_objects(pattern))


def _is_folder(place: Place) -> bool:
    """Return whether a place is a folder; the storage is asked only where the name has no suffix of a picture."""
    if isinstance(place, Path):
        return is_folder(place)
    if is_picture_name(Path(place.name)):
        return False
    from dsclora_cli.storage.objects import find_object

    facts = find_object(place)
    return facts is not None and facts.is_folder


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
    """Sort files, in temporary files where there are many, and yield competitors for a name together."""
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
    """Write sorted files to a temporary file, and return the file, ready to be read. Raises OSError."""
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
