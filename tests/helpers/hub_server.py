"""A server on this machine that answers as huggingface.co does, and fails in all known ways."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class QuietServer(ThreadingHTTPServer):
    """A server that prints nothing when a client drops a connection: tests count the lines on stderr."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Print a traceback for an error of a handler, and nothing for a connection that a client closed or reset."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@dataclass
class HubServer:
    """A server in a thread that offers one repository at one commit. Every field may change while it runs."""

    repo: str
    """Repository, `owner/name`; the name of a data set starts with `datasets/`."""
    files: dict[str, bytes]
    """Path inside the repository to content."""
    others: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """More repositories, each with its files."""
    served: dict[str, bytes] = field(default_factory=dict)
    """Other bytes to send for a path; the listing still promises the sha256 of `files`."""
    status: int = 0
    """Status code for all requests; 0 for normal answers."""
    error_code: str = ""
    """The Hub's own error code (X-Error-Code) sent together with `status`."""
    silent: bool = False
    """Accept connections and never answer."""
    drops: int = 0
    """Number of downloads that break after half of the bytes."""
    resets: bool = False
    """Break with a TCP reset instead of a normal end of the connection."""
    delay: float = 0
    """Seconds before the first byte of a download."""
    lfs: bool = True
    """Offer files as large files (LFS), with their sha256 in the listing and as etag."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers that replace those of every answer about a file."""
    renamed: dict[str, str] = field(default_factory=dict)
    """Path to the name that the listing states instead."""
    rate: float = 0
    """Bytes a second of every body; 0 for full speed."""
    endless: bool = False
    """Send downloads without a length and without an end, until the client closes the connection."""
    card: dict[str, object] = field(default_factory=dict)
    """Head of the model card, as the listing states it."""
    commit: str = COMMIT
    """Last commit."""
    revisions: tuple[str, ...] = ("main", COMMIT)
    requests: list[str] = field(default_factory=list)
    """All requests so far, as `METHOD /path`."""
    ranges: list[str] = field(default_factory=list)
    """All Range headers so far."""

    def __enter__(self) -> HubServer:
        self.released = threading.Event()
        handler = type("Handler", (self.handler(),), {"hub": self})
        self._server = QuietServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def handler(self) -> type[HubHandler]:
        """Return the class that answers requests."""
        return HubHandler

    @property
    def url(self) -> str:
        """Return the address for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def listing(self) -> dict[str, object]:
        """Return the answer to /api/models/{repo} with `blobs=true`."""
        siblings = []
        for path, data in self.files.items():
            sha256 = hashlib.sha256(data).hexdigest()
            lfs = {"lfs": {"sha256": sha256, "size": len(data), "pointerSize": 130}} if self.lfs else {}
            siblings.append({"rfilename": self.renamed.get(path, path), "size": len(data), "blobId": "b" * 40, **lfs})
        return {
            "id": self.repo,
            "modelId": self.repo,
            "sha": self.commit,
            "private": False,
            "siblings": siblings,
            "cardData": self.card,
        }


class HubHandler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: tests read `requests`."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        if hub.silent:
            hub.released.wait(30)
            self.close_connection = True
        elif hub.status:
            self._error(hub.status, hub.error_code)
        elif path.startswith(f"/api/models/{hub.repo}"):
            self._api(path.removeprefix(f"/api/models/{hub.repo}").strip("/"))
        else:
            repo, _, rest = path[1:].partition("/resolve/")
            files = {hub.repo: hub.files, **hub.others}.get(repo)
            if files is None:
                self._error(404, "RepoNotFound")
            else:
                self._file(files, *rest.split("/", 1))

    def _api(self, rest: str) -> None:
        revision = rest.removeprefix("revision/") or "main"
        if revision not in self.hub.revisions:
            self._error(404, "RevisionNotFound")
            return
        self._send(200, json.dumps(self.hub.listing()).encode(), {"Content-Type": "application/json"})

    def _file(self, files: dict[str, bytes], revision: str, file: str) -> None:
        hub = self.hub
        if revision not in hub.revisions or file not in files:
            self._error(404, "EntryNotFound" if revision in hub.revisions else "RevisionNotFound")
            return
        data = hub.served.get(file, files[file])
        sha256 = hashlib.sha256(files[file]).hexdigest()
        etag = sha256 if hub.lfs else hashlib.sha1(files[file]).hexdigest()
        headers = {"X-Repo-Commit": hub.commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if hub.lfs:
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        if wanted:
            hub.ranges.append(wanted)
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if wanted else 200, data[start:], {**headers, **hub.headers})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        if self.command == "GET":
            self.hub.released.wait(self.hub.delay)
        self.send_response(status)
        length = {} if self.hub.endless else {"Content-Length": str(len(body))}
        for name, value in {**length, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.rate or self.hub.endless:
            self._drip(body)
        elif self.hub.drops and "Content-Type" not in headers:
            self.hub.drops -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            if self.hub.resets:
                self.wfile.flush()
                time.sleep(0.1)  # until the half has been read, which a reset would discard
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.wfile.write(body)

    def _drip(self, body: bytes) -> None:
        """Send a body slowly, or for ever; the client ends the connection."""
        self.close_connection = True
        try:
            if self.hub.endless:
                while not self.hub.released.is_set():
                    self.wfile.write(bytes(1 << 16))
                return
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.hub.released.wait(1 / self.hub.rate):
                    return
        except OSError:
            return

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"} if code else {})
