"""A Hub that lies in every part of an answer: each lie ends in words, or in the right bytes in the right place."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hub_server import COMMIT, HubHandler, HubServer

from dsclora_cli import hub
from dsclora_cli.hub import HubFile
from dsclora_cli.weights import hub_models

REPO, FILE = "someone/networks", "zoo/net.pth"
BYTES = bytes(range(256)) * 400
PIN = hashlib.sha256(BYTES).hexdigest()
PINNED, FREE = HubFile(REPO, FILE, len(BYTES), PIN), HubFile(REPO, FILE)

PATIENCE = 0.4
"""Seconds of the window in which a download must bring bytes; the usual window would make the check slow."""


@dataclass
class LyingHub(HubServer):
    """A Hub whose answers about a file, or whose list of files, can be replaced byte for byte."""

    raw: bytes = b""
    """Everything that is sent in answer to any request, head included."""

    location: str = ""
    """Place that every answer about a file leads to."""

    listed: object = None
    """Description of the repository in place of the true one."""

    extra: list[tuple[str, str]] = field(default_factory=list)
    """More lines for the head of every answer."""

    def handler(self) -> type[HubHandler]:
        """Return the class that answers requests."""
        return _LyingHandler

    def listing(self) -> dict[str, object]:
        """Return the description of the repository."""
        return super().listing() if self.listed is None else self.listed  # type: ignore[return-value]


class _LyingHandler(HubHandler):
    hub: LyingHub

    def _answer(self) -> None:
        if self.hub.raw:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.write(self.hub.raw)
        elif self.hub.location and not self.path.startswith("/api/"):
            self._send(307, b"", {"Location": self.hub.location, "X-Repo-Commit": COMMIT})
        else:
            super()._answer()

    def end_headers(self) -> None:
        for name, value in self.hub.extra:
            self.send_header(name, value)
        super().end_headers()


Lie = Callable[[LyingHub], HubFile | str]
"""Change a Hub, and return what to ask for: a file, or the name of a model."""


def lies() -> Iterator[tuple[str, Lie]]:
    """Yield names and lies."""
    for names in (_names(), _sizes(), _listings(), _redirects(), _bodies(), _raw()):
        yield from names


def _set(wanted: HubFile | str, **fields: Any) -> Lie:
    def lie(server: LyingHub) -> HubFile | str:
        for name, value in fields.items():
            setattr(server, name, value)
        return wanted

    return lie


def _names() -> Iterator[tuple[str, Lie]]:
    """Names of files and folders that come from the server: etags, commits, names in the list of files."""
    for name in ("../../../thesis.docx", "/etc/passwd", "..\\..\\thesis.docx", "a/b", ".", "", "x" * 5000, "CON"):
        etag = {"ETag": f'"{name}"', "X-Linked-Etag": f'"{name}"'}
        yield f"etag {name[:20]}", _set(PINNED, headers=etag)
        yield f"etag without a pin {name[:20]}", _set(FREE, headers=etag)
    for commit in ("../../../../up", "/tmp/up", "main", "", "C" * 40, COMMIT + "/..", "c" * 41):
        yield f"commit {commit[:20]}", _set(PINNED, headers={"X-Repo-Commit": commit})
    for name in (
        "../../../../thesis.docx",
        "/etc/passwd",
        "a\\..\\b",
        "C:evil",
        "a\n",
        "\x1b[2J",
        "x" * 300,
        "",
        "a/../../b",
    ):
        moved = {"files": {"moved.pth": BYTES}, "renamed": {"moved.pth": name}}
        yield f"listed {name[:20]!r}", _set(PINNED, **moved)
        yield f"only file {name[:20]!r}", _set(REPO, **moved)


def _sizes() -> Iterator[tuple[str, Lie]]:
    """Sizes that are too large, too small or none."""
    for size in (
        str(2**62),
        "-1",
        "1e9",
        "x",
        "0",
        "99999999999999999999999",
        str(len(BYTES) * 2),
        str(len(BYTES) // 2),
    ):
        yield f"length {size}", _set(PINNED, headers={"Content-Length": size})
        yield f"linked size {size}", _set(FREE, headers={"X-Linked-Size": size})
    for span in ("bytes 0-5/6", "bytes 9999999-1/1", "x", "bytes */*"):
        yield f"range {span}", _set(PINNED, drops=2, headers={"Content-Range": span})


def _listings() -> Iterator[tuple[str, Lie]]:
    """Lists of files with values of other types."""
    entry = {"rfilename": "net.pth", "size": 7, "lfs": {"sha256": PIN}}
    wrong = (
        {"size": float("inf")},
        {"size": -5},
        {"size": "x"},
        {"lfs": []},
        {"lfs": {"sha256": [1]}},
        {"rfilename": None},
    )
    siblings = ("x", {}, [None], [[]], [entry] * 30_000, *([{**entry, **more}] for more in wrong))
    for number, each in enumerate(siblings):
        yield f"list {number}", _set(REPO, listed={"sha": COMMIT, "siblings": each})
        yield f"search in list {number}", _set(PINNED, files={}, listed={"sha": COMMIT, "siblings": each})
    for number, whole in enumerate(
        ([], None, "x", 7, {"cardData": {"license": ["x" * 10**6] * 9}, "siblings": [entry]})
    ):
        yield f"listing {number}", _set(REPO, listed=whole)


def _redirects() -> Iterator[tuple[str, Lie]]:
    """Addresses that answers lead to."""
    own = f"/{REPO}/resolve/main/{FILE}"
    places = (
        *(
            "file:///etc/passwd",
            "ftp://127.0.0.1:9/x",
            "//127.0.0.1:9/x",
            "http://127.0.0.1:9/x",
            "http://[::1",
            "\\\\host\\x",
        ),
        *(own, "/other", "", "javascript:1", "http://user:pw@127.0.0.1:9/", "x" * 60_000, "http://127.0.0.1:0/x"),
    )
    for place in places:
        yield f"redirect to {place[:30]}", _set(PINNED, location=place or " ")


def _bodies() -> Iterator[tuple[str, Lie]]:
    """Bodies without an end, that stop, that drip, or that are not what the list of files promises."""
    yield "another body", _set(PINNED, served={FILE: bytes(len(BYTES))})
    yield "a longer body", _set(PINNED, served={FILE: BYTES * 3})
    yield "a shorter body", _set(PINNED, served={FILE: BYTES[:-1]})
    yield "an empty body", _set(PINNED, served={FILE: b""})
    yield "no end", _set(PINNED, endless=True)
    yield "no end without a pin", _set(FREE, endless=True)
    yield "no end of the list", _set(REPO, endless=True)
    yield "drips", _set(PINNED, rate=20)
    yield "stalls", _set(PINNED, delay=30)
    yield "silent", _set(PINNED, silent=True)
    yield "breaks for ever", _set(PINNED, drops=99)
    yield "resets for ever", _set(PINNED, drops=99, resets=True)
    yield "packed", _set(PINNED, extra=[("Content-Encoding", "gzip")])
    yield "packed list", _set(REPO, extra=[("Content-Encoding", "gzip")])
    for status in (201, 204, 304, 400, 401, 403, 404, 416, 418, 429, 451, 500, 503, 599):
        yield f"status {status}", _set(PINNED, status=status)
        yield f"status {status} of the list", _set(REPO, status=status)


def _raw() -> Iterator[tuple[str, Lie]]:
    """Answers that are no HTTP."""
    head = b"HTTP/1.1 200 OK\r\n"
    for name, raw in {
        "zeros": bytes(4096),
        "nothing": b"\r\n",
        "a page": head + b"Content-Type: text/html\r\n\r\n<html>log in</html>",
        "a long line": b"HTTP/1.1 200 " + b"x" * 2**20 + b"\r\n\r\n",
        "many lines": head + b"".join(b"X-%d: y\r\n" % number for number in range(20_000)) + b"\r\n",
        "lines without end": head + b"X: y\r\n" * 200_000,
        "wrong chunks": head + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc",
        "a huge chunk": head + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF\r\nabc",
        "two lengths": head + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nabcdefg",
        "odd status": b"HTTP/1.1 -7 x\r\n\r\n",
        "a version": b"HTTP/9.9 200 OK\r\n\r\n",
        "escapes": head + b"X-Error-Message: \x1b[2J\x07\r\nX-Error-Code: a\x0b\r\n\r\n",
    }.items():
        yield f"raw {name}", _set(PINNED, raw=raw)
        yield f"raw {name} as a list", _set(REPO, raw=raw)


def ask(lie: Lie, home: Path) -> str:
    """Ask a lying Hub for a file, in a home of its own, and return the outcome. Raises AssertionError for a fault.

    Raises DscloraError as the program does.
    """
    os.environ |= {"HF_HOME": str(home / "hf"), "DSCLORA_STATE_DIR": str(home / "state")}
    (home / "thesis.docx").write_bytes(b"years of work")
    try:
        with LyingHub(REPO, {FILE: BYTES}) as server, patch.multiple(hub, **_IMPATIENT):
            os.environ["HF_ENDPOINT"] = server.url
            wanted = lie(server)
            start = time.monotonic()
            path = hub.fetch_file(wanted) if isinstance(wanted, HubFile) else hub_models.obtain_hub_model(wanted).path
            assert time.monotonic() - start < 60
        assert path.read_bytes() == BYTES or (isinstance(wanted, HubFile) and not wanted.sha256), (
            "other bytes than promised"
        )
        assert path.resolve().is_relative_to(home / "hf"), f"stored at {path.resolve()}"
        return "right bytes"
    finally:
        assert (home / "thesis.docx").read_bytes() == b"years of work"
        outside = [path for path in home.iterdir() if path.name not in {"hf", "state", "thesis.docx"}]
        assert not outside, f"written: {outside}"


_IMPATIENT = {
    "WINDOW_SECONDS": PATIENCE,
    "RETRY_SECONDS": 0.01,
    "MOST_BYTES": 2**22,
    "LISTING_BYTES": 2**22,
    "PROBE_SECONDS": 2.0,
    "LISTING_SECONDS": 3.0,
}
