"""Read, write and list objects, through fsspec. The slow imports stand inside functions."""

from __future__ import annotations

import base64
import re
import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dsclora_cli.errors import ImageUnreadable, ImageUnwritable, UsageError
from dsclora_cli.storage.archives import ARCHIVES, REFUSED, check_entry, check_folders, check_names
from dsclora_cli.storage.failures import lacks_bucket, named_failures
from dsclora_cli.storage.places import Place, RemotePlace, without_secrets
from dsclora_cli.temporary import temporary_folder

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_IN_MEMORY = 64 * 2**20
"""Bytes up to which an object is held in memory; a larger object goes to a temporary file."""

_CHUNK = 2**22

_OPENED: dict[Place, tuple[str | None, AbstractFileSystem]] = {}
"""The last archive and the archives around it, each with its version.

They are kept because reading the list of 50,000 entries takes a second.
"""

_OPENING = threading.RLock()
"""Lock around `_OPENED`; reentrant, because an archive in an archive needs the archive around."""
_WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "memory"})
"""Kinds of storage where an object appears when the last byte has arrived, and never before."""

_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 2}, "s3a": {"max_concurrency": 2}}
"""By scheme: s3fs would hold 10 parts of 50 MB of a large result in memory."""


_TAGS = ("md5Hash", "Content-MD5", "mtime", "LastModified", "Last-Modified", "last_modified", "created")
"""Keys, in the descriptions of the storages, of texts that change with the bytes of an object; checksums first."""


@dataclass(frozen=True)
class ObjectFacts:
    """Properties of an object, or of a folder, from a request or from a listing."""

    place: RemotePlace
    is_folder: bool
    size: int | None
    """Bytes; None where the storage does not say."""
    tag: str | None
    """Text that changes with the bytes of the object: ETag, checksum or time of change; None where there is none."""
    md5: str | None
    """MD5 of the bytes in hex digits, where the storage states one."""

    @property
    def version(self) -> str | None:
        """Return a text that changes with the bytes of the object; None where the storage states too little."""
        return None if self.size is None or self.tag is None else f"{self.size} {self.tag}"


def find_object(place: RemotePlace) -> ObjectFacts | None:
    """Return the properties of an object or a folder; None where nothing is there.

    Raises:
        ImageUnreadable: The storage cannot be asked, or the object is an entry of an archive that nobody should unpack.
        UsageError: A package is missing.
    """
    with named_failures(place, ImageUnreadable):
        system, path = _open_storage(place)
        try:
            return _facts(place, _describe(system, path, place))
        except FileNotFoundError as error:
            if lacks_bucket(error):  # a misspelled bucket is no place where nothing is yet
                raise
            # The web client of fsspec calls everything absent, from a lost connection to a refused signature.
            if "http" in place.scheme and isinstance(error.__cause__, Exception):
                raise error.__cause__ from None
            return None


def read_object(place: RemotePlace, limit: int) -> bytes:
    """Return the bytes of an object. Raises ImageUnreadable, also for an object of more than `limit` bytes."""
    with named_failures(place, ImageUnreadable):
        system, path = _open_storage(place)
        try:
            data: bytes = system.cat_file(path, start=0, end=limit + 1)  # one request, where opening takes two
        except OSError as error:
            if "range" not in str(error).lower():
                raise
            data = b""  # an empty object has no first byte
    if len(data) > limit:
        raise ImageUnreadable(f"{place}: larger than {limit >> 20} MiB", "check the URL")
    return data


def find_version(place: RemotePlace) -> str | None:
    """Return the version of an object; None where there is none, or the storage cannot be asked. Raises UsageError."""
    try:
        facts = find_object(place)
    except ImageUnreadable:
        return None
    return None if facts is None or facts.is_folder else facts.version


def require_object(place: RemotePlace) -> ObjectFacts:
    """Return the properties of an object. Raises ImageUnreadable where nothing, or a folder, is there; UsageError."""
    facts = find_object(place)
    if facts is None:
        raise ImageUnreadable(f"{place} does not exist", "check the URL")
    if facts.is_folder:
        raise ImageUnreadable(f"{place}: is a folder, not a picture", "give the URL of a picture file")
    return facts


@contextmanager
def local_copy(facts: ObjectFacts) -> Iterator[bytes | Path]:
    """Yield a whole object: the bytes, or a temporary file with the bytes of a large object.

    Raises:
        ImageUnreadable: The object cannot be read, or the temporary folder has no room.
        UsageError: A package is missing.
    """
    place = facts.place
    if facts.size is not None and facts.size <= _IN_MEMORY:
        with named_failures(place, ImageUnreadable):
            system, path = _open_storage(place)
            # With both ends of a range, s3fs does not ask for the size again; an empty object has no range.
            data: bytes = system.cat_file(path, start=0, end=facts.size) if facts.size else b""
        if len(data) != facts.size:
            raise ImageUnreadable(f"{place}: {len(data)} of {facts.size} bytes arrived", "run again")
        yield data
        return
    with temporary_file(place.suffix) as copy:
        _download(place, facts.size, copy)
        yield copy


@contextmanager
def temporary_file(suffix: str) -> Iterator[Path]:
    """Yield the path for a file in the temporary folder of the system; the file is removed at the end.

    Storages take the type of an object, such as image/png, from the suffix.
    """
    with temporary_folder() as folder:
        yield folder / f"object{suffix}"


def _download(place: RemotePlace, size: int | None, copy: Path) -> None:
    """Copy an object into a local file, within the free space. Raises ImageUnreadable."""
    free = shutil.disk_usage(copy.parent).free
    no_room = ImageUnreadable(
        f"{place}: {f'{size / 1e9:.2g} GB' if size else 'the object'} does not fit into {tempfile.gettempdir()}",
        "free some space, or set TMPDIR to a folder with more space",
    )
    if size is not None and size > free:
        raise no_room
    arrived = 0
    with named_failures(place, ImageUnreadable):
        system, path = _open_storage(place)
        # `cache_type` none: the readers of fsspec would hold a second copy of each block.
        with system.open(path, "rb", cache_type="none", block_size=_CHUNK) as file, copy.open("wb") as target:
            while chunk := file.read(_CHUNK):
                arrived += len(chunk)
                if arrived > free:
                    raise no_room
                target.write(chunk)
    if size is not None and arrived != size:
        raise ImageUnreadable(f"{place}: {arrived} of {size} bytes arrived", "run again")


def write_object(place: RemotePlace, data: Path | bytes) -> None:
    """Write a whole object: nobody ever sees a part of the object, and after an error an older object stays.

    Args:
        place: Object to write.
        data: The bytes, or a local file with the bytes.

    Raises:
        ImageUnwritable: The object cannot be written.
        UsageError: A package is missing.
    """
    with named_failures(place, ImageUnwritable):
        if not place.is_writable:
            raise ImageUnwritable(f"{place}: nothing can be written to {place.scheme}://", "choose another place")
        system, path = _open_storage(place)
        if place.scheme in _WHOLE:
            _put(system, data, path)
            return
        # Servers of files (SFTP, SMB, HDFS) show a file while the file grows.
        system.makedirs(system._parent(path), exist_ok=True)
        temporary = f"{system._parent(path)}/.dsclora-{secrets.token_hex(8)}.part"
        try:
            _put(system, data, temporary)
            system.mv(temporary, path)
        except BaseException:
            with suppress(Exception):
                system.rm_file(temporary)
            raise


def _put(system: AbstractFileSystem, data: Path | bytes, path: str) -> None:
    if isinstance(data, bytes):
        system.pipe_file(path, data)
    else:
        system.put_file(str(data), path)


def list_folder(place: RemotePlace) -> tuple[list[ObjectFacts], list[ObjectFacts]]:
    """Return the folders and the objects in a folder, by name. Raises ImageUnreadable and UsageError."""
    with named_failures(place, ImageUnreadable):
        system, path = _open_storage(place)
        inside = _inside(place, path, system.ls(path, detail=True))
        found = sorted(inside, key=lambda facts: facts.place.name)
    return [each for each in found if each.is_folder], [each for each in found if not each.is_folder]


def match_objects(place: RemotePlace) -> list[ObjectFacts]:
    """Return the objects and folders whose URLs match a pattern, by URL. Raises ImageUnreadable and UsageError."""
    with named_failures(place, ImageUnreadable):
        system, path = _open_storage(place)
        root, _, query, chain = place.parts
        return [
            _facts(RemotePlace(f"{root}{_relative(place, found)}{query}{chain}"), info)
            for found, info in sorted(system.glob(path, detail=True).items())
        ]


def _inside(place: RemotePlace, path: str, listed: Iterable[dict[str, Any]]) -> Iterator[ObjectFacts]:
    for info in listed:
        name = str(info["name"]).rstrip("/").rpartition("/")[2]
        # S3 lists the folder itself where somebody made an empty object for the folder.
        is_self = str(info["name"]).strip("/") == path.strip("/")
        if name and not is_self:
            yield _facts(place / name, info)


def _relative(place: RemotePlace, found: str) -> str:
    """Return a path of a listing as the URL of the place spells paths: some storages add a slash in front."""
    return found if place.path.startswith("/") else found.lstrip("/")


def _facts(place: RemotePlace, info: dict[str, Any]) -> ObjectFacts:
    """Return the properties of an object from the description of the storage."""
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    tag = etag or next((info[key] for key in _TAGS if info.get(key)), None)
    return ObjectFacts(
        place=place,
        is_folder=info.get("type") == "directory",
        size=info.get("size"),
        tag=None if tag is None else str(tag),
        md5=_md5(etag, info.get("md5Hash"), (info.get("content_settings") or {}).get("content_md5")),
    )


def _md5(etag: str, google: str | None, azure: bytes | None) -> str | None:
    """Return the MD5 that a storage states, in hex digits; the ETag of S3 is the MD5 of an object in one part."""
    if azure:
        return bytes(azure).hex()
    if google:
        return base64.b64decode(google).hex()
    return etag if len(etag) == 32 and set(etag) <= set("0123456789abcdef") else None


def _open_storage(place: RemotePlace) -> tuple[AbstractFileSystem, str]:
    """Return the storage of a place, and the path inside. Raises ImportError for a missing package, and UsageError."""
    import fsspec

    if place.scheme in ARCHIVES:
        return _open_archive(place)
    if place.scheme in REFUSED:
        raise UsageError(f"{place.scheme}:// archives are not read", "unpack the archive, and name the folder")
    try:
        # Listings change while other machines work, so nothing is taken from a cache.
        options = {"use_listings_cache": False, **_OPTIONS.get(place.scheme, {})}
        system, path = fsspec.core.url_to_fs(place.url, **options)
    except ValueError as error:
        if "not known" not in str(error):
            raise
        known = "s3, gs, az, hf, http, https, file, memory, zip, sftp and more"
        raise UsageError(f"{place.scheme}:// is no kind of storage that fsspec knows", f"it knows {known}") from error
    return system, path


def _open_archive(place: RemotePlace) -> tuple[AbstractFileSystem, str]:
    """Return an archive as a storage, and the path inside. Raises as `_open_storage`, ImageUnreadable and OSError."""
    archive = place.archive
    if archive is None:
        raise UsageError(f"{place} names no archive", f"write {without_secrets(_with_archive(place))}")
    with _OPENING:
        around = None
        if isinstance(archive, Path):
            found = archive.stat()
            version: str | None = f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
            open_file: Callable[[], Any] = partial(archive.open, "rb")
        else:  # also an archive in an archive
            around, inner = _open_storage(archive)
            facts = _facts(archive, _describe(around, inner, archive))
            # An entry changes only with the archive around, which then has a new storage. No other storage has the same
            # id: `_list_archive` keeps the storage around as long as the storage of the entry.
            version = str(id(around)) if archive.scheme in ARCHIVES else facts.version
            open_file = partial(around.open, inner, "rb")
        known_version, storage = _OPENED.get(archive, (None, None))
        if storage is None or version is None or version != known_version:
            for other in _OPENED.keys() - _archives_around(archive):
                del _OPENED[other]
            storage = _list_archive(open_file(), place, around)
            _OPENED[archive] = version, storage
    return storage, place.path.lstrip("/")


def _archives_around(archive: Place) -> set[Place]:
    """Return the archives that an archive lies in."""
    around = archive.archive if isinstance(archive, RemotePlace) else None
    return set() if around is None else {around, *_archives_around(around)}


def _with_archive(place: RemotePlace) -> str:
    """Return what the user of a URL without an archive meant: the path may be that of the archive, or go through it."""
    through = re.match(r"(?P<archive>.+?\.zip)(?:/+(?P<inner>.*))?$", place.path, re.IGNORECASE | re.DOTALL)
    if through is None:
        return f"{place.scheme}://{place.path}::ARCHIVE.zip"
    return f"{place.scheme}://{through['inner'] or ''}::{through['archive']}"


def _describe(system: AbstractFileSystem, path: str, place: RemotePlace) -> dict[str, Any]:
    """Return the description of an object by the storage. Raises ImageUnreadable for entries that are not unpacked."""
    facts: dict[str, Any] = system.info(path)
    if place.scheme in ARCHIVES:
        check_entry(facts, place)
    return facts


def _list_archive(file: IO[bytes], place: RemotePlace, around: AbstractFileSystem | None) -> AbstractFileSystem:
    """Return the storage of an archive in an open file, which is closed when nobody uses the storage any more.

    `around` is the storage of the file, and stays open as long as the file. Raises ImageUnreadable and BadZipFile.
    """
    from fsspec.implementations.zip import ZipFileSystem

    try:
        check_names(file, place)
        storage = ZipFileSystem(fo=file)
        check_folders(storage.zip.namelist(), place)
        storage.ls("")  # fills the list, which other threads must not see half filled
    except BaseException:
        file.close()
        raise
    # Not closed where a newer archive takes the place in the cache: other threads may still read this archive.
    weakref.finalize(storage, _close, file, around)
    return storage


def _close(file: IO[bytes], around: AbstractFileSystem | None) -> None:  # noqa: ARG001 - held until here
    """Close the file of an archive, and let go of the storage around the file."""
    file.close()
