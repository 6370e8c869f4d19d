"""Upload files to a model repository on the Hugging Face Hub.

The client's commit does the work. Requests carry the token and the name of this program, and nothing about the machine.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dsclora_cli.errors import UploadFailed
from dsclora_cli.hub import NO_REPO, ListedFile, describe_repo, endpoint, is_offline
from dsclora_cli.hub_client import (
    HubUnavailable,
    check_settings,
    connection_failure,
    one_line,
    quiet_client,
    start_client,
    without_telemetry,
)
from dsclora_cli.transfer import SLOWEST, within

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ANSWER_SECONDS = 20.0
"""Longest wait for an answer to a request without a file."""

COMMIT_SECONDS = 120.0
"""Longest wait for a commit, besides the time that the bytes take at `transfer.SLOWEST`."""

T = TypeVar("T")

_AGAIN = "try again"


@dataclass(frozen=True)
class RemoteRepo:
    """A model repository as it is before an upload."""

    exists: bool
    """Whether the Hub shows the repository to the owner of the token."""
    user: str
    """Name of the owner of the token."""
    files: Mapping[str, ListedFile]
    """Path inside the repository to facts; empty for a repository that does not exist."""
    commit: str
    """Last commit; empty for a repository that does not exist."""
    private: bool
    """Whether only the owner sees the repository."""


class HubWriter:
    """A model repository on the Hub, to be written to. Every failure is an UploadFailed of one line."""

    def __init__(self, repo: str) -> None:
        self.repo = repo
        self.endpoint = endpoint()

    def inspect(self, offline: bool = False) -> RemoteRepo:
        """Return the repository as it is now. Raises UploadFailed without a token that may write."""
        if offline or is_offline():
            message = f"{self.repo} cannot be reached, because the program is offline"
            raise UploadFailed(message, "run without --offline and HF_HUB_OFFLINE, or give --dry-run")
        user = self._call(lambda api: within(ANSWER_SECONDS, lambda: self._writing_user(api)))
        try:
            found = describe_repo(self.repo)
        except HubUnavailable as error:
            if error.reason == NO_REPO:
                return RemoteRepo(False, user, {}, "", False)
            raise UploadFailed(error.message, _AGAIN) from error
        return RemoteRepo(True, user, found.files, found.commit, found.private)

    def create(self, private: bool) -> None:
        """Create the repository, which does not exist."""
        self._call(lambda api: within(ANSWER_SECONDS, lambda: api.create_repo(self.repo, private=private)))

    def commit(self, files: Mapping[str, bytes], title: str, parent: str) -> str:
        """Write files in one commit, and return the id of the commit.

        Args:
            files: Path inside the repository to content.
            title: First line of the message.
            parent: Commit that the new commit must follow; empty in a new repository.
        """
        seconds = COMMIT_SECONDS + sum(map(len, files.values())) / SLOWEST
        return self._call(lambda api: within(seconds, lambda: self._commit(api, files, title, parent)))

    def _commit(self, api: HfApi, files: Mapping[str, bytes], title: str, parent: str) -> str:
        from huggingface_hub import CommitOperationAdd

        # Buffers and not bytes: for buffers the client uploads by plain HTTP, which works through every proxy, and
        # does not start the processes and caches of its storage protocol for half a megabyte.
        operations = [CommitOperationAdd(path, io.BytesIO(content)) for path, content in files.items()]
        done = api.create_commit(self.repo, operations, commit_message=title, parent_commit=parent or None)
        return str(done.oid)

    def _writing_user(self, api: HfApi) -> str:
        """Return the name of the token's owner. Raises UploadFailed for a token that may only read."""
        who = api.whoami()
        name = str(who.get("name") or "")[:80]
        role = ((who.get("auth") or {}).get("accessToken") or {}).get("role")
        if role == "read":
            hint = f"make one with the role write at {self.endpoint}/settings/tokens"
            raise UploadFailed(f"the token of {name} may only read", hint)
        return name

    def _call(self, call: Callable[[HfApi], T]) -> T:
        """Return the result of a call of the client. Raises UploadFailed."""
        try:
            check_settings(self.endpoint)
            with quiet_client(), without_telemetry():
                return call(self._api(start_client()))
        except UploadFailed:
            raise
        except HubUnavailable as error:
            raise UploadFailed(error.message, error.hint) from error
        # As in `hub`: a client with these many settings raises nearly everything.
        except Exception as error:
            raise self._explain(error) from error

    def _api(self, headers: Mapping[str, str]) -> HfApi:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            hint = f"make one that may write at {self.endpoint}/settings/tokens; then `hf auth login`, or set HF_TOKEN"
            raise UploadFailed(f"there is no token for {self.endpoint}", hint)
        from huggingface_hub import HfApi

        return HfApi(self.endpoint, token, headers={"user-agent": headers["user-agent"]})

    def _explain(self, error: BaseException) -> UploadFailed:
        """Return the error for users, with the next step, for an exception of the client."""
        # The client wraps a failed upload of a large file in a RuntimeError without the reason.
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
            return self._explain(error.__cause__)
        # By attribute: older clients raise the plain exceptions of their HTTP library for some requests.
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return self._explain_status(status, str(getattr(error, "server_message", "") or ""))
        text = str(error)
        if isinstance(error, ValueError) and text.startswith("Invalid metadata in README.md"):
            reason = one_line(text.partition("\n")[2].removeprefix("- "))
            return UploadFailed(f"{self.endpoint} refuses the model card: {reason}", "check --licence")
        failure = connection_failure(error, self.endpoint, f"the upload to {self.repo}", "try again later")
        return UploadFailed(failure.message, failure.hint)

    def _explain_status(self, status: int, reason: str) -> UploadFailed:
        said = f": {one_line(reason)}" if reason else ""
        if status == 401:
            return UploadFailed(
                f"{self.endpoint} does not accept the token", "check HF_TOKEN, or log in again: hf auth login"
            )
        if status == 403:
            hint = "give a token with the right to write there, and check the name before the slash"
            return UploadFailed(f"the token may not write to {self.repo}{said}", hint)
        if status in {409, 412}:
            return UploadFailed(f"{self.repo} was changed by somebody else at the same time{said}", "run again")
        return UploadFailed(f"{self.endpoint} answered {status} for the upload to {self.repo}{said}", "try again later")
