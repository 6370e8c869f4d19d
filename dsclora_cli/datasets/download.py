"""Benchmark sets by name: fetch the archive of a set from the Hub, and unpack the HR pictures once into the cache.

Archives come from strangers: `unpack_hr` checks every entry before the first byte is written.
"""

from __future__ import annotations

import errno
import gzip
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from dsclora_cli.errors import ImageError, SetUnavailable, UsageError, first_line, next_step
from dsclora_cli.hub import fetch_dataset_file
from dsclora_cli.hub_client import HubUnavailable
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.paths import LONGEST_NAME, cache_dir, found_in, is_folder, sync_files, sync_folder

SOURCES = {
    "Set5": (("eugenesiow/Set5", "data/Set5_HR.tar.gz"), ("goodfellowliu/Set5", "Set5.zip")),
    "Set14": (("eugenesiow/Set14", "data/Set14_HR.tar.gz"), ("goodfellowliu/Set14", "Set14.zip")),
    "BSD100": (("eugenesiow/BSD100", "data/BSD100_HR.tar.gz"), ("goodfellowliu/BSDS100", "BSDS100.zip")),
    "Urban100": (("eugenesiow/Urban100", "data/Urban100_HR.tar.gz"), ("goodfellowliu/Urban100", "Urban100.zip")),
    "Manga109": (("goodfellowliu/Manga109", "Manga109.zip"),),
    "DIV2K": (("goodfellowliu/DIV2K", "DIV2K_train_HR.zip"),),
    "DIV2K-valid": (("goodfellowliu/DIV2K", "DIV2K_valid_HR.zip"),),
}
"""Repository and file of the HR pictures of each set, in the order of the attempts."""

OnUnpack = Callable[[int, int], None]
"""Callback `(bytes written so far, bytes in total)`."""

_ABANDONED_SECONDS = 3600
"""Age from which an unfinished folder belongs to a process that was killed."""

_HINT = "try again later, or give the set as a folder with --data-dir DIR"
_ARCHIVE_HINT = "do not use this copy; give the set as a folder with --data-dir DIR"

_CHUNK = 2**20
_HR_FOLDERS = ("HR", "original", "GTmod12")


def set_name(name: str) -> str:
    """Return the usual spelling of a set's name in any case. Raises UsageError, with all names, for an unknown name."""
    found = {known.casefold(): known for known in SOURCES}.get(name.casefold())
    if found is None:
        hint = f"one of {', '.join(SOURCES)}; any other pictures go with --hr DIR"
        raise UsageError(f'there is no benchmark set "{name}"', hint)
    return found


def fetch_set(name: str, offline: bool = False, on_progress: OnUnpack | None = None) -> Path:
    """Return the folder of the HR pictures of a set, `datasets/NAME/HR` in the cache of this program.

    A folder that exists is returned without a request and without a look inside. Otherwise the archive is fetched, from
    the next source where the Hub cannot give the first, and unpacked completely or not at all.

    Raises:
        SetUnavailable: no source gives the set, `unpack_hr` refuses the archive, or the cache cannot be written.
    """
    sets = cache_dir() / "datasets"
    folder = sets / name
    if is_folder(folder):
        return folder / "HR"
    archive = _fetch_archive(name, offline)
    try:
        sets.mkdir(parents=True, exist_ok=True)
        _drop_abandoned(sets, name)
        # A rename is atomic: other processes see the whole set or no set.
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=sets) as unfinished:
            _unpack(archive, Path(unfinished) / name / "HR", on_progress)
            # The pictures first: a set that has its name is never looked into again.
            sync_files(Path(unfinished) / name)
            (Path(unfinished) / name).rename(folder)
            sync_folder(sets)
    except OSError as error:
        if not is_folder(folder):  # a folder that exists now is the work of another process, which was faster
            hint = next_step(error, "set DSCLORA_CACHE_DIR to a folder that can be written")
            raise SetUnavailable(f"cannot unpack {name} into {sets}: {error.strerror}", hint) from error
    return folder / "HR"


def _unpack(archive: Path, folder: Path, on_progress: OnUnpack | None) -> None:
    try:
        unpack_hr(archive, folder, on_progress)
    except ImageError as error:
        raise SetUnavailable(error.message, error.hint) from error


def _fetch_archive(name: str, offline: bool) -> Path:
    """Return the archive of a set from the first source that gives the archive. Raises SetUnavailable for no source."""
    failures = []
    for repo, file in SOURCES[name]:
        try:
            return fetch_dataset_file(repo, file, offline)
        except HubUnavailable as error:
            failures.append(error)
    reasons = "; ".join(error.message for error in failures)
    hint = next((error.hint for error in failures if "--data-dir" in error.hint), _HINT)
    raise SetUnavailable(f"{name} cannot be fetched: {reasons}", hint) from failures[0]


def _drop_abandoned(sets: Path, name: str) -> None:
    """Remove folders that killed processes left; a folder that still changes belongs to a running process."""
    for left in found_in(sets, f".{name}-*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


@dataclass(frozen=True)
class Limits:
    """Limits against archives that unpack to far more than their size (zip bombs)."""

    entries: int = 20_000
    """Number of files and folders."""

    size: int = 8 * 2**30
    """Bytes of all files together, unpacked."""

    ratio: int = 100
    """Unpacked bytes for each byte of the archive."""


ARCHIVE_LIMITS = Limits()


@dataclass(frozen=True)
class _Entry:
    """A regular file in an archive."""

    path: PurePosixPath

    size: int
    """Unpacked bytes."""

    open: Callable[[], IO[bytes] | None]


def unpack_hr(archive: Path, folder: Path, on_progress: OnUnpack | None = None) -> None:
    """Write the HR pictures of a .zip or .tar.gz, and nothing else, into a new folder.

    HR pictures are the pictures with a name that ends in `_HR`; else the pictures in a folder named `HR` or ending in
    `_HR`; else in `original`; else in `GTmod12`; else all pictures, if all are in one folder. Of several folders that
    match, the first by name is used.

    Args:
        archive: file of any name; the content decides the format.
        folder: folder to create.
        on_progress: callback for the bytes written.

    Raises:
        ImageError: before anything is written, an unsafe path, a link, a device, or a limit exceeded; while writing, a
            damaged archive.
        OSError: the disk fails. The caller removes the folder then.
    """
    try:
        with _open_archive(archive) as entries:
            chosen = _choose_hr(_check_entries(entries, archive.stat().st_size))
            folder.mkdir(parents=True)
            done, total = 0, sum(entry.size for entry in chosen)
            for entry in chosen:
                _write(entry, folder / entry.path.name)
                done += entry.size
                if on_progress:
                    on_progress(done, total)
    except ImageError as error:
        raise ImageError(f"{archive}: {error.message}", error.hint) from error
    # Decompressors and parsers raise many kinds of exceptions for a damaged file, OSError without `errno` among them.
    except Exception as error:
        # EINVAL: a place in the archive that no file has, such as one before the first byte.
        if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
            raise
        hint = "remove the file and run again to fetch it anew"
        raise ImageError(f"{archive}: damaged or truncated ({first_line(error)})", hint) from error


class _Gzip(gzip.GzipFile):
    """A gzip stream that refuses large reads.

    tarfile reads long-name and pax headers in one piece, of any size that the header states.
    """

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= 4 * _CHUNK:
            raise ImageError(f"a header asks for {size} bytes", _ARCHIVE_HINT)
        return super().read(size)


@contextmanager
def _open_archive(archive: Path) -> Iterator[Iterator[_Entry | None]]:
    """Yield an iterator over the entries, None for a folder. The iterator is lazy: a bomb must be noticed early."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _zip_entries(packed)
    else:
        with _Gzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tape:
            yield _tar_entries(tape, stream)


def _zip_entries(packed: zipfile.ZipFile) -> Iterator[_Entry | None]:
    """Yield the entries of a .zip, None for a folder."""
    for info in packed.infolist():
        # The other methods may ask for gigabytes of memory before they return the first byte.
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise ImageError(f"{info.filename!r} is packed by another method than deflate", _ARCHIVE_HINT)
        # The upper 16 bits hold the Unix mode; 0 where the archive was made elsewhere.
        kind = stat.S_IFMT(info.external_attr >> 16)
        is_regular = kind in {0, stat.S_IFREG}
        yield _entry(info.filename, info.is_dir(), is_regular, info.file_size, partial(packed.open, info))


def _tar_entries(tape: tarfile.TarFile, stream: _Gzip) -> Iterator[_Entry | None]:
    """Yield the entries of a .tar.gz, None for a folder; raise an error at the end for a wrong checksum."""
    for info in tape:
        yield _entry(info.name, info.isdir(), info.isreg(), info.size, partial(tape.extractfile, info))
    # tarfile stops before the padding at the end; reading the padding makes gzip check the checksum.
    stream.read(4 * _CHUNK)


def _entry(
    name: str, is_folder: bool, is_regular: bool, size: int, open_file: Callable[[], IO[bytes] | None]
) -> _Entry | None:
    """Return an entry, or None for a folder. Raises ImageError for an unsafe path, a link or a device."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not name.isprintable():
        raise ImageError(f"the path {name!r} leads out of the archive's own folder", _ARCHIVE_HINT)
    if any(len(part.encode()) > LONGEST_NAME for part in path.parts):
        raise ImageError(f"the path {name[:60]!r}... has a part longer than {LONGEST_NAME} bytes", _ARCHIVE_HINT)
    if is_folder:
        return None
    if not is_regular:
        raise ImageError(f"{name} is a link or a device", _ARCHIVE_HINT)
    return _Entry(path, size, open_file)


def _check_entries(entries: Iterable[_Entry | None], archive_size: int) -> list[_Entry]:
    """Return the files among the entries. Raises ImageError as soon as a limit is exceeded."""
    allowed = min(ARCHIVE_LIMITS.size, ARCHIVE_LIMITS.ratio * archive_size)
    files, size = [], 0
    for count, entry in enumerate(entries, start=1):
        size += entry.size if entry else 0
        if count > ARCHIVE_LIMITS.entries:
            raise ImageError(f"holds more than {ARCHIVE_LIMITS.entries} entries", _ARCHIVE_HINT)
        if size > allowed:
            raise ImageError(f"unpacks to more than the {allowed} bytes allowed for its size", _ARCHIVE_HINT)
        if entry:
            files.append(entry)
    return files


def _choose_hr(files: Iterable[_Entry]) -> list[_Entry]:
    """Return the HR pictures by the rule of `unpack_hr`. Raises ImageError for no picture, and for equal names."""
    pictures = [entry for entry in files if _is_picture(entry.path)]
    marked = [entry for entry in pictures if entry.path.stem.upper().endswith("_HR")]
    folders: dict[PurePosixPath, list[_Entry]] = {}
    for entry in sorted(marked or pictures, key=lambda entry: entry.path):
        folders.setdefault(entry.path.parent, []).append(entry)
    # The underscore makes one test of two: a folder named `HR`, and a folder whose name ends in `_HR`.
    named = [folder for name in _HR_FOLDERS for folder in folders if f"_{folder.name}".endswith(f"_{name}")]
    if not folders:
        raise ImageError("holds no pictures", _ARCHIVE_HINT)
    if not named and not marked and len(folders) > 1:
        listed = ", ".join(map(str, list(folders)[:4]))
        raise ImageError(f"its pictures lie in several folders, none of them named HR: {listed}", _ARCHIVE_HINT)
    chosen = folders[(named or list(folders))[0]]
    _refuse_equal_names(chosen)
    return chosen


def _refuse_equal_names(entries: Iterable[_Entry]) -> None:
    """Raise ImageError where two entries would be written to the same file."""
    # Without regard to case: on Windows and macOS `a.png` and `A.png` are one file.
    name, count = Counter(entry.path.name.casefold() for entry in entries).most_common(1)[0]
    if count > 1:
        raise ImageError(f"holds {name} twice", _ARCHIVE_HINT)


def _is_picture(path: PurePosixPath) -> bool:
    """Return whether a path is a picture by suffix. Hidden files and resource forks of macOS carry the suffix too."""
    return is_picture_name(Path(path)) and not any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _write(entry: _Entry, target: Path) -> None:
    """Write as many bytes as the entry states and not more, whatever the archive holds. Raises EOFError for fewer."""
    left = entry.size
    source = entry.open()
    assert source is not None  # a regular file
    with source, target.open("xb") as file:
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise EOFError(f"{entry.path} ends early")
            left -= file.write(chunk)
