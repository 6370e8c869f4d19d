"""Download files from the Hugging Face Hub into the cache of its client.

`fetch_file` is the entry point. Weights are pinned by sha256. Archives of data sets have no pin, because the
fingerprint of a data set covers their contents. Cached files are found by reading the client's cache folder, so a
cached file costs neither a request nor the import of the client. The client gives addresses, headers, the token and the
connection; the bytes are received and stored here, because the client trusts the server with names and sizes.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from dsclora_cli.errors import DscloraError, WeightsError
from dsclora_cli.hub_client import (
    HUB,
    HubUnavailable,
    check_settings,
    connection_errors,
    connection_failure,
    head,
    one_line,
    online_step,
    progress_bar,
    quiet_client,
    start_client,
    stream,
)
from dsclora_cli.paths import found_in, is_file, is_inner_path, is_link, sha256_of, sync_file, sync_folder
from dsclora_cli.transfer import DiskError, Received, TooManyBytes, Watch, claim, is_ours, release, watched, within

PROBE_SECONDS = 4.0
"""Longest wait for the first answer of the Hub; HF_HUB_ETAG_TIMEOUT overrides the number."""

LISTING_SECONDS = 20.0
"""Longest wait for the list of files in a repository."""

LISTING_BYTES = 2**24
"""Longest list of files in a repository."""

WINDOW_SECONDS = 10.0
"""Window in which a download must bring `transfer.SLOWEST` bytes a second; HF_HUB_DOWNLOAD_TIMEOUT overrides."""

MOST_BYTES = 8 * 2**30
"""Largest file without a pin."""

TRIES = 5
"""Number of tries in a row without a single new byte, after which a broken connection is an error."""

RETRY_SECONDS = 1.0

T = TypeVar("T")

GONE = "no longer in its repository"
"""Reason of a HubUnavailable: the repository has no file with the pinned sha256."""

NO_REPO = "repository not found"
"""Reason of a HubUnavailable: the repository does not exist, or this user may not see the repository."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SPACE_HINT = "free some space, or set HF_HUB_CACHE to a folder that can be written"
_UNUSABLE, _LATER = "unusable answer of the Hub", "try again later"
_PAGES = {"model": "", "dataset": "datasets/"}
_INSTEAD = {"model": "give a file of weights in place of the name", "dataset": "give a folder with --data-dir DIR"}


@dataclass(frozen=True)
class HubFile:
    """A file in a repository of the Hub."""

    repo: str
    """Repository, `owner/name`."""

    file: str
    """Path inside the repository."""

    size: int = 0
    """Size in bytes; read only together with `sha256`."""

    sha256: str | None = None
    """Expected sha256, the pin. Without a pin any cached copy is accepted, else the Hub's current file."""

    revision: str | None = None
    """Tag, branch or commit; None means the default branch."""

    kind: str = "model"
    """Kind of the repository: model or dataset."""


def fetch_file(wanted: HubFile, offline: bool = False) -> Path:
    """Return the path of a file in the client's cache, downloaded and verified if necessary.

    A cached file needs no request. `offline`, like HF_HUB_OFFLINE, opens no socket.

    Raises:
        HubUnavailable: The Hub cannot give the file; without internet, within `PROBE_SECONDS`.
        WeightsError: The bytes have another sha256; they are removed from the cache.
    """
    path = find_cached(wanted)
    if path is not None:
        return path
    if offline or is_offline():
        message = f"{wanted.file} of {wanted.repo} is not in the cache, and the program is offline"
        raise HubUnavailable("offline", message, online_step(offline, is_offline()), _INSTEAD[wanted.kind])
    return _Download(wanted).run()


def locate_file(wanted: HubFile) -> None:
    """Ask the Hub whether it has a file, without downloading the file. Raises HubUnavailable."""
    request = _Download(wanted)
    request.with_client(request.locate)


@dataclass(frozen=True)
class ListedFile:
    """A file in the Hub's description of a repository."""

    size: int
    """Size in bytes; 0 where the Hub states none."""
    sha256: str | None
    """sha256 of a large file; None for a small file, which the Hub lists without one."""
    blob: str = ""
    """Object id in git: of a small file, the SHA-1 of the bytes behind a header."""


@dataclass(frozen=True)
class RepoDescription:
    """A model repository in the words of the Hub."""

    licence: str
    """Licence in the model card; empty where the card names none."""
    files: Mapping[str, ListedFile]
    """Path inside the repository to facts."""
    commit: str = ""
    """Commit that the description is about."""
    private: bool = False
    """Whether only the owner sees the repository."""


def describe_repo(repo: str, revision: str | None = None) -> RepoDescription:
    """Return the files and the licence of a model repository. Raises HubUnavailable."""
    download = _Download(HubFile(repo, "the list of files", revision=revision))
    listing = download.with_client(lambda: download.listing(revision))
    if not listing:
        message = f"{repo} at {download.endpoint} has no revision {revision or 'main'}"
        raise HubUnavailable("no such revision", message, "check the part after @")
    card = listing.get("cardData")
    licence = str(card.get("license_name") or card.get("license") or "") if isinstance(card, dict) else ""
    files = dict(_listed(listing))
    return RepoDescription(licence[:80], files, str(listing.get("sha") or ""), listing.get("private") is True)


def _listed(listing: Mapping[str, Any]) -> Iterator[tuple[str, ListedFile]]:
    """Yield path and facts of the entries in the Hub's list of files; an entry of another type is no file."""
    siblings = listing.get("siblings")
    for file in siblings if isinstance(siblings, list) else ():
        if not isinstance(file, dict):
            continue
        size, large = file.get("size"), file.get("lfs")
        sha256 = large.get("sha256") if isinstance(large, dict) else None
        if not isinstance(size, int) or size < 0:  # the size limits the download
            size, sha256 = 0, None
        right = isinstance(sha256, str) and _SHA256.fullmatch(sha256)
        yield str(file.get("rfilename")), ListedFile(size, sha256 if right else None, str(file.get("blobId") or ""))


def fetch_dataset_file(repo: str, file: str, offline: bool = False) -> Path:
    """Return a file of a data-set repository: any cached revision, else the newest. Raises HubUnavailable."""
    return fetch_file(HubFile(repo, file, kind="dataset"), offline)


def find_cached(wanted: HubFile) -> Path | None:
    """Return a file in the client's cache, if the cache has the file in any revision.

    A pinned file is found by its bytes, whatever its name is; a file without a pin by its name.
    """
    found = found_in(repo_folder(wanted) / "snapshots", "**/*") if wanted.sha256 else _named_copies(wanted)
    return next((path for path in found if _is(path, wanted)), None)


def list_copies(wanted: HubFile) -> tuple[Path, ...]:
    """Return everything in the client's cache that claims to be a pinned file, whatever the bytes are now.

    A claim is the pinned path in any revision, or a blob with the pinned sha256 as name.
    """
    found = {*_named_copies(wanted), repo_folder(wanted) / "blobs" / (wanted.sha256 or "")}
    # A link and the blob behind the link are one copy.
    return tuple(sorted({path.resolve() for path in found if is_file(path)}))


def _named_copies(wanted: HubFile) -> list[Path]:
    """Return everything in the client's cache with the path of a file, in any revision."""
    return found_in(repo_folder(wanted) / "snapshots", f"*/{glob.escape(wanted.file)}")


def list_partial(wanted: HubFile) -> tuple[Path, ...]:
    """Return the unfinished downloads in the cache folder of a repository."""
    return tuple(found_in(repo_folder(wanted) / "blobs", "*.incomplete"))


def drop_copy(wanted: HubFile, copy: Path) -> None:
    """Remove a file of a repository from the client's cache, and all links to the file. Raises OSError."""
    snapshots = repo_folder(wanted) / "snapshots"
    # The links first: a link to nothing would make other programs believe in a file.
    for link in [path for path in found_in(snapshots, "**/*") if is_link(path) and path.resolve() == copy]:
        link.unlink()
        with suppress(OSError):  # other files are left in the folder
            link.parent.rmdir()
    copy.unlink(missing_ok=True)


def _is(path: Path, wanted: HubFile) -> bool:
    """Return whether a path is a regular file with the wanted bytes."""
    try:
        # The size is compared first: hashing every file of a large repository would take seconds.
        if not is_file(path) or (wanted.sha256 and path.stat().st_size != wanted.size):
            return False
        return not wanted.sha256 or sha256_of(path) == wanted.sha256
    except OSError:
        return False


def repo_folder(wanted: HubFile) -> Path:
    """Return the folder of a repository in the client's cache."""
    return cache_folder() / f"{wanted.kind}s--{wanted.repo.replace('/', '--')}"


def cache_folder() -> Path:
    """Return the client's cache: HF_HUB_CACHE, else `hub` in HF_HOME, else below XDG_CACHE_HOME or ~/.cache."""
    value = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if not value:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        value = (os.environ.get("HF_HOME") or f"{caches}/huggingface") + "/hub"
    # Not `Path.expanduser`, which raises an exception for a user without a home.
    return Path(os.path.expanduser(os.path.expandvars(value)))  # noqa: PTH111


def endpoint() -> str:
    """Return the address of the Hub: HF_ENDPOINT, else the public Hub."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE, or TRANSFORMERS_OFFLINE as in the client, forbids all requests."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


class _Download:
    """The download of one file into the client's cache; every failure of the client becomes one line."""

    def __init__(self, wanted: HubFile) -> None:
        self.wanted = wanted
        self.endpoint = endpoint()
        self.where = {"repo_type": wanted.kind, "endpoint": self.endpoint}
        self.headers: dict[str, str] = {}

    def run(self) -> Path:
        """Return the path of the downloaded, verified file. Raises as `fetch_file`."""
        return self.with_client(lambda: self.download(*self.locate()))

    def with_client(self, call: Callable[[], T]) -> T:
        """Return the result of a call that uses the client. Raises as `fetch_file`."""
        try:
            check_settings(self.endpoint)
            with quiet_client():
                self.headers = start_client()
                return call()
        except DscloraError:
            raise
        # A client with these many settings raises nearly everything; none of it may end a run that has other weights.
        except Exception as error:
            raise self.explain(error) from error

    def locate(self) -> tuple[str, str | None]:
        """Return path and commit of the file: the pinned path, or another path with the same bytes."""
        from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError
        from huggingface_hub.file_download import hf_hub_url

        wanted = self.wanted
        url = hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision, **self.where)
        seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or PROBE_SECONDS)
        try:
            found = within(seconds, lambda: head(url, self.headers, seconds))
        except (EntryNotFoundError, RevisionNotFoundError):
            if wanted.sha256 is None:
                raise
            return self.search()
        # The etag of a large file is its sha256; small files have a git hash, and are checked after the download.
        etag = (found.get("X-Linked-Etag") or found.get("ETag") or "").removeprefix("W/").strip('"')
        if wanted.sha256 and etag != wanted.sha256 and _SHA256.fullmatch(etag):
            return self.search()
        return wanted.file, found.get("X-Repo-Commit")

    def search(self) -> tuple[str, str | None]:
        """Return path and commit of the file with the wanted sha256, in the pinned revision, else the default one."""
        wanted = self.wanted
        for revision in dict.fromkeys((wanted.revision, None)):
            listing = self.listing(revision)
            for file, listed in _listed(listing):
                if listed.sha256 == wanted.sha256:
                    return file, str(listing.get("sha"))
        raise HubUnavailable(
            GONE,
            f"{wanted.repo} at {self.endpoint} lists no file with sha256 {wanted.sha256}, pinned for {wanted.file}",
            "update dsclora, or choose another model: see `dsclora models list`",
        )

    def listing(self, revision: str | None) -> dict[str, Any]:
        """Return the Hub's description of a repository, `{}` for a revision that is gone.

        Not by the client's `model_info`, which reads answers of any length.
        """
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        url = f"{self.endpoint}/api/models/{self.wanted.repo}{at}?blobs=true"

        def read() -> bytes:
            body = io.BytesIO()
            with stream(url, self.headers, LISTING_SECONDS) as answer:
                if answer.headers.get("X-Error-Code") == "RevisionNotFound":
                    return b"{}"
                if answer.status in {401, 404}:  # 401 for a repository that does not exist, without a token
                    raise self.not_found()
                self.check_status(answer.status)
                Received(body, LISTING_BYTES).write_all(answer.blocks, Watch())
            return body.getvalue()

        try:
            found = json.loads(within(LISTING_SECONDS, read))
        except (TooManyBytes, ValueError, RecursionError) as error:
            message = f"{self.endpoint} has no list of the files of {self.wanted.repo} that can be read"
            raise HubUnavailable(_UNUSABLE, message, _LATER, _INSTEAD[self.wanted.kind]) from error
        return found if isinstance(found, dict) else {}

    def check_status(self, status: int) -> None:
        """Raise HubUnavailable for the status code of an answer without a file."""
        if status >= 300:
            raise self.refusal(status)

    def refusal(self, status: int) -> HubUnavailable:
        """Return the error for users for a status code."""
        hint = "check HF_TOKEN or unset it" if status in {401, 403} else _LATER
        message = f"{self.endpoint} answered {status} for {self.wanted.file} of {self.wanted.repo}"
        return HubUnavailable(f"the Hub answered {status}", message, hint)

    def download(self, file: str, commit: str | None) -> Path:
        """Download into the client's cache, and return the path of the verified file.

        No name and no size comes from the server: the blob is called by the sha256 of the bytes that came.
        """
        from huggingface_hub.file_download import hf_hub_url

        wanted, folder = self.wanted, repo_folder(self.wanted)
        if not _COMMIT.fullmatch(commit or "") or not is_inner_path(file):
            message = f"{self.endpoint} names the file {file[:80]!r} at the commit {(commit or '')[:80]!r}"
            raise HubUnavailable(_UNUSABLE, message, _LATER, _INSTEAD[wanted.kind])
        url = hf_hub_url(wanted.repo, file, revision=commit, **self.where)
        seconds = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or WINDOW_SECONDS)
        incomplete = folder / "blobs" / f"{wanted.sha256 or hashlib.sha256(url.encode()).hexdigest()}.incomplete"
        with self.cache_errors():
            self.check_home()
            incomplete.parent.mkdir(parents=True, exist_ok=True)
            opened = claim(incomplete, 2 * seconds)
        own = os.fstat(opened.fileno())
        try:
            with opened:
                cached = find_cached(wanted)  # by the other process
                if cached is not None:
                    return cached
                arriving = Received(opened, wanted.size if wanted.sha256 else MOST_BYTES)
                with progress_bar(file) as on_watch:
                    watched(seconds, lambda watch: self.receive(url, arriving, watch, seconds), on_watch)
            if wanted.sha256 not in {None, arriving.sha256}:
                raise self.wrong_bytes(file)
            with self.cache_errors():
                if is_ours(own, incomplete):
                    sync_file(incomplete)
                    return _store(incomplete, folder, arriving.sha256, f"{commit}/{file}")
        finally:
            release(own, incomplete)
        # This process stood still, as in a machine that slept, and another process took the claim of a dead one.
        return self.download(file, commit)

    def check_home(self) -> None:
        """Raise OSError for a user without a home, instead of creating a folder called `~`."""
        if cache_folder().parts[:1] == ("~",):
            raise OSError("there is no home folder")

    def receive(self, url: str, arriving: Received, watch: Watch, seconds: float) -> None:
        """Write the file that a server sends; resume where a broken connection stopped, a few times."""
        left = TRIES
        while True:
            start = arriving.size
            resume = {"range": f"bytes={start}-"} if start else {}
            try:
                with stream(url, self.headers | resume, seconds) as answer:
                    self.check_status(answer.status)
                    if start and not answer.starts_at(start):
                        arriving.restart()
                    self.check_size(arriving, answer.length)
                    watch.total = answer.length and arriving.size + answer.length
                    arriving.write_all(answer.blocks, watch)
                return
            except connection_errors():
                left = TRIES if arriving.size > start else left - 1
                if not left or watch.stopped:
                    raise
                time.sleep(RETRY_SECONDS)

    def check_size(self, arriving: Received, length: int | None) -> None:
        """Raise an exception early where the server states a size that is too large for the pin or for the disk."""
        if arriving.size + (length or 0) > arriving.limit:
            raise TooManyBytes
        free = shutil.disk_usage(cache_folder()).free
        if (length or 0) > free:
            message = f"{cache_folder()} has {free} bytes free, and {self.wanted.file} needs {length}"
            raise HubUnavailable("no space in the cache", message, _SPACE_HINT)

    def wrong_bytes(self, file: str) -> WeightsError:
        """Return the error for bytes other than the pinned ones, which must end a run with `auto` as well."""
        return WeightsError(
            f"{file} of {self.wanted.repo} does not have the pinned sha256 {self.wanted.sha256}: refused, not kept",
            "the file was changed or damaged on its way; try again, or choose another model",
        )

    @contextmanager
    def cache_errors(self) -> Iterator[None]:
        """Raise HubUnavailable for an OSError of the disk."""
        try:
            yield
        except OSError as error:
            raise self.explain(DiskError(error)) from error

    def explain(self, error: BaseException) -> DscloraError:
        """Return the error for users, with the next step, for an exception of the client or of the disk."""
        if isinstance(error, DiskError):
            message = f"cannot write to {cache_folder()}: {error.reason}"
            return HubUnavailable("cache not writable", message, _SPACE_HINT)
        if isinstance(error, TooManyBytes):
            if self.wanted.sha256:
                return self.wrong_bytes(self.wanted.file)
            message = f"{self.endpoint} sends more than {MOST_BYTES} bytes for {self.wanted.file} of {self.wanted.repo}"
            return HubUnavailable("too many bytes", message, _LATER, _INSTEAD[self.wanted.kind])
        if "huggingface_hub.errors" not in sys.modules:
            message = f"the client of the Hub cannot be loaded: {type(error).__name__}: {one_line(error)}"
            return HubUnavailable("the Hub's client does not start", message, "check the variables that begin with HF_")
        return self.explain_answer(error)

    def explain_answer(self, error: BaseException) -> HubUnavailable:
        """Return the error for users for a refusal of the Hub, or for a failed connection."""
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        if isinstance(error, GatedRepoError):
            repo = self.wanted.repo
            hint = f"ask for access at {self.endpoint}/{_PAGES[self.wanted.kind]}{repo}, then set HF_TOKEN"
            return HubUnavailable("access not granted", f"{repo} is gated", hint)
        if isinstance(error, RepositoryNotFoundError):
            return self.not_found()
        if isinstance(error, HfHubHTTPError):
            return self.refusal(error.response.status_code)
        purpose = f"{self.wanted.file} of {self.wanted.repo}"
        return connection_failure(error, self.endpoint, purpose, _INSTEAD[self.wanted.kind])

    def not_found(self) -> HubUnavailable:
        """Return the error for users for a repository that does not exist, or that this user may not see."""
        message = f"{self.endpoint} has no repository {self.wanted.repo}, or hides it"
        return HubUnavailable(NO_REPO, message, "check the name and, for a private repository, HF_TOKEN")


def _store(incomplete: Path, folder: Path, sha256: str, place: str) -> Path:
    """Move a downloaded file to its blob, and return the link `place` in the snapshots. Raises OSError."""
    blob, pointer, link = folder / "blobs" / sha256, folder / "snapshots" / place, incomplete.with_suffix(".link")
    pointer.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(blob, pointer.parent))
        link.replace(pointer)
    except (OSError, NotImplementedError):  # Windows without the right to make links
        link.unlink(missing_ok=True)
        blob = pointer
    # Last, because the claim ends here: a process that waited for the claim finds a whole file.
    incomplete.replace(blob)
    sync_folder(blob.parent)
    sync_folder(pointer.parent)
    return pointer
