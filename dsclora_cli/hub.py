"""Download files from the Hugging Face Hub. The only module that uses huggingface_hub.

`fetch_file` is the entry point. Weights are pinned by sha256. Archives of data sets have no pin, because the
fingerprint of a data set covers their contents. Cached files are found by reading the client's cache folder, so a
cached file costs neither a request nor the import of the client. The client's environment variables hold here too, and
are read at every call.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from dsclora_cli.errors import WeightsError
from dsclora_cli.paths import sha256_of

HUB = "https://huggingface.co"

PROBE_SECONDS = 4.0
"""Longest wait for the first answer of the Hub; HF_HUB_ETAG_TIMEOUT overrides the number."""

LISTING_SECONDS = 20.0
"""Longest wait for the list of files in a repository."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAGES = {"model": "", "dataset": "datasets/"}
_INSTEAD = {"model": "give a file with --weights FILE", "dataset": "give a folder with --data-dir DIR"}
T = TypeVar("T")


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


class HubUnavailable(WeightsError):
    """The Hub cannot give a file: no internet, no permission, or no such file."""

    def __init__(self, reason: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.reason = reason
        """The reason in a few words, for sentences about a fallback."""


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
        hint = f"run once without --offline and HF_HUB_OFFLINE, or {_INSTEAD[wanted.kind]}"
        raise HubUnavailable("offline", message, hint)
    with _quiet_client():
        return _Download(wanted).run()


def fetch_dataset_file(repo: str, file: str, offline: bool = False) -> Path:
    """Return a file of a data-set repository: any cached revision, else the newest. Raises HubUnavailable."""
    return fetch_file(HubFile(repo, file, kind="dataset"), offline)


def find_cached(wanted: HubFile) -> Path | None:
    """Return a file in the client's cache, if the cache has the file in any revision.

    A pinned file is found by its bytes, whatever its name is; a file without a pin by its name.
    """
    folder = cache_folder() / f"{wanted.kind}s--{wanted.repo.replace('/', '--')}"
    pin = wanted.sha256
    for path in sorted((folder / "snapshots").glob("**/*" if pin else f"*/{wanted.file}")):
        # The size is compared first: hashing every file of a large repository would take seconds.
        if path.is_file() and (not pin or (path.stat().st_size == wanted.size and sha256_of(path) == pin)):
            return path
    return None


def cache_folder() -> Path:
    """Return the client's cache: HF_HUB_CACHE, else `hub` in HF_HOME, else below XDG_CACHE_HOME or ~/.cache."""
    value = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if not value:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        value = (os.environ.get("HF_HOME") or f"{caches}/huggingface") + "/hub"
    return Path(os.path.expandvars(value)).expanduser()


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE, or TRANSFORMERS_OFFLINE as in the client, forbids all requests."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


class _Download:
    """The download of one file into the client's cache; every failure of the client becomes one line."""

    def __init__(self, wanted: HubFile) -> None:
        self.wanted = wanted
        self.endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        self.where = {"repo_type": wanted.kind, "endpoint": self.endpoint}

    def run(self) -> Path:
        """Return the path of the downloaded, verified file. Raises as `fetch_file`."""
        try:
            file, commit = self.locate()
            # Two tries, because the first may return a damaged copy that the client found in its cache.
            for _ in range(2):
                path = self.download(file, commit)
                if self.wanted.sha256 is None or sha256_of(path) == self.wanted.sha256:
                    return path
                # Remove the blob and, in a cache with links, the link to the blob.
                for each in (path.resolve(), path):
                    each.unlink(missing_ok=True)
        except _failures() as error:
            raise self.explain(error) from error
        raise WeightsError(
            f"{file} of {self.wanted.repo} does not have the pinned sha256 {self.wanted.sha256}: refused, not kept",
            "the file was changed or damaged on its way; try again, or choose another model",
        )

    def locate(self) -> tuple[str, str | None]:
        """Return path and commit of the file: the pinned path, or another path with the same bytes."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

        wanted = self.wanted
        url = hf_hub_url(wanted.repo, wanted.file, revision=wanted.revision, **self.where)
        seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or PROBE_SECONDS)
        try:
            found = _within(seconds, lambda: get_hf_file_metadata(url, timeout=seconds, endpoint=self.endpoint))
        except (EntryNotFoundError, RevisionNotFoundError):
            if wanted.sha256 is None:
                raise
            return self.search()
        # The etag of a large file is its sha256; small files have a git hash, and are checked after the download.
        other_bytes = _SHA256.fullmatch(found.etag or "") is not None and found.etag != wanted.sha256
        return self.search() if other_bytes and wanted.sha256 else (wanted.file, found.commit_hash)

    def search(self) -> tuple[str, str | None]:
        """Return path and commit of the file with the wanted sha256, in the pinned revision, else the default one."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        api, wanted = HfApi(endpoint=self.endpoint), self.wanted
        for revision in dict.fromkeys((wanted.revision, None)):
            try:
                listing = api.model_info(wanted.repo, revision=revision, files_metadata=True, timeout=LISTING_SECONDS)
            except RevisionNotFoundError:
                continue
            for file in listing.siblings or ():
                if file.lfs is not None and file.lfs.sha256 == wanted.sha256:
                    return file.rfilename, listing.sha
        raise HubUnavailable(
            "no longer in its repository",
            f"{wanted.repo} at {self.endpoint} lists no file with sha256 {wanted.sha256}, pinned for {wanted.file}",
            "update dsclora, or choose another model: see `dsclora models list`",
        )

    def download(self, file: str, commit: str | None) -> Path:
        """Download into the client's cache, or return the client's cached copy; retry a broken connection once.

        The client locks the file, shows progress if stderr is a terminal, and in later versions resumes by itself.
        """
        from huggingface_hub import hf_hub_download

        name, cache = self.wanted.repo, cache_folder()
        fetch = partial(hf_hub_download, name, file, revision=commit, cache_dir=cache, **self.where)
        try:
            return Path(fetch())
        except _failures() as error:
            if "Timeout" in type(error).__name__:  # a second try would wait as long again
                raise
            return Path(fetch())

    def explain(self, error: BaseException) -> HubUnavailable:
        """Return the error for users, with the next step, for an exception of the client."""
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

        repo, file, host = self.wanted.repo, self.wanted.file, self.endpoint
        if isinstance(error, FileNotFoundError) and error.__cause__ is not None:  # the client's LocalEntryNotFoundError
            return self.explain(error.__cause__)
        if isinstance(error, GatedRepoError):
            hint = f"ask for access at {host}/{_PAGES[self.wanted.kind]}{repo}, then set HF_TOKEN"
            return HubUnavailable("access not granted", f"{repo} is gated", hint)
        if isinstance(error, RepositoryNotFoundError):
            hint = "check the name and, for a private repository, HF_TOKEN"
            return HubUnavailable("repository not found", f"{host} has no repository {repo}, or hides it", hint)
        if isinstance(error, HfHubHTTPError):
            status = error.response.status_code
            hint = "check HF_TOKEN or unset it" if status in {401, 403} else "try again later"
            return HubUnavailable(f"the Hub answered {status}", f"{host} answered {status} for {file} of {repo}", hint)
        if isinstance(error, OSError) and error.errno is not None:  # disk errors have a number, connection errors none
            hint = "free some space, or set HF_HUB_CACHE to a folder that can be written"
            return HubUnavailable("cache not writable", f"cannot write to {cache_folder()}: {error.strerror}", hint)
        return self.explain_connection(type(error).__name__)

    def explain_connection(self, exception: str) -> HubUnavailable:
        """Return the error for users for a failed connection, by the name of the exception's class.

        Names, because the client may bring one of several HTTP libraries, each with its own classes.
        """
        where = f"{self.wanted.file} of {self.wanted.repo}"
        hint = f"check the internet connection, proxy and HF_ENDPOINT, or {_INSTEAD[self.wanted.kind]}"
        if "Timeout" in exception:
            return HubUnavailable("time-out", f"{self.endpoint} did not answer in time for {where}", hint)
        if exception in {"ConnectError", "ConnectionError", "OfflineModeIsEnabled"}:
            return HubUnavailable("no internet", f"cannot reach {self.endpoint} for {where}", hint)
        return HubUnavailable("connection lost", f"the connection to {self.endpoint} broke during {where}", "try again")


def _failures() -> tuple[type[BaseException], ...]:
    """Return the exceptions of the client: of its HTTP library (httpx2, httpx or requests), the disk, Xet transfers."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0], OSError, RuntimeError


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of a call. Raises TimeoutError after `seconds`.

    The client's own time-out covers neither the resolution of the host name nor the addresses tried in turn. The call
    runs in a daemon thread, so that the end of the program does not wait for the call.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 (raised again in the thread of the caller)
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future.result(seconds)


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the client from logging errors to stderr: the program raises or repairs all of them itself.

    HF_DEBUG and HF_HUB_VERBOSITY switch the client's messages on.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if not (os.environ.get("HF_DEBUG") or os.environ.get("HF_HUB_VERBOSITY")):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
