"""`dsclora push` as functions: plan an upload without internet, compare with the Hub, upload."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from dsclora_cli.errors import UploadFailed, UsageError, WeightsError, list_some
from dsclora_cli.hub import ListedFile, endpoint
from dsclora_cli.hub_upload import HubWriter, RemoteRepo
from dsclora_cli.publishing.model_card import CardFacts, write_card, write_config
from dsclora_cli.publishing.own_model import OwnModel, open_own_model
from dsclora_cli.publishing.scores import read_scores
from dsclora_cli.weights.hub_models import WEIGHT_SUFFIXES, is_repo_name, renew_trust

CARD = "README.md"
CONFIG = "config.json"


@dataclass(frozen=True)
class PushOptions:
    """Options of an upload."""

    repo: str
    """Repository, `owner/name`."""
    licence: str = ""
    """Name of a licence on the Hub, such as mit; empty for none."""
    private: bool = False
    """Create a repository that only its owner sees."""
    overwrite: bool = False
    """Replace files with other content."""
    scores: Path | None = None
    """Report of `dsclora eval --json`."""
    offline: bool = False
    """Do not access the internet."""


@dataclass(frozen=True)
class PushedFile:
    """A file of an upload."""

    path: str
    """Path inside the repository."""
    size: int
    """Size in bytes."""
    sha256: str
    change: str = ""
    """new, replaced or unchanged; empty before the Hub was asked."""


@dataclass(frozen=True)
class PushedModel:
    """Result of `dsclora push`; the field names are keys of the JSON output."""

    status: str
    """planned, pushed or unchanged."""
    repo: str
    """Repository, and the name of the model for `-m`."""
    url: str
    """Address of the repository."""
    kind: str
    """network or adapter."""
    licence: str
    """Name of a licence; empty where none is stated."""
    sha256: str
    """sha256 of the weight file in the repository."""
    files: tuple[PushedFile, ...]
    card: str
    """Text of the model card."""
    creates: bool | None = None
    """Whether the repository is made by this upload; None before the Hub was asked."""
    private: bool | None = None
    """Whether only the owner sees the repository; None before the Hub was asked, and for a repository that existed."""
    commit: str | None = None
    """Commit in the repository; None before the upload."""
    notes: tuple[str, ...] = ()
    """Sentences about what is left out or different."""


@dataclass(frozen=True)
class PushPlan:
    """An upload, planned."""

    contents: Mapping[str, bytes]
    """Path inside the repository to content."""
    result: PushedModel
    remote: RemoteRepo | None = None
    """Repository before the upload; None before the Hub was asked."""


def plan_push(source: Path, options: PushOptions) -> PushPlan:
    """Return everything that an upload would send, without accessing the internet.

    Raises UsageError for a wrong name, licence or report, and what `open_own_model` raises.
    """
    if not is_repo_name(options.repo):
        raise UsageError(f"{options.repo!r} is no name of a repository on the Hub", "write USER/REPO")
    if options.licence and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", options.licence):
        hint = "write the Hub's short name, such as mit, apache-2.0, cc-by-4.0 or other"
        raise UsageError(f"--licence {options.licence!r} is no name of a licence", hint)
    model = open_own_model(source)
    sha256 = hashlib.sha256(model.content).hexdigest()
    # One name for all uploads to a repository: two weight files would leave `-m USER/REPO` without a meaning.
    file = f"{options.repo.partition('/')[2]}.safetensors"
    scores = None
    if options.scores is not None:
        scores = read_scores(options.scores, (model.sha256, f"{model.base_sha256}/{model.sha256}"))
    facts = CardFacts(model, options.repo, file, sha256, options.licence, scores)
    card = write_card(facts)
    contents = {file: model.content, CONFIG: write_config(facts).encode(), CARD: card.encode()}
    files = tuple(PushedFile(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in contents.items())
    url = f"{endpoint()}/{options.repo}"
    result = PushedModel(
        "planned", options.repo, url, model.kind, options.licence, sha256, files, card, notes=_notes(model, options)
    )
    return PushPlan(contents, result)


def _notes(model: OwnModel, options: PushOptions) -> tuple[str, ...]:
    notes = list(model.notes)
    if not options.licence:
        notes.append(
            "no licence is stated: others have no permission to use the weights; state one, such as --licence mit"
        )
    if model.left_out:
        notes.append(f"left out of the recipe, because the values are paths: {', '.join(model.left_out)}")
    if model.kind == "adapter" and model.base is None:
        notes.append("the base of the adapter is not in the catalogue: users need the base with --weights FILE")
    return tuple(notes)


def compare_with_hub(plan: PushPlan, options: PushOptions) -> PushPlan:
    """Return the plan with the change of every file, after asking the Hub.

    Raises UploadFailed without a token that may write, without internet, and where the repository has other content.
    """
    remote = HubWriter(options.repo).inspect(options.offline)
    files = tuple(
        replace(file, change=_change(plan.contents[file.path], remote.files.get(file.path)))
        for file in plan.result.files
    )
    # Weights that were meant to be private must not become public by a wrong name.
    if remote.exists and options.private and not remote.private:
        raise UploadFailed(f"{options.repo} exists and is public", "make the repository private first, at its settings")
    if not options.overwrite:
        _refuse_other_content(options.repo, files, remote)
    # An empty commit would only make noise in the history.
    is_same = all(file.change == "unchanged" for file in files)
    result = replace(
        plan.result,
        status="unchanged" if is_same else "planned",
        files=files,
        creates=not remote.exists,
        private=remote.private if remote.exists else options.private,
        commit=remote.commit if is_same else None,
    )
    return replace(plan, result=result, remote=remote)


def _change(content: bytes, listed: ListedFile | None) -> str:
    """Return what an upload does to a file, from the sha256 or the git id that the Hub lists."""
    if listed is None:
        return "new"
    # git hashes a header with the size before the bytes.
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    known = listed.sha256 or listed.blob
    return "unchanged" if known in {blob, hashlib.sha256(content).hexdigest()} else "replaced"


def _refuse_other_content(repo: str, files: tuple[PushedFile, ...], remote: RemoteRepo) -> None:
    """Raise UploadFailed where an upload would replace a file, or put a second weight file next to another."""
    others = [file.path for file in files if file.change == "replaced"]
    ours = {file.path for file in files}
    others += sorted(
        path for path in remote.files if PurePosixPath(path).suffix in WEIGHT_SUFFIXES and path not in ours
    )
    if others:
        message = f"{repo} exists with other content: {list_some(others)}"
        raise UploadFailed(message, "choose another name, or give --overwrite")


def push(plan: PushPlan, options: PushOptions) -> PushedModel:
    """Create the repository where it does not exist, upload all files in one commit, and return the result.

    Raises UploadFailed.
    """
    assert plan.remote is not None
    writer = HubWriter(options.repo)
    if not plan.remote.exists:
        writer.create(options.private)
    # One commit for all files: nobody can fetch weights next to the card of other weights.
    title = f"Upload {plan.result.kind} with dsclora"
    changed = {file.path: plan.contents[file.path] for file in plan.result.files if file.change != "unchanged"}
    commit = writer.commit(changed, title, plan.remote.commit)
    # A machine that has used an earlier upload refuses other bytes; the owner trusts the new ones.
    weights, notes = plan.result.files[0], plan.result.notes
    try:
        renew_trust(options.repo, weights.path, weights.size, weights.sha256)
    except WeightsError as error:  # the upload is done, whatever happens to the record
        notes = (*notes, str(error))
    return replace(plan.result, status="pushed", commit=commit, notes=notes)
