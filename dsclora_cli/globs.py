"""Expand globs such as `in/**/*.png` without entering links to folders.

`glob.glob` enters such links: with two links to a folder above, the number of matches doubles with every level.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from dsclora_cli.paths import is_folder, is_link

_ANY_FOLDERS = "**"


def has_wildcards(text: str) -> bool:
    """Return whether a path has a sign of a glob."""
    return any(sign in text for sign in "*?[")


def is_glob(argument: str) -> bool:
    """Return whether an argument is a glob. A file that really has brackets in the name is no glob."""
    return has_wildcards(argument) and not os.path.lexists(argument)


class Glob:
    """A glob, and what `**` has not entered."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.links: dict[Path, None] = {}
        """Links to folders that `**` has met so far, in order."""
        self.unreadable: dict[str, OSError] = {}
        """Folders that `**` could not list so far."""

    def matches(self) -> Iterator[Path]:
        """Yield the files and folders that match, in any order, some more than once where the glob has several `**`."""
        found = self._matches(self._pattern)
        # A slash at the end asks for folders.
        yield from filter(is_folder, found) if self._pattern.endswith(("/", os.sep)) else found

    def _matches(self, pattern: str) -> Iterator[Path]:
        parts = Path(pattern).parts
        if _ANY_FOLDERS not in parts:
            yield from map(Path, glob.iglob(pattern))  # noqa: PTH207 - Path.glob takes no absolute pattern
            return
        at = parts.index(_ANY_FOLDERS)
        rest = parts[at + 1 :]
        # `**/**` means the same as `**`.
        while rest[:1] == (_ANY_FOLDERS,):
            rest = rest[1:]
        top = str(Path(*parts[:at]))
        for start in glob.iglob(top) if has_wildcards(top) else [top]:  # noqa: PTH207
            yield from self._below(start, rest)

    def _below(self, top: str, rest: tuple[str, ...]) -> Iterator[Path]:
        """Yield the matches of the rest of a glob in a folder, and in all folders inside."""
        for folder, below, names in os.walk(top, onerror=self._note_unreadable):
            # As for `*`, hidden files and folders do not match.
            below[:] = [name for name in below if not name.startswith(".")]
            folders = (Path(folder, name) for name in below)
            self.links |= dict.fromkeys(each for each in folders if is_link(each))
            if rest:
                yield from self._matches(str(Path(glob.escape(folder), *rest)))
            else:
                yield Path(folder)
                yield from (Path(folder, name) for name in names if not name.startswith("."))

    def _note_unreadable(self, error: OSError) -> None:
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):  # a folder that is absent holds no match
            self.unreadable[str(error.filename)] = error
