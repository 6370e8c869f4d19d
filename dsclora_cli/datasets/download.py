"""The benchmark sets by name: where each lies on the Hub, and its HR pictures unpacked once into our cache.

Archives of pictures that came from elsewhere, unpacked so that they can do no harm.
"""

from __future__ import annotations

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

from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.hub import HubUnavailable, fetch_dataset_file
from dsclora_cli.imaging.formats import is_picture_name
from dsclora_cli.paths import cache_dir

SOURCES = {
    "Set5": (("eugenesiow/Set5", "data/Set5_HR.tar.gz"), ("goodfellowliu/Set5", "Set5.zip")),
    "Set14": (("eugenesiow/Set14", "data/Set14_HR.tar.gz"), ("goodfellowliu/Set14", "Set14.zip")),
    "BSD100": (("eugenesiow/BSD100", "data/BSD100_HR.tar.gz"), ("goodfellowliu/BSDS100", "BSDS100.zip")),
    "Urban100": (("eugenesiow/Urban100", "data/Urban100_HR.tar.gz"), ("goodfellowliu/Urban100", "Urban100.zip")),
    "Manga109": (("goodfellowliu/Manga109", "Manga109.zip"),),
    "DIV2K": (("goodfellowliu/DIV2K", "DIV2K_train_HR.zip"),),
    "DIV2K-valid": (("goodfellowliu/DIV2K", "DIV2K_valid_HR.zip"),),
}
"""Repository and file of each set's HR, in the order in which they are tried."""

_ABANDONED_SECONDS = 3600
_HINT = "try again later, or give the set as a folder with --data-dir DIR"


def set_name(name: str) -> str:
    """The set's own spelling of a name in any case. Raises UsageError, listing the sets, for an unknown one."""
    found = {known.casefold(): known for known in SOURCES}.get(name.casefold())
    if found is None:
        hint = f"one of {', '.join(SOURCES)}; any other pictures go with --hr DIR"
        raise UsageError(f'there is no benchmark set "{name}"', hint)
    return found


def fetch_set(name: str, offline: bool = False, on_progress: OnUnpack | None = None) -> Path:
    """The folder of the set's HR pictures, `datasets/NAME/HR` in our cache; where that is, nothing else is looked at.

    Else the archive is fetched, from the next source where the Hub does not give one, and unpacked as a whole or not
    at all. Raises ImageError where no source gives the set or the cache cannot be written, and as `unpack_hr` does.
    """
    sets = cache_dir() / "datasets"
    folder = sets / name
    if not folder.is_dir():
        archive = _fetch_archive(name, offline)
        try:
            sets.mkdir(parents=True, exist_ok=True)
            _drop_abandoned(sets, name)
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=sets) as unfinished:
                unpack_hr(archive, Path(unfinished) / name / "HR", on_progress=on_progress)
                (Path(unfinished) / name).rename(folder)
        except OSError as error:
            if not folder.is_dir():  # else another process was faster
                hint = "free some space, or set DSCLORA_CACHE_DIR to a folder that can be written"
                raise ImageError(f"cannot unpack {name} into {sets}: {error.strerror}", hint) from error
    return folder / "HR"


def _fetch_archive(name: str, offline: bool) -> Path:
    failures = []
    for repo, file in SOURCES[name]:
        try:
            return fetch_dataset_file(repo, file, offline)
        except HubUnavailable as error:
            failures.append(error)
    reasons = "; ".join(error.message for error in failures)
    hint = next((error.hint for error in failures if "--data-dir" in error.hint), _HINT)
    raise ImageError(f"{name} cannot be fetched: {reasons}", hint) from failures[0]


def _drop_abandoned(sets: Path, name: str) -> None:
    """Remove what a killed process left; a folder that still grows belongs to one that lives."""
    for left in sets.glob(f".{name}-*"):
        if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


OnUnpack = Callable[[int, int], None]
"""Told the bytes written so far and the bytes that there are."""

_CHUNK = 2**20
_HR_FOLDERS = ("HR", "original", "GTmod12")
_ARCHIVE_HINT = "do not use this copy; give the set as a folder with --data-dir DIR"


@dataclass(frozen=True)
class Limits:
    """What an archive may hold: entries, bytes when unpacked, and those in bytes of the archive."""

    entries: int = 20_000
    size: int = 8 * 2**30
    ratio: int = 100


@dataclass(frozen=True)
class _Entry:
    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack_hr(archive: Path, folder: Path, limits: Limits = Limits(), on_progress: OnUnpack | None = None) -> None:
    """Write the HR pictures of a .zip or .tar.gz, and nothing else, into `folder`, which is made.

    They are the pictures whose own names end in `_HR`; else those in a folder named `HR` or ending in `_HR`; else in
    `original`, else in `GTmod12`; else all, where they lie in one folder. Of several such folders the first by name.

    Raises ImageError before anything is written where a path is absolute or climbs, where an entry is a link or a
    device, or beyond `limits`; while writing, ImageError where the archive is damaged and OSError where the disk fails,
    and the folder is then the caller's to drop.
    """
    try:
        with _opened(archive) as entries:
            chosen = _choose(_checked(entries, limits, archive.stat().st_size))
            folder.mkdir(parents=True)
            done, total = 0, sum(entry.size for entry in chosen)
            for entry in chosen:
                _write(entry, folder / entry.path.name)
                done += entry.size
                if on_progress:
                    on_progress(done, total)
    except ImageError as error:
        raise ImageError(f"{archive}: {error.message}", error.hint) from error
    # The decompressors and parsers answer a broken file with exceptions of many kinds, OSError without a number too.
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        hint = "remove the file and run again to fetch it anew"
        raise ImageError(f"{archive}: damaged or truncated ({reason})", hint) from error


class _Gzip(gzip.GzipFile):
    """Gives at most a few megabytes at once: tarfile reads long-name and pax headers whole, however long they say."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= 4 * _CHUNK:
            raise ImageError(f"a header asks for {size} bytes", _ARCHIVE_HINT)
        return super().read(size)


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[_Entry | None]]:
    """The entries of the archive, one by one so that a bomb is noticed early; None stands for a folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield (_zip_entry(packed, info) for info in packed.infolist())
    else:
        with _Gzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tape:
            yield _tar_entries(tape, stream)


def _tar_entries(tape: tarfile.TarFile, stream: _Gzip) -> Iterator[_Entry | None]:
    for info in tape:
        yield _tar_entry(tape, info)
    stream.read(4 * _CHUNK)  # the padding, and so gzip's own look at its checksum


def _zip_entry(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Entry | None:
    path, kind = _safe(info.filename), stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir():
        return None
    if kind not in {0, stat.S_IFREG}:
        raise ImageError(f"{info.filename} is a link or a device", _ARCHIVE_HINT)
    return _Entry(path, info.file_size, partial(packed.open, info))


def _tar_entry(tape: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry | None:
    path = _safe(info.name)
    if info.isdir():
        return None
    if not info.isreg():
        raise ImageError(f"{info.name} is a link or a device", _ARCHIVE_HINT)
    return _Entry(path, info.size, partial(tape.extractfile, info))


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not name.isprintable():
        raise ImageError(f"the path {name!r} leads out of the archive's own folder", _ARCHIVE_HINT)
    return path


def _checked(entries: Iterable[_Entry | None], limits: Limits, archive_size: int) -> list[_Entry]:
    """The files among the entries; ImageError as soon as the limits are passed."""
    allowed = min(limits.size, limits.ratio * archive_size)
    files, size = [], 0
    for count, entry in enumerate(entries, start=1):
        size += entry.size if entry else 0
        if count > limits.entries:
            raise ImageError(f"holds more than {limits.entries} entries", _ARCHIVE_HINT)
        if size > allowed:
            raise ImageError(f"unpacks to more than the {allowed} bytes allowed for its size", _ARCHIVE_HINT)
        if entry:
            files.append(entry)
    return files


def _choose(files: Iterable[_Entry]) -> list[_Entry]:
    """The HR pictures by the rule of `unpack_hr`, no two of one name."""
    pictures = [entry for entry in files if _is_picture(entry.path)]
    marked = [entry for entry in pictures if entry.path.stem.upper().endswith("_HR")]
    folders: dict[PurePosixPath, list[_Entry]] = {}
    for entry in sorted(marked or pictures, key=lambda entry: entry.path):
        folders.setdefault(entry.path.parent, []).append(entry)
    named = [folder for name in _HR_FOLDERS for folder in folders if f"_{folder.name}".endswith(f"_{name}")]
    if not folders:
        raise ImageError("holds no pictures", _ARCHIVE_HINT)
    if not named and not marked and len(folders) > 1:
        listed = ", ".join(map(str, list(folders)[:4]))
        raise ImageError(f"its pictures lie in several folders, none of them named HR: {listed}", _ARCHIVE_HINT)
    chosen = folders[[*named, *folders][0]]
    name, count = Counter(entry.path.name.casefold() for entry in chosen).most_common(1)[0]
    if count > 1:
        raise ImageError(f"holds {name} twice", _ARCHIVE_HINT)
    return chosen


def _is_picture(path: PurePosixPath) -> bool:
    """By its suffix; hidden files and macOS's resource forks, which carry it too, are none."""
    return is_picture_name(Path(path)) and not any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _write(entry: _Entry, target: Path) -> None:
    left = entry.size
    source = entry.open()
    assert source is not None  # a regular file
    with source, target.open("xb") as file:
        while left:
            chunk = source.read(min(left, _CHUNK))
            if not chunk:
                raise EOFError(f"{entry.path} ends early")
            left -= file.write(chunk)
