"""A loopback Hub that takes uploads as huggingface.co does: repositories, large files (LFS) and commits."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from hub_server import HubHandler, HubServer

TOKEN = "hf_loopback"
LICENCES = {"mit", "apache-2.0", "cc-by-4.0", "other"}
"""Some of the names that the Hub knows; it refuses a model card with another name."""


@dataclass
class UploadHub(HubServer):
    """A Hub with one owner. The repository `repo` exists as soon as `exists` is set, by an upload or by the test."""

    exists: bool = False
    private: bool = False
    user: str = "me"
    """Owner of the token."""
    role: str = "write"
    """Role of the token: read, write or fineGrained."""
    may_write: bool = True
    """Whether the owner of the token may write to the repository."""
    fails: dict[str, int] = field(default_factory=dict)
    """Last part of a path to the status that requests for the path get."""
    bodies: list[bytes] = field(default_factory=list)
    """Bodies of all requests so far."""
    agents: set[str] = field(default_factory=set)
    """User-agent headers of all requests so far."""
    created: list[dict[str, object]] = field(default_factory=list)
    """Requests to create a repository."""
    commits: list[str] = field(default_factory=list)
    """Messages of all commits."""
    stored: dict[str, bytes] = field(default_factory=dict)
    """Large files by sha256."""

    def handler(self) -> type[HubHandler]:
        return _UploadHandler

    def listing(self) -> dict[str, object]:
        """Return the description of the repository; only weights are large files, as on the Hub."""
        described = super().listing()
        siblings = []
        for path, data in self.files.items():
            entry: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": git_id(data)}
            if path.endswith(".safetensors"):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            siblings.append(entry)
        return {**described, "siblings": siblings, "private": self.private}

    def take(self, message: str, files: dict[str, bytes]) -> None:
        """Add a commit."""
        self.commits.append(message)
        self.files.update(files)
        if licences := stated_licences(files.get("README.md", b"").decode()):
            self.card = {"license": licences[0]}
        self.commit = hashlib.sha1(repr(self.commits).encode()).hexdigest()
        self.revisions = (*self.revisions, self.commit)


def git_id(data: bytes) -> str:
    """Return the id of a file in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def stated_licences(card: str) -> list[str]:
    """Return the licences in the head of a model card."""
    return [json.loads(line.removeprefix("license: ")) for line in card.splitlines() if line.startswith("license: ")]


class _UploadHandler(HubHandler, BaseHTTPRequestHandler):
    hub: UploadHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.agents.add(self.headers.get("User-Agent", ""))
        if path == "/api/whoami-v2" and not self.hub.silent and not self.hub.status:
            self.hub.requests.append(f"GET {path}")
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._json(401, {"error": "Invalid credentials in Authorization header"})
            else:
                self._json(200, {"name": self.hub.user, "auth": {"accessToken": {"role": self.hub.role}}})
        elif path.startswith("/api/models/") and not self.hub.exists:
            self.hub.requests.append(f"GET {path}")
            self._error(404, "RepoNotFound")
        else:
            self._answer()

    def do_POST(self) -> None:
        self._receive()

    def do_PUT(self) -> None:
        self._receive()

    def _receive(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        body = self._body()
        hub.requests.append(f"{self.command} {path}")
        hub.bodies.append(body)
        if hub.silent:
            hub.released.wait(30)
            self.close_connection = True
        elif path.startswith("/lfs/"):  # the server of large files, which gets no token
            hub.stored[hashlib.sha256(body).hexdigest()] = body
            self._json(200, {})
        elif status := next((status for end, status in hub.fails.items() if path.endswith(end)), 0):
            self._json(status, {"error": "as the test wants"})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json(401, {"error": "Invalid credentials in Authorization header"})
        else:
            hub.agents.add(self.headers.get("User-Agent", ""))
            self._route(path, body)

    def _route(self, path: str, body: bytes) -> None:
        hub = self.hub
        if path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif not hub.may_write:
            self._json(403, {"error": f"You don't have the rights to write under the namespace {hub.repo}"})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path.startswith(f"/api/models/{hub.repo}/preupload/"):
            self._preupload(json.loads(body))
        elif path == f"/{hub.repo}.git/info/lfs/objects/batch":
            objects = [{**wanted, "actions": self._actions(wanted["oid"])} for wanted in json.loads(body)["objects"]]
            self._json(200, {"transfer": "basic", "objects": objects})
        elif path == "/verify":
            self._json(200 if json.loads(body)["oid"] in hub.stored else 404, {})
        elif path.startswith(f"/api/models/{hub.repo}/commit/"):
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._json(404, {"error": "no such address"})

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is not None:
            return self.rfile.read(int(length))
        parts = []
        while size := int(self.rfile.readline(), 16):  # chunked
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _validate(self, card: str) -> None:
        if LICENCES.issuperset(stated_licences(card)):
            self._json(200, {"errors": [], "warnings": []})
        else:
            self._json(
                400, {"errors": [{"message": '"license" must be one of [apache-2.0, mit, ...]'}], "warnings": []}
            )

    def _create(self, asked: dict[str, object]) -> None:
        hub = self.hub
        if hub.exists:
            self._json(409, {"error": "You already created this model repo"})
            return
        hub.created.append(asked)
        hub.exists, hub.files = True, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
        # Older clients send `private`, newer ones `visibility`.
        hub.private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self._json(200, {"url": f"{hub.url}/{hub.repo}"})

    def _preupload(self, asked: dict[str, list[dict[str, str]]]) -> None:
        found = []
        for file in asked["files"]:
            mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
            found.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None})
        self._json(200, {"files": found})

    def _actions(self, oid: str) -> dict[str, object]:
        return {"upload": {"href": f"{self.hub.url}/lfs/{oid}"}, "verify": {"href": f"{self.hub.url}/verify"}}

    def _commit(self, lines: list[dict[str, dict[str, str]]]) -> None:
        hub = self.hub
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit") not in {None, hub.commit}:
            self._json(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = hub.stored[value["oid"]]
        hub.take(header["summary"], files)
        self._json(200, {"commitUrl": f"{hub.url}/{hub.repo}/commit/{hub.commit}", "commitOid": hub.commit})

    def _json(self, status: int, answer: dict[str, object]) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})
