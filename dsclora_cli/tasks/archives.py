"""Archives of pictures that came from elsewhere, unpacked so that they can do no harm."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.reader import is_picture_name

OnUnpack = Callable[[int, int], None]
"""Told the bytes written so far and the bytes that there are."""

_CHUNK = 2**20
_HR_FOLDERS = ("HR", "original", "GTmod12")
_HINT = "do not use this copy; give the set as a folder with --data-dir DIR"


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
            raise ImageError(f"a header asks for {size} bytes", _HINT)
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
        raise ImageError(f"{info.filename} is a link or a device", _HINT)
    return _Entry(path, info.file_size, partial(packed.open, info))


def _tar_entry(tape: tarfile.TarFile, info: tarfile.TarInfo) -> _Entry | None:
    path = _safe(info.name)
    if info.isdir():
        return None
    if not info.isreg():
        raise ImageError(f"{info.name} is a link or a device", _HINT)
    return _Entry(path, info.size, partial(tape.extractfile, info))


def _safe(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not name.isprintable():
        raise ImageError(f"the path {name!r} leads out of the archive's own folder", _HINT)
    return path


def _checked(entries: Iterable[_Entry | None], limits: Limits, archive_size: int) -> list[_Entry]:
    """The files among the entries; ImageError as soon as the limits are passed."""
    allowed = min(limits.size, limits.ratio * archive_size)
    files, size = [], 0
    for count, entry in enumerate(entries, start=1):
        size += entry.size if entry else 0
        if count > limits.entries:
            raise ImageError(f"holds more than {limits.entries} entries", _HINT)
        if size > allowed:
            raise ImageError(f"unpacks to more than the {allowed} bytes allowed for its size", _HINT)
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
        raise ImageError("holds no pictures", _HINT)
    if not named and not marked and len(folders) > 1:
        listed = ", ".join(map(str, list(folders)[:4]))
        raise ImageError(f"its pictures lie in several folders, none of them named HR: {listed}", _HINT)
    chosen = folders[[*named, *folders][0]]
    name, count = Counter(entry.path.name.casefold() for entry in chosen).most_common(1)[0]
    if count > 1:
        raise ImageError(f"holds {name} twice", _HINT)
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
