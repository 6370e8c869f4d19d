"""The Hub client: the real client against a server on this machine."""

from __future__ import annotations

import hashlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, QuietServer

from dsclora_cli import hub
from dsclora_cli.errors import WeightsError
from dsclora_cli.hub import HubFile
from dsclora_cli.hub_client import HubUnavailable

BYTES = bytes(range(256)) * 400
REPO, FILE = "someone/networks", "zoo/net.pth"
WANTED = HubFile(REPO, FILE, len(BYTES), hashlib.sha256(BYTES).hexdigest())
HEAD, GET = f"HEAD /{REPO}/resolve/", f"GET /{REPO}/resolve/"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(REPO, {FILE: BYTES, "README.md": b"hello"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def refused(wanted: HubFile = WANTED, **options: bool) -> HubUnavailable:
    with pytest.raises(HubUnavailable) as caught:
        hub.fetch_file(wanted, **options)
    assert "\n" not in str(caught.value) and caught.value.hint
    return caught.value


def files_in_cache() -> list[Path]:
    return [path for path in hub.cache_folder().rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_a_file_is_downloaded_once_then_cached_without_any_request(server: HubServer) -> None:
    assert hub.find_cached(WANTED) is None
    path = hub.fetch_file(WANTED)
    assert path.read_bytes() == BYTES
    assert path.is_relative_to(hub.cache_folder())
    assert path.name == "net.pth"
    assert len(server.requests) == 2  # where it is, the bytes
    server.requests.clear()
    assert hub.fetch_file(WANTED) == path
    assert hub.fetch_file(WANTED, offline=True) == path
    assert server.requests == []


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"])
def test_the_variables_of_the_client_set_the_cache_folder(
    server: HubServer, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert hub.fetch_file(WANTED).is_relative_to(tmp_path / "elsewhere")


def test_the_token_is_sent(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    handler = server._server.RequestHandlerClass
    monkeypatch.setattr(
        handler, "log_request", lambda self, *_: seen.append(self.headers.get("Authorization")), raising=False
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fetch_file(WANTED)
    assert set(seen) == {"Bearer hf_secret"}


def test_a_pinned_revision_is_requested(server: HubServer) -> None:
    hub.fetch_file(replace(WANTED, revision=COMMIT))
    assert all(f"/resolve/{COMMIT}/" in request for request in server.requests)


def test_bytes_with_another_sha256_are_refused_and_not_kept(server: HubServer) -> None:
    server.served[FILE] = BYTES[::-1]
    with pytest.raises(WeightsError, match=f"not have the pinned sha256 {WANTED.sha256}: refused, not kept") as caught:
        hub.fetch_file(WANTED)
    assert not isinstance(caught.value, HubUnavailable)
    assert files_in_cache() == []
    assert len(server.requests) <= 5


def test_a_small_file_outside_lfs_is_verified_too(server: HubServer) -> None:
    server.lfs = False
    assert hub.fetch_file(WANTED).read_bytes() == BYTES
    other = replace(WANTED, sha256="0" * 64)
    with pytest.raises(WeightsError, match="refused, not kept"):
        hub.fetch_file(other)


def test_another_file_at_the_pinned_path_is_not_even_downloaded(server: HubServer) -> None:
    server.files[FILE] = BYTES[::-1]
    assert refused().reason == "no longer in its repository"
    assert not [request for request in server.requests if request.startswith(GET)]


@pytest.mark.parametrize("revision", [None, COMMIT, "a-tag-that-went-away"])
def test_a_moved_file_is_found_by_its_sha256(server: HubServer, revision: str | None) -> None:
    server.files["weights/renamed.pth"] = server.files.pop(FILE)
    wanted = replace(WANTED, revision=revision)
    path = hub.fetch_file(wanted)
    assert (path.name, path.read_bytes()) == ("renamed.pth", BYTES)
    assert len(server.requests) <= 6
    server.requests.clear()
    assert hub.fetch_file(wanted) == path
    assert server.requests == []


def test_a_damaged_cached_copy_is_replaced(server: HubServer) -> None:
    path = hub.fetch_file(WANTED)
    path.resolve().write_bytes(BYTES[::-1])
    assert hub.find_cached(WANTED) is None
    assert hub.fetch_file(WANTED).read_bytes() == BYTES


@pytest.mark.parametrize(
    ("status", "code", "reason", "hint"),
    [
        (404, "RepoNotFound", "repository not found", "check the name"),
        (401, "RepoNotFound", "repository not found", "HF_TOKEN"),
        (401, "", "the Hub answered 401", "check HF_TOKEN"),
        (403, "GatedRepo", "access not granted", "ask for access at http://"),
        (403, "", "the Hub answered 403", "check HF_TOKEN"),
        (500, "", "the Hub answered 500", "try again later"),
        (503, "", "the Hub answered 503", "try again later"),
    ],
)
def test_a_refusal_is_reported_in_one_line(server: HubServer, status: int, code: str, reason: str, hint: str) -> None:
    server.status, server.error_code = status, code
    error = refused()
    assert error.reason == reason
    assert hint in error.hint
    assert REPO in error.message
    assert len(server.requests) == 1  # so without the client's waits between tries


def test_a_silent_server_is_asked_only_once(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hub.PROBE_SECONDS < 5
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    server.silent = True
    error = refused()
    assert error.reason == "time-out"
    assert server.url in error.message
    assert len(server.requests) == 1


def test_a_host_name_that_does_not_resolve_in_time_is_a_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.3)
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(60))
    assert refused().reason == "time-out"
    answered.set()


def test_no_server_at_all_is_reported_as_no_internet() -> None:
    error = refused()
    assert error.reason == "no internet"
    assert "cannot reach http://127.0.0.1:9" in error.message
    assert "HF_ENDPOINT" in error.hint


@pytest.mark.slow
@pytest.mark.parametrize("resets", [False, True])
def test_a_broken_connection_is_retried(server: HubServer, resets: bool, capfd: pytest.CaptureFixture[str]) -> None:
    server.drops, server.resets = 1, resets
    assert hub.fetch_file(WANTED).read_bytes() == BYTES
    assert [request for request in server.requests if request.startswith(GET)] == [f"{GET}{COMMIT}/{FILE}"] * 2
    assert capfd.readouterr().err == ""


def test_a_connection_that_keeps_breaking_is_one_line(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server.drops = 100
    error = refused()
    assert error.reason == "connection lost"
    assert FILE in error.message
    assert files_in_cache() == []
    assert len(server.requests) < 40


@pytest.mark.parametrize("how", ["option", "variable"])
def test_offline_opens_no_socket(server: HubServer, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_socket(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    if how == "variable":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket, "socket", no_socket)
    error = refused(offline=how == "option")
    assert error.reason == "offline"
    cause = {"option": "--offline", "variable": "HF_HUB_OFFLINE"}[how]
    assert error.hint == f"run once without {cause}, or give a file of weights in place of the name"
    assert server.requests == []


@pytest.mark.usefixtures("server")
def test_a_cache_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file"))
    error = refused()
    assert error.reason == "cache not writable"
    assert str(tmp_path / "file") in error.message


def test_a_cached_file_does_not_import_the_client(server: HubServer) -> None:
    hub.fetch_file(WANTED)
    fetch = f"from dsclora_cli import hub; hub.fetch_file(hub.{WANTED!r})"
    code = f"{fetch}; import sys; print('huggingface_hub' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], env=os.environ, timeout=60).split() == [b"False"]


def test_the_hub_is_told_nothing_about_the_machine(server: HubServer) -> None:
    seen: list[str] = []
    handler = server._server.RequestHandlerClass
    handler.log_request = lambda self, *_: seen.append(str(self.headers))  # type: ignore[method-assign]
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    env |= {"AI_AGENT": "somebody", "HF_HOME": str(hub.cache_folder() / "another")}
    code = f"from dsclora_cli import hub; hub.fetch_file(hub.{WANTED!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env=env, timeout=60)
    assert [request.split()[0] for request in server.requests] == ["HEAD", "GET"]
    assert not any(word in headers.lower() for headers in seen for word in ("torch", "python", "somebody", "cookie"))


def test_progress_is_for_terminals_only(server: HubServer, capfd: pytest.CaptureFixture[str]) -> None:
    pty, termios = (pytest.importorskip(name, reason="needs a POSIX terminal") for name in ("pty", "termios"))
    assert hub.fetch_file(WANTED) and capfd.readouterr() == ("", "")
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-c", f"from dsclora_cli import hub; hub.fetch_file(hub.{WANTED!r})"]
    env = {**os.environ, "HF_HOME": str(hub.cache_folder() / "another")}
    subprocess.run(command, check=True, env=env, stderr=terminal, timeout=60)
    shown = b""
    while select.select([master], [], [], 0.2)[0]:  # before the terminal is closed, which may throw away what is unread
        shown += os.read(master, 1 << 16)
    os.close(terminal)
    os.close(master)
    assert b"net.pth" in shown and b"100%" in shown


@pytest.mark.slow
def test_the_test_server_prints_nothing_when_a_client_resets_its_connection(capfd: pytest.CaptureFixture[str]) -> None:
    server = QuietServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = False  # so that closing waits for the handler
    with socket.create_connection(server.server_address[:2]) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(b"GET / HTTP/1.1\r\n")
    server.handle_request()
    server.server_close()
    assert capfd.readouterr().err == ""


def test_the_claim_of_a_download_ends_when_the_file_can_be_found(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, found = Path.replace, []

    def look(self: Path, target: Path) -> Path:
        moved = replace(self, target)
        if self.suffix == ".incomplete":
            found.append(hub.find_cached(WANTED))
        return moved

    monkeypatch.setattr(Path, "replace", look)
    fetched = hub.fetch_file(WANTED)
    assert found == [fetched]


@pytest.mark.slow
def test_two_processes_at_once_download_once(server: HubServer) -> None:
    server.delay = 0.5
    code = f"from dsclora_cli import hub; assert hub.sha256_of(hub.fetch_file(hub.{WANTED!r})) == {WANTED.sha256!r}"
    runs = [subprocess.Popen([sys.executable, "-c", code], env=os.environ) for _ in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    assert len(files_in_cache()) == 2  # one blob and the pointer to it
    assert len([request for request in server.requests if request.startswith(GET)]) == 1
