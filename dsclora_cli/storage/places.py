"""Places of pictures and results: a local path, or the URL of an object. No fsspec: names only.

`objects.py` reads, writes and lists the objects.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

# Two letters at least: `C:\` is a drive of Windows.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://")
_PARTS = re.compile(
    r"(?P<root>[a-z][a-z0-9+.-]+://)"
    r"(?P<path>.*?)"
    r"(?P<query>\?[\w.~%-]+=[^?]*?)?"  # a signature, or a version; other question marks belong to the name
    r"(?P<chain>::.*)?",
    re.DOTALL,
)
_READ_ONLY = frozenset({"http", "https", "zip", "github"})

_QUERY = re.compile(r"\?[\w.~%-]+=[^\s'\"?]*?(?=::|$|[\s'\"])")
_LOGIN = re.compile(r"(?<=//)[^\s/@]+@")


def is_url(text: str) -> bool:
    """Return whether a text is a URL, and not a local path."""
    return _URL.match(text) is not None


def parse_place(text: str) -> Place:
    """Return the place that a text names: a `RemotePlace` for a URL, else a local path, also for `file://`."""
    match = _URL.match(text)
    if match is None:
        return Path(text)
    scheme, rest = match["scheme"].lower(), text[match.end() :]
    if scheme in {"file", "local"}:
        # file://localhost/a%20b names the file "/a b" by RFC 8089.
        return Path(unquote(rest.removeprefix("localhost") if rest.startswith("localhost/") else rest))
    return RemotePlace(f"{scheme}://{rest}")


def place_text(place: str | os.PathLike[str] | RemotePlace) -> str:
    """Return the text of a place for `parse_place`, secrets included."""
    return place.url if isinstance(place, RemotePlace) else os.fspath(place)


def without_secrets(text: str) -> str:
    """Return a text with URLs without logins and without the values of queries, which may be signatures."""
    return _LOGIN.sub("...@", _QUERY.sub("?...", text))


@dataclass(frozen=True)
class RemotePlace:
    """Object or folder at a URL, with the names that `pathlib.PurePath` has for the same things.

    The text of a place, `str(place)`, is for people: the text holds no login and no signature. Programs that hand a
    place on use `url`, and `parse_place` returns an equal place.
    """

    url: str
    """Whole URL, secrets included."""

    def __str__(self) -> str:
        """Return the URL for messages and reports."""
        return without_secrets(self.url)

    def __repr__(self) -> str:
        """Return the URL without secrets: a traceback may show the text."""
        return f"RemotePlace({str(self)!r})"

    def __truediv__(self, below: str | PurePath) -> RemotePlace:
        """Return the place of a relative path below a folder, or of a name, which may be `.` in an archive."""
        is_here = below == "" if isinstance(below, str) else below == type(below)()
        if is_here:
            return self
        relative = below if isinstance(below, str) else PurePosixPath(below).as_posix()
        root, path, query, chain = self.parts
        folder = f"{path.rstrip('/')}/" if path.strip("/") else path
        return RemotePlace(f"{root}{folder}{relative}{query}{chain}")

    @cached_property
    def parts(self) -> tuple[str, str, str, str]:
        """Return scheme with `://`, path, query with `?`, and the URL of an archive with `::`."""
        match = _PARTS.fullmatch(self.url)
        assert match is not None, "parse_place makes places"
        return match["root"], match["path"], match["query"] or "", match["chain"] or ""

    @property
    def scheme(self) -> str:
        """Return the name of the kind of storage, such as "s3"."""
        return self.parts[0].removesuffix("://")

    @property
    def is_writable(self) -> bool:
        """Return whether objects of the kind of storage can be written at all."""
        return self.scheme not in _READ_ONLY

    @property
    def key(self) -> str:
        """Return an identifier that is equal for the spellings of a place with and without a slash at the end."""
        root, path, query, chain = self.parts
        return f"{root}{path.rstrip('/')}{query}{chain}"

    @property
    def path(self) -> str:
        """Return the path inside the storage, with the bucket, without scheme, query and archive."""
        return self.parts[1]

    @property
    def archive(self) -> Place | None:
        """Return the place of the archive around the place, with `~` as the home; None outside of archives."""
        chain = self.parts[3].removeprefix("::")
        # expanduser: no shell does this behind "::". `Path.expanduser` raises an exception where there is no home.
        return parse_place(chain if is_url(chain) else os.path.expanduser(chain)) if chain else None  # noqa: PTH111

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Return the name without the suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Return the suffix of the name, with the dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> RemotePlace:
        """Return the folder of the place; a bucket is the parent of itself."""
        root, path, query, chain = self.parts
        above = path.rstrip("/").rpartition("/")[0]
        # Archives and memory have a root without a name; a bucket and a host have names.
        return RemotePlace(f"{root}{above}{query}{chain}") if above or chain or self.scheme == "memory" else self

    def with_name(self, name: str) -> RemotePlace:
        """Return the place of another name in the same folder."""
        return self.parent / name


Place = Path | RemotePlace
"""A local path, or an object at a URL."""


def absolute_place(place: Place) -> str:
    """Return the text of a place for processes in other folders: an absolute path, or a URL with an absolute archive.

    Links are not followed, and secrets of a URL are included.
    """
    if isinstance(place, Path):
        return os.path.abspath(place)  # noqa: PTH100 - Path.resolve follows links
    root, path, query, _ = place.parts
    chain = f"::{absolute_place(place.archive)}" if place.archive else ""
    return f"{root}{path}{query}{chain}"
