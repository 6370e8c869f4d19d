"""Files of the Hugging Face Hub. The only module that uses huggingface_hub, and only to download.

Weights are pinned by sha256; archives of data sets are not, since what is in them is known by its fingerprint. What is
cached is found by reading the client's cache folder, so a cached file costs neither a request nor the import of the
client. Environment variables are the client's own and are read at each call.
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
LISTING_SECONDS = 20.0
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAGES = {"model": "", "dataset": "datasets/"}
_INSTEAD = {"model": "give a file with --weights FILE", "dataset": "give a folder with --data-dir DIR"}
T = TypeVar("T")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. `size` is in bytes; the sha256 is the pin, `revision` a tag, branch or commit.

    A file of a data set (`kind` "dataset") has no pin: any cached copy serves, else what the path holds now.
    """

    repo: str
    file: str
    size: int = 0
    sha256: str | None = None
    revision: str | None = None
    kind: str = "model"


class HubUnavailable(WeightsError):
    """The Hub does not give the file: no network, no permission, not there. `reason` says it in a few words."""

    def __init__(self, reason: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.reason = reason


def cache_folder() -> Path:
    """The client's cache: HF_HUB_CACHE, else `hub` in HF_HOME, else below XDG_CACHE_HOME or ~/.cache."""
    value = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if not value:
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        value = (os.environ.get("HF_HOME") or f"{caches}/huggingface") + "/hub"
    return Path(os.path.expandvars(value)).expanduser()


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE, which the client honours too) forbids every request."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def find_cached(wanted: HubFile) -> Path | None:
    """The file in the client's cache, whatever its revision and, where it is pinned, its name; None if not there."""
    folder = cache_folder() / f"{wanted.kind}s--{wanted.repo.replace('/', '--')}"
    pin = wanted.sha256
    for path in sorted((folder / "snapshots").glob("**/*" if pin else f"*/{wanted.file}")):
        if path.is_file() and (not pin or (path.stat().st_size == wanted.size and sha256_of(path) == pin)):
            return path
    return None


def fetch_file(wanted: HubFile, offline: bool = False) -> Path:
    """The file, from the cache without any request, else downloaded and verified; it then lies in the cache.

    `offline`, like HF_HUB_OFFLINE, opens no socket. Raises HubUnavailable, within `PROBE_SECONDS` where there is no
    network, and WeightsError for bytes with another sha256, which are removed from the cache.
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
    """A file of a data-set repository, from the cache in any revision, else its newest. Raises HubUnavailable."""
    return fetch_file(HubFile(repo, file, kind="dataset"), offline)


class _Download:
    """One file's way from the Hub into the cache, every failure of the client told in one line."""

    def __init__(self, wanted: HubFile) -> None:
        self.wanted = wanted
        self.endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
        self.where = {"repo_type": wanted.kind, "endpoint": self.endpoint}

    def run(self) -> Path:
        """See `fetch_file`."""
        try:
            file, commit = self.locate()
            for _ in range(2):  # the first may only be a damaged copy that the client found in its cache
                path = self.download(file, commit)
                if self.wanted.sha256 is None or sha256_of(path) == self.wanted.sha256:
                    return path
                for each in (path.resolve(), path):  # the blob and, where the cache has links, the pointer to it
                    each.unlink(missing_ok=True)
        except _failures() as error:
            raise self.explain(error) from error
        raise WeightsError(
            f"{file} of {self.wanted.repo} does not have the pinned sha256 {self.wanted.sha256}: refused, not kept",
            "the file was changed or damaged on its way; try again, or choose another model",
        )

    def locate(self) -> tuple[str, str | None]:
        """Path and commit of the file: the pinned path where it holds it, else wherever the repository lists it."""
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
        other_bytes = _SHA256.fullmatch(found.etag or "") is not None and found.etag != wanted.sha256
        return self.search() if other_bytes and wanted.sha256 else (wanted.file, found.commit_hash)

    def search(self) -> tuple[str, str | None]:
        """Path and commit of the file with the wanted sha256, in the pinned revision or else the default one."""
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
        """Fetch into the client's cache, or take what it holds there; a broken connection is given a second try.

        The client locks, shows progress where stderr is a terminal, and in its later versions resumes by itself.
        """
        from huggingface_hub import hf_hub_download

        name, cache = self.wanted.repo, cache_folder()
        fetch = partial(hf_hub_download, name, file, revision=commit, cache_dir=cache, **self.where)
        try:
            return Path(fetch())
        except _failures() as error:
            if "Timeout" in type(error).__name__:  # waited for long enough
                raise
            return Path(fetch())

    def explain(self, error: BaseException) -> HubUnavailable:
        """What went wrong in our words, with the next step."""
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
        if isinstance(error, OSError) and error.errno is not None:  # of the disk: the network's carry no number
            hint = "free some space, or set HF_HUB_CACHE to a folder that can be written"
            return HubUnavailable("cache not writable", f"cannot write to {cache_folder()}: {error.strerror}", hint)
        return self.explain_network(type(error).__name__)

    def explain_network(self, kind: str) -> HubUnavailable:
        """The network's failures, told apart by the name of the exception: the client's HTTP library is its own."""
        where = f"{self.wanted.file} of {self.wanted.repo}"
        hint = f"check the network, proxy and HF_ENDPOINT, or {_INSTEAD[self.wanted.kind]}"
        if "Timeout" in kind:
            return HubUnavailable("time-out", f"{self.endpoint} did not answer in time for {where}", hint)
        if kind in {"ConnectError", "ConnectionError", "OfflineModeIsEnabled"}:
            return HubUnavailable("no network", f"cannot reach {self.endpoint} for {where}", hint)
        return HubUnavailable("connection lost", f"the connection to {self.endpoint} broke during {where}", "try again")


def _failures() -> tuple[type[BaseException], ...]:
    """What the client raises: errors of its HTTP library (httpx2, httpx or requests), of the disk, of Xet transfers."""
    from huggingface_hub.errors import HfHubHTTPError

    return HfHubHTTPError.__bases__[0], OSError, RuntimeError


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Its result; TimeoutError after `seconds`.

    The client's own time-out counts neither the resolution of the name nor the addresses tried in turn. The thread is
    a daemon, so that the program's end does not wait for it.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 (carried to the caller)
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future.result(seconds)


@contextmanager
def _quiet_client() -> Iterator[None]:
    """Keep the client from logging to stderr what is raised or mended anyway, unless the user asked it to speak."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if not (os.environ.get("HF_DEBUG") or os.environ.get("HF_HUB_VERBOSITY")):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
