"""Where the file of a catalog entry is, and how to get the file: `obtain` returns a verified path. No torch.

A file lies inside the package, next to the user's own catalog, in the Hub's cache, or comes from a web address.
Every file is checked by its sha256. A file from a web address may have no known sha256: the user then trusts the
address once, and the sha256 of the bytes that came is stored next to the file. Later, other bytes are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from dsclora_cli import hub
from dsclora_cli.errors import WeightsError, next_step
from dsclora_cli.hub_client import online_step
from dsclora_cli.paths import atomic_write, downloads_dir, is_file, is_inner_path, open_regular, sha256_of
from dsclora_cli.transfer import DiskError, Received, TooManyBytes, Watch, watched
from dsclora_cli.weights.catalog import EMBEDDED, WeightEntry
from dsclora_cli.weights.limits import MOST_WEIGHT_BYTES

OnBytes = Callable[[int, int | None], None]
"""Callback `(bytes so far, bytes in all)` during a download; the second number is None if the server does not say."""

_WINDOW_SECONDS = 30.0
"""Window in which a server must send `transfer.SLOWEST` bytes a second, and longest wait for a single answer."""

_BLOCK_BYTES = 1 << 18


class WeightPlace(StrEnum):
    """Where the bytes of an entry are."""

    EMBEDDED = "embedded"
    """Inside the package."""
    LOCAL = "local"
    """On this machine, where the user's own catalog says."""
    CACHED = "cached"
    """Downloaded before."""
    HUB = "on the Hub"
    """Not on this machine; a Hub repository has the file."""
    RELEASE = "on the web"
    """Not on this machine; a web address has the file."""
    MISSING = "missing"
    """Not where the catalog says, or with another sha256."""


def obtain(entry: WeightEntry, offline: bool = False, trust: bool = False, on_bytes: OnBytes | None = None) -> Path:
    """Return the path of an entry's file, downloaded if necessary and verified by sha256.

    Args:
        entry: Entry of the catalog.
        offline: Do not access the internet.
        trust: Accept any bytes from a web address without a known sha256.
        on_bytes: Callback for the progress of a download from a web address; the Hub's client shows its own progress.

    Raises:
        HubUnavailable: The Hub cannot give the file.
        WeightsError: The file is missing, has another sha256, is not trusted, or cannot be fetched or stored.
    """
    if entry.repo is not None:
        return hub.fetch_file(hub_file(entry, entry.repo), offline)
    if entry.url is not None:
        return _obtain_from_web(entry, entry.url, offline, trust, on_bytes)
    path = path_of(entry)
    if not is_file(path):
        raise WeightsError(f"the file of {entry.name} is missing: {path}", mend_local(entry))
    if sha256_of(path) != entry.sha256:
        problem = f"{path} does not have the sha256 pinned for {entry.name}: {entry.sha256}"
        raise WeightsError(problem, mend_local(entry))
    return path


def fetch_step(name: str, sha256: str) -> str:
    """Return the command, as a next step, that downloads a model; an empty `sha256` means an unknown one."""
    return f"run `dsclora models fetch {name}{'' if sha256 else ' --trust-unpinned'}`"


def mend_local(entry: WeightEntry) -> str:
    """Return the next step for a missing or damaged file inside the package, or next to the user's own catalog."""
    return "install dsclora again" if entry.folder == EMBEDDED else "put the file back or correct its table"


def place_of(entry: WeightEntry) -> WeightPlace:
    """Return where an entry's bytes are, without accessing the internet."""
    is_here = find_local(entry) is not None
    if entry.repo is not None:
        return WeightPlace.CACHED if is_here else WeightPlace.HUB
    if entry.url is not None:
        return WeightPlace.CACHED if is_here else WeightPlace.RELEASE
    if not is_here:
        return WeightPlace.MISSING
    return WeightPlace.EMBEDDED if entry.folder == EMBEDDED else WeightPlace.LOCAL


def find_local(entry: WeightEntry) -> Path | None:
    """Return the verified file of an entry if this machine has the file, without accessing the internet."""
    if entry.repo is not None:
        return hub.find_cached(hub_file(entry, entry.repo))
    path = path_of(entry)
    return path if _has_sha256(path, known_sha256(entry)) else None


def _has_sha256(path: Path, expected: str) -> bool:
    """Return whether a file can be read and has the expected sha256."""
    try:
        return is_file(path) and sha256_of(path) == expected
    except OSError:  # a file of another user
        return False


def known_sha256(entry: WeightEntry) -> str:
    """Return the sha256 in the catalog, else the stored sha256 of a trusted download, else an empty text."""
    if entry.sha256 or entry.url is None:
        return entry.sha256
    try:
        with open_regular(sha256_file(path_of(entry))) as file:
            text = file.read(100).decode("ascii").strip()
    except (OSError, ValueError):
        return ""
    return text if re.fullmatch("[0-9a-f]{64}", text) else ""


def hub_file(entry: WeightEntry, repo: str) -> hub.HubFile:
    """Return the file of an entry with a repository, in the terms of the Hub."""
    return hub.HubFile(repo, entry.file, entry.size, entry.sha256, entry.revision)


def path_of(entry: WeightEntry) -> Path:
    """Return the place of a file outside the Hub's cache; the file need not exist."""
    if entry.url is not None:
        name = urlsplit(entry.url).path.rpartition("/")[2]
        return downloads_dir() / entry.name / (name if is_inner_path(name) else "weights")
    return entry.folder / Path(entry.file).expanduser()


def sha256_file(path: Path) -> Path:
    """Return the place of the stored sha256 of a trusted download."""
    return path.with_name(f"{path.name}.sha256")


def _obtain_from_web(entry: WeightEntry, url: str, offline: bool, trust: bool, on_bytes: OnBytes | None) -> Path:
    path, expected = path_of(entry), known_sha256(entry)
    if expected and _has_sha256(path, expected):
        return path
    if offline or hub.is_offline():
        raise WeightsError(
            f"{entry.name} is not in the cache, and the program is offline",
            online_step(offline, hub.is_offline()),
        )
    if not expected and not trust:
        raise WeightsError(
            f"the catalogue has no sha256 for {entry.name}, at {url}",
            f"if you trust that address, run `dsclora models fetch {entry.name} --trust-unpinned` once",
        )
    return _fetch_from_web(entry, url, path, expected, on_bytes)


def _fetch_from_web(entry: WeightEntry, url: str, path: Path, expected: str, on_bytes: OnBytes | None) -> Path:
    """Download to `path`; without an expected sha256, store the sha256 of the download for later."""
    from http.client import HTTPException  # brings TLS and e-mail along, for a download only

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = next_step(error, "set DSCLORA_CACHE_DIR to a folder that can be written")
        raise WeightsError(f"cannot write to {path.parent}: {error.strerror}", hint) from error
    try:
        # A file with another sha256 never appears at `path`: the error leaves the context, which removes the file.
        with atomic_write(path) as temporary:
            found = _download(url, temporary, entry.size or MOST_WEIGHT_BYTES, on_bytes)
            if expected and found != expected:
                again = "" if entry.sha256 else f"; to accept the new file, remove {path.parent} and fetch it again"
                raise WeightsError(
                    f"{url} has the sha256 {found}, not the sha256 of {entry.name}, {expected}",
                    f"the file was refused{again}",
                )
        if not entry.sha256:
            with atomic_write(sha256_file(path)) as temporary:
                temporary.write_text(f"{found}\n", encoding="ascii")
    except TooManyBytes as error:
        raise WeightsError(f"{url} sends more bytes than {entry.name} has: refused", "choose another model") from error
    # URLError and time-outs are kinds of OSError; a server that speaks no HTTP, or a proxy without a name, are not.
    except (OSError, DiskError, HTTPException, ValueError) as error:
        raise WeightsError(
            f"{entry.name} cannot be fetched from {url}: {_reason(error)}",
            "try again later",
            "give a file of weights in place of the name",
        ) from error
    return path


def _reason(error: Exception) -> str:
    """Return in a few words why a download failed."""
    status = getattr(error, "code", None)  # only an HTTPError has a code
    if status:
        return f"HTTP {status}"
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    text = str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:160]


def _download(url: str, target: Path, limit: int, on_bytes: OnBytes | None) -> str:
    """Write the bytes at an address to a file, and return their sha256.

    Raises OSError, DiskError, HTTPException, ValueError, or TooManyBytes for more than `limit` bytes.
    """
    with target.open("w+b") as file:
        arriving = Received(file, limit)
        watched(
            _WINDOW_SECONDS,
            lambda watch: _receive(url, arriving, watch),
            (lambda watch: on_bytes(watch.received, watch.total)) if on_bytes else None,
        )
        return arriving.sha256


def _receive(url: str, arriving: Received, watch: Watch) -> None:
    import urllib.request  # slow to import, and needed for a download only

    headers = {"User-Agent": "dsclora", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the catalog allows no file:
    with urllib.request.urlopen(request, timeout=_WINDOW_SECONDS) as answer:  # noqa: S310
        if url.startswith("https:") and not answer.url.startswith("https:"):
            raise OSError("the server leads to an address without encryption")
        length = answer.headers.get("Content-Length", "")
        watch.total = int(length) if re.fullmatch("[0-9]{1,18}", length) else None
        if (watch.total or 0) > arriving.limit:
            raise TooManyBytes
        # `read1` returns the bytes that are there; `read` would wait for a whole block.
        arriving.write_all(iter(lambda: answer.read1(_BLOCK_BYTES), b""), watch)
    # `read1` returns no bytes, and raises nothing, where the server closes the connection early.
    if watch.total is not None and arriving.size != watch.total:
        raise OSError(f"the connection broke after {arriving.size} of {watch.total} bytes")
