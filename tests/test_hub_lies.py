"""A Hub that lies: names that lead elsewhere, bodies without an end, bytes that never come."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, HubServer
from hypothesis import given
from hypothesis import strategies as st

from dsclora_cli import hub, transfer
from dsclora_cli.errors import WeightsError
from dsclora_cli.hub import HubFile
from dsclora_cli.hub_client import HubUnavailable
from dsclora_cli.paths import is_inner_path

BYTES = bytes(range(256)) * 400
REPO, FILE = "someone/networks", "zoo/net.pth"
WANTED = HubFile(REPO, FILE, len(BYTES), hashlib.sha256(BYTES).hexdigest())


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(REPO, {FILE: BYTES}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def thesis() -> Path:
    """A file of the user, four folders above the blobs of the repository."""
    path = hub.cache_folder().parent / "thesis.docx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"years of work")
    return path


def outside() -> set[Path]:
    """All files that are not in the folder of the repository."""
    home = hub.cache_folder().parent
    return {path for path in home.rglob("*") if path.is_file() and "models--someone--networks" not in path.parts}


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("name", ["../../../thesis.docx", "{home}/thesis.docx", "..\\..\\..\\thesis.docx", "a/b", "."])
def test_an_etag_names_no_file(server: HubServer, thesis: Path, name: str, kind: str) -> None:
    server.repo = REPO if kind == "model" else f"datasets/{REPO}"
    etag = f'"{name.format(home=thesis.parent)}"'
    server.headers = {"ETag": etag, "X-Linked-Etag": etag}
    wanted = WANTED if kind == "model" else HubFile(REPO, FILE, kind="dataset")
    assert hub.fetch_file(wanted).read_bytes() == BYTES
    assert thesis.read_bytes() == b"years of work"
    files = [path for path in thesis.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.name for path in files} == {"thesis.docx", WANTED.sha256}


@pytest.mark.parametrize("commit", ["../../../../up", "/tmp/up", "main", "", "C" * 40, COMMIT + "\\.."])
def test_a_commit_names_no_folder(server: HubServer, thesis: Path, commit: str) -> None:
    server.headers = {"X-Repo-Commit": commit}
    with pytest.raises(HubUnavailable) as caught:
        hub.fetch_file(WANTED)
    assert caught.value.reason == "unusable answer of the Hub"
    assert outside() == {thesis}


@pytest.mark.parametrize(
    "name", ["../../../../thesis.docx", "/etc/passwd", "a\\..\\b", "C:evil", "a\n", "\x1b[2J", "x" * 300, ""]
)
def test_a_listing_names_no_file_elsewhere(server: HubServer, thesis: Path, name: str) -> None:
    server.files["moved.pth"] = server.files.pop(FILE)
    server.renamed = {"moved.pth": name}
    with pytest.raises(HubUnavailable) as caught:
        hub.fetch_file(WANTED)
    assert caught.value.reason == "unusable answer of the Hub" and str(caught.value).isprintable()
    assert outside() == {thesis}
    assert thesis.read_bytes() == b"years of work"


@pytest.mark.parametrize(
    "siblings", ["true", '["x", null, [1]]', '[{"rfilename": 7, "size": 1e999, "lfs": "x"}]', "{}"]
)
def test_a_listing_of_other_types_lists_no_file(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, siblings: str
) -> None:
    monkeypatch.setattr(server, "listing", lambda: json.loads(f'{{"siblings": {siblings}, "cardData": 3}}'))
    listed = hub.describe_repo(REPO)
    assert listed.licence == "" and set(listed.files) <= {"7"}
    assert all(file == hub.ListedFile(0, None) for file in listed.files.values())
    server.files["moved.pth"] = server.files.pop(FILE)
    with pytest.raises(HubUnavailable, match="lists no file with sha256"):
        hub.fetch_file(WANTED)


@pytest.mark.slow
@given(st.text(max_size=5) | st.text("./\\:a~", max_size=9))
def test_an_inner_path_stays_inside(name: str) -> None:
    if is_inner_path(name):
        assert os.path.normpath(name) == name and not Path(name).is_absolute() and not name.startswith("..")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "WINDOW_SECONDS", 0.5)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("rate", [10, 500])
def test_a_hub_that_drips_is_given_up(server: HubServer, rate: int) -> None:
    server.rate = rate
    with pytest.raises(HubUnavailable) as caught:
        hub.fetch_file(WANTED)
    assert caught.value.reason == "time-out"
    assert not list(hub.cache_folder().rglob("*.incomplete"))


@pytest.mark.usefixtures("impatient")
def test_a_hub_that_stalls_after_the_headers_is_given_up(server: HubServer) -> None:
    server.delay = 60
    with pytest.raises(HubUnavailable) as caught:
        hub.fetch_file(WANTED)
    assert caught.value.reason == "time-out"


def test_a_body_longer_than_the_pin_ends_early(server: HubServer) -> None:
    server.endless = True
    with pytest.raises(WeightsError, match="refused, not kept") as caught:
        hub.fetch_file(WANTED)
    assert not isinstance(caught.value, HubUnavailable)
    assert not [path for path in hub.cache_folder().rglob("*") if path.is_file()]


def test_a_stated_length_above_the_pin_is_not_even_read(server: HubServer) -> None:
    server.served[FILE] = BYTES * 2
    with pytest.raises(WeightsError, match="refused, not kept"):
        hub.fetch_file(WANTED)


def test_a_file_without_a_pin_has_a_largest_size(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MOST_BYTES", 1 << 20)
    server.repo, server.endless = f"datasets/{REPO}", True
    with pytest.raises(HubUnavailable) as caught:
        hub.fetch_dataset_file(REPO, FILE)
    assert caught.value.reason == "too many bytes"


def test_a_file_larger_than_the_disk_is_not_begun(server: HubServer) -> None:
    server.repo, server.headers = f"datasets/{REPO}", {"Content-Length": str(7 * 2**30), "X-Linked-Size": "1"}
    real = hub.shutil.disk_usage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub.shutil, "disk_usage", lambda path: real(path)._replace(free=1000))
        with pytest.raises(HubUnavailable) as caught:
            hub.fetch_dataset_file(REPO, FILE)
    assert caught.value.reason == "no space in the cache"


def test_an_endless_listing_is_given_up(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LISTING_BYTES", 1 << 20)
    server.files["moved.pth"] = server.files.pop(FILE)
    server.endless = True
    with pytest.raises(HubUnavailable):
        hub.fetch_file(replace(WANTED))


def test_a_pipe_in_the_cache_is_neither_read_nor_written(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    folder = hub.cache_folder() / "models--someone--networks"
    snapshot = folder / "snapshots" / COMMIT / FILE
    for path in (folder / "blobs" / str(WANTED.sha256), folder / "blobs" / f"{WANTED.sha256}.incomplete", snapshot):
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
    monkeypatch.setattr(hub, "WINDOW_SECONDS", 0.2)
    assert hub.find_cached(WANTED) is None
    assert hub.fetch_file(WANTED).read_bytes() == BYTES


def test_the_claim_of_a_running_download_is_respected(tmp_path: Path) -> None:
    path = tmp_path / "a.incomplete"
    first = transfer.claim(path, 0.2)
    ended = threading.Event()

    def grow() -> None:
        for _ in range(5):
            first.write(b"more")
            first.flush()
            time.sleep(0.1)
        ended.set()
        first.close()
        path.unlink()

    threading.Thread(target=grow).start()
    with transfer.claim(path, 0.3) as second:
        assert ended.is_set() and second.read() == b""


def test_a_claim_left_by_a_killed_process_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.incomplete"
    path.write_bytes(b"half")
    os.utime(path, times=(time.time() + 3600,) * 2)  # the clock of another machine
    with transfer.claim(path, 0.1) as file:
        assert file.read() == b""
    os.utime(path, times=(1, 1))
    start = time.monotonic()
    with transfer.claim(path, 60) as file:
        assert file.read() == b"" and time.monotonic() - start < 30


def test_a_download_that_stood_still_leaves_the_claim_of_another_process_alone(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = hub.repo_folder(WANTED) / "blobs" / f"{WANTED.sha256}.incomplete"
    real, contents = hub.watched, []

    def take_over(*arguments: Any) -> object:
        """Receive the file, and do what another process does that takes this one for dead, and is killed."""
        received = real(*arguments)
        if not contents:
            path.unlink()
            path.write_bytes(b"half")
            os.utime(path, times=(1, 1))
        contents.append(path.read_bytes())
        return received

    monkeypatch.setattr(hub, "watched", take_over)
    assert hub.fetch_file(WANTED).read_bytes() == BYTES
    assert contents == [b"half", BYTES]
    assert not list(hub.cache_folder().rglob("*.incomplete"))
