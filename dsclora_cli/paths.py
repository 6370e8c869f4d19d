"""Folders of configuration, state and caches; atomic writing and hashing of files."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import select
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BufferedReader, BufferedWriter
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

APP = "dsclora"

_OLD_PART = 24 * 3600
"""Seconds without a change after which a temporary file of another machine belongs to a run that was killed."""

_REFUSED = frozenset('\\:*?"<>|')
"""Characters that separate folders, or have a meaning of their own, on Windows."""

MOST_TEXT = 1 << 26
"""Bytes of the longest text file that is read."""

PIPE_SECONDS = 30.0
"""Longest time without a byte from a pipe."""

_CHUNK = 1 << 20  # bytes that are read at once

_MOST_LINKS = 40  # as Linux; more lead in a circle

LONGEST_NAME = 255
"""Bytes of the longest file name on most file systems."""


def config_dir() -> Path:
    """Return the folder of the user's `config.toml` and `weights.toml`: DSCLORA_CONFIG_DIR or the platform's folder."""
    return _folder("DSCLORA_CONFIG_DIR", "user_config_path")


def state_dir() -> Path:
    """Return the folder for records of finished work: DSCLORA_STATE_DIR, else the platform's folder."""
    return _folder("DSCLORA_STATE_DIR", "user_state_path")


def cache_dir() -> Path:
    """Return the folder for files that can be made again: DSCLORA_CACHE_DIR, else the platform's folder.

    Weights from the Hub lie in the Hub's own cache; see `hub.cache_folder`.
    """
    return _folder("DSCLORA_CACHE_DIR", "user_cache_path")


def engines_dir() -> Path:
    """Return the folder in the cache for networks that were converted for an engine."""
    return cache_dir() / "engines"


def downloads_dir() -> Path:
    """Return the folder in the cache for weights from web addresses."""
    return cache_dir() / "weights"


def _folder(variable: str, name: str) -> Path:
    """Return the folder of a variable, else the platform's folder, else a private folder for a user without a home."""
    value = os.environ.get(variable)
    try:
        folder = Path(value).expanduser() if value else _platform_folder(name)
    except (RuntimeError, ValueError, LookupError, OSError):  # several versions, several exceptions
        folder = Path("~")
    # Nothing is ever written into a folder that is called `~`.
    return _homeless_folder() / name if folder.parts[:1] == ("~",) else folder


def _platform_folder(name: str) -> Path:
    """Return the folder that a function of platformdirs, such as `user_cache_path`, finds for dsclora."""
    import platformdirs  # absent on a borrowed machine that has little more than torch

    find: Callable[..., Path] = getattr(platformdirs, name)
    return find(APP, appauthor=False)


@lru_cache(maxsize=1)
def _homeless_folder() -> Path:
    """Return a folder in the system's temporary folder that no other user can write to."""
    folder = Path(tempfile.gettempdir()) / f"{APP}-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    # Anybody could have created a folder, or a link, with this name before.
    found = folder.lstat()
    mine = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
    return folder if stat.S_ISDIR(found.st_mode) and mine else Path(tempfile.mkdtemp(prefix=f"{APP}-"))


@contextmanager
def atomic_write(path: Path, rescue: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a hidden temporary file next to `path`; rename the file to `path` at the end of the context.

    After an exception the temporary file is removed, and an older file at `path` stays. No reader ever sees half a
    file, also after a power cut. Raises OSError.

    Args:
        path: Name of the whole file.
        rescue: Called with the temporary file after an exception, before the removal; may give the file another name.
    """
    check_path(path)
    remove_abandoned_files(path.parent)
    temporary, claimed = _part_name(path), None
    try:
        while (claimed := _claim(temporary)) is None:
            temporary = _part_name(path)
        yield temporary
        # The bytes first: a file system may otherwise write the new name before the bytes.
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        if rescue:
            with suppress(OSError):  # as below; also where the file has its name already
                rescue(temporary)
        raise
    finally:
        with suppress(OSError):  # the error of the caller says more
            temporary.unlink(missing_ok=True)
        if claimed is not None and claimed >= 0:
            os.close(claimed)


@contextmanager
def open_output(path: Path) -> Iterator[BufferedWriter]:
    """Yield a file that is open for writing: a new one that replaces `path` at the end, or a pipe or a device itself.

    The file that a link leads to is replaced, and not the link. Raises OSError.
    """
    if is_stream(path):
        with path.open("wb") as file:
            yield file
        return
    with atomic_write(behind_links(path)) as temporary, temporary.open("wb") as file:
        yield file


def behind_links(path: Path) -> Path:
    """Return the place that a link leads to, in its folder as the system finds it; other paths stay. Raises OSError."""
    place = path
    for _ in range(_MOST_LINKS):
        if not is_link(place):
            # Strict: for an absent folder `x`, `x/../a` would become `a`, a file that nobody has asked about. A path
            # that is no link stays: the process may use folders that it may not list, where the search fails.
            return place if place is path else Path(os.path.realpath(place.parent, strict=True), place.name)
        place = place.parent / place.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def is_taken(path: Path) -> bool:
    """Return whether something is at a path; False where the system refuses the path, as reading or writing then tells.

    `Path.exists`, `is_dir`, `is_file` and `is_symlink` raise for a name that is too long, and for a folder that may not
    be entered.
    """
    return os.path.exists(path)  # noqa: PTH110


def check_path(path: Path) -> None:
    """Raise OSError where no file can or may get a path, before work is spent on the file.

    A name is longer than the file system takes, or a pipe or a device would be replaced, or `..` stands behind a folder
    that does not exist: as soon as somebody makes the folder, the path would mean another file.
    """
    mode = stat.S_IFREG
    with suppress(OSError):  # nothing is there
        mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EEXIST, "a pipe or a device has this name", str(path))
    for number in [number for number, part in enumerate(path.parts, start=1) if part == ".."]:
        Path(*path.parts[:number]).stat()
    path = folder = path.absolute()
    while not is_folder(folder) and folder != folder.parent:
        folder = folder.parent
    for name in path.parts[len(folder.parts) :]:
        try:
            os.lstat(folder / name)  # only the file system knows whether it counts bytes or letters
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise


def is_folder(path: Path) -> bool:
    """Return whether a folder is at a path; else as `is_taken`."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Return whether a regular file is at a path, and no pipe or device; else as `is_taken`."""
    return os.path.isfile(path)  # noqa: PTH113


def is_link(path: Path) -> bool:
    """Return whether a symbolic link is at a path; else as `is_taken`."""
    return os.path.islink(path)  # noqa: PTH114


def found_in(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the paths in a folder that match a glob, in order; none where the folder is absent or may not be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def may_write_below(folder: Path) -> bool:
    """Return whether the permissions allow new files in a folder, or to make the folder first."""
    there = next((place for place in (folder, *folder.absolute().parents) if is_taken(place)), folder)
    return is_folder(there) and is_allowed(there, os.W_OK | os.X_OK)


def is_allowed(path: Path, mode: int) -> bool:
    """Return whether this process may do what `mode` says, such as `os.R_OK`, with what is at a path."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def is_stream(path: Path) -> bool:
    """Return whether a pipe or a device is at a path, or a folder, which no file can replace; else as `is_taken`."""
    return is_taken(path) and not is_file(path)


def _part_name(path: Path) -> Path:
    """Return a new hidden name next to `path`: a rename is atomic only inside one file system."""
    return path.with_name(f".dsclora-{_kernel_tag()}{secrets.token_hex(8)}.part")


def _claim(part: Path) -> int | None:
    """Create a file, and return the descriptor that holds a lock on the file; None where the file is lost already.

    The system frees the lock of a killed process, so a file without a lock may be removed at once. Windows, where an
    open file can be neither renamed nor removed, has no lock, and the result is -1. Raises OSError.
    """
    if fcntl is None:
        return -1
    claimed = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    # Between creation and lock, another process may have found the file and taken the lock, to remove the file.
    if _lock(claimed) is not False and os.fstat(claimed).st_nlink:
        return claimed
    os.close(claimed)
    return None


def _lock(descriptor: int) -> bool | None:
    """Lock an open file, and return whether the lock was free; None where the file system has no locks."""
    assert fcntl is not None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@lru_cache(maxsize=1)
def _kernel_tag() -> str:
    """Return a tag for the running system, empty where unknown.

    Several file systems of networks show a lock to processes of the same machine only.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return ""
    return f"{hashlib.sha256(boot + os.uname().nodename.encode()).hexdigest()[:12]}-"


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can."""
    with suppress(OSError):  # Windows opens no folders, and some file systems sync none
        sync_file(folder)


def sync_files(folder: Path) -> None:
    """Wait until all files in a folder and its inner folders, and their names, are on the disk. Raises OSError."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(place, name))
        sync_folder(Path(place))


def sync_file(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk. Raises OSError."""
    # Windows syncs only files that are open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=4096)
def remove_abandoned_files(folder: Path) -> None:
    """Remove the temporary files of killed runs from a folder; once in the life of a process."""
    for file in found_in(folder, ".dsclora-*.part"):
        with suppress(OSError):
            is_abandoned(file, remove=True)


def is_abandoned(part: Path, remove: bool = False) -> bool:
    """Return whether a temporary file belongs to a killed run, and `remove` such a file. Raises OSError."""
    own = _kernel_tag()
    has_lock = fcntl is not None and bool(own) and part.name.startswith(f".dsclora-{own}")
    # Never through a link or into a pipe with the name of a temporary file.
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK) if has_lock else None
    try:
        is_old = time.time() - part.lstat().st_mtime > _OLD_PART
        found = is_old if descriptor is None else _lock(descriptor) is True
        # Removed before the lock is free again: nobody can claim the file in between.
        if found and remove:
            part.unlink(missing_ok=True)
        return found
    finally:
        if descriptor is not None:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes: 64 lower-case hex digits. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises OSError for a pipe, a device or a socket, whose bytes may never end."""
    # Without O_NONBLOCK, opening a pipe waits for a writer. The flag changes nothing for regular files.
    waitless = getattr(os, "O_NONBLOCK", 0)
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | waitless))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def append_line(path: Path, line: str, is_synced: bool = False) -> None:
    """Add a line to a regular file, which is made where absent; `is_synced` waits until the line is on the disk.

    Raises OSError, for a pipe or a device as well.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, 0o666), "ab") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        file.write(f"{line}\n".encode())
        if is_synced:
            file.flush()
            os.fsync(file.fileno())


def read_small(path: Path) -> str:
    """Return the text of a regular file of at most 64 MiB: a record, a note, settings. Raises OSError and ValueError.

    Some editors begin UTF-8 with a byte order mark, which is no part of the text.
    """
    with open_regular(path) as file:
        data = file.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        raise ValueError(f"{path} is larger than 64 MiB")
    return data.decode("utf-8-sig")


def read_named(path: Path) -> bytes:
    """Return the bytes of a text file or a pipe that the user names, at most 64 MiB. Raises OSError."""
    return b"".join(named_chunks(path, MOST_TEXT))


def named_chunks(path: Path, limit: float) -> Iterator[bytes]:
    """Yield the bytes of a file or a pipe that the user names, a part at a time.

    Raises OSError, also for more than `limit` bytes; `inf` is no limit.
    """
    if stat.S_ISFIFO(path.stat().st_mode):
        yield from _pipe_chunks(path, limit)
        return
    size = 0
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise OSError(errno.EFBIG, f"larger than {int(limit) >> 20} MiB", str(path))
            yield chunk


def read_pipe(path: Path, limit: int) -> bytes:
    """Return all bytes of a named pipe, such as of the shell's `<(command)`, at most `limit`.

    Raises OSError, also where nothing comes for `PIPE_SECONDS`: a pipe without a writer never ends.
    """
    return b"".join(_pipe_chunks(path, limit))


def _pipe_chunks(path: Path, limit: float) -> Iterator[bytes]:
    size = 0
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while size <= limit:
            if not select.select([descriptor], [], [], PIPE_SECONDS)[0]:
                reason = f"nothing came through the pipe for {PIPE_SECONDS:g} seconds"
                raise OSError(errno.ETIMEDOUT, reason, str(path))
            chunk = os.read(descriptor, _CHUNK)
            if not chunk:
                return
            size += len(chunk)
            yield chunk
    finally:
        os.close(descriptor)
    raise OSError(errno.EFBIG, f"more than {int(limit) >> 20} MiB came through the pipe", str(path))


def is_inner_path(name: str) -> bool:
    """Return whether a relative path from outside, with `/` between parts, stays in its folder on all systems."""
    parts = name.split("/")
    return (
        name.isprintable()
        and not _REFUSED.intersection(name)
        and all(part.strip(". ") and len(part.encode()) <= LONGEST_NAME for part in parts)
    )
