"""Sets by name: fetched from a Hub on this machine with the real client, unpacked once, completely or not at all."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from sets import noise, png, tar_gz, zipped

from dsclora_cli import hub
from dsclora_cli.datasets.download import SOURCES, fetch_set, set_name
from dsclora_cli.errors import ImageError, UsageError
from dsclora_cli.paths import cache_dir

FIRST, SECOND = "datasets/eugenesiow/Set5", "datasets/goodfellowliu/Set5"
FILE, ZIP = "data/Set5_HR.tar.gz", "Set5.zip"
PICTURES = {f"{name}.png": png(noise(seed, (100, 80))) for seed, name in enumerate(("baby", "bird", "head"))}
ARCHIVE = tar_gz({f"Set5_HR/{name}": data for name, data in PICTURES.items()})
OTHER = zipped({"Set5/GTmod12/baby.png": PICTURES["baby.png"], "Set5/LRbicx4/baby.png": png(noise(9))})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(FIRST, {FILE: ARCHIVE}, {SECOND: {ZIP: OTHER}}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(name: str = "Set5", offline: bool = False) -> ImageError:
    with pytest.raises(ImageError) as caught:
        fetch_set(name, offline)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def left_behind() -> list[str]:
    return [path.name for path in (cache_dir() / "datasets").rglob("*")]


@pytest.mark.parametrize("name", ["Set5", "set5", "SET5"])
def test_set_names_are_known_in_any_case(name: str) -> None:
    assert set_name(name) == "Set5"


def test_an_unknown_name_lists_the_sets() -> None:
    with pytest.raises(UsageError, match='no benchmark set "Set6"') as caught:
        set_name("Set6")
    assert caught.value.hint.startswith("one of Set5, Set14, BSD100, Urban100, Manga109, DIV2K, DIV2K-valid;")


def test_a_set_is_fetched_once_and_then_needs_no_request(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    folder = fetch_set("Set5", on_progress=lambda done, total: told.append((done, total)))
    assert folder == cache_dir() / "datasets" / "Set5" / "HR"
    assert contents(folder) == PICTURES
    assert told[-1] == (sum(map(len, PICTURES.values())),) * 2
    assert len([request for request in server.requests if request.startswith("GET")]) == 1
    assert all("eugenesiow" in request for request in server.requests)

    server.requests.clear()
    hub.find_cached(hub.HubFile("eugenesiow/Set5", FILE, kind="dataset")).resolve().unlink()
    monkeypatch.setattr(socket, "socket", None)
    assert fetch_set("Set5") == fetch_set("Set5", offline=True) == folder
    assert server.requests == []


def test_an_archive_in_the_cache_of_the_client_needs_no_request(server: HubServer) -> None:
    hub.fetch_dataset_file("eugenesiow/Set5", FILE)
    server.requests.clear()
    assert contents(fetch_set("Set5", offline=True)) == PICTURES
    assert server.requests == []


@pytest.mark.slow
def test_a_broken_download_resumes(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)
    server.drops = 1
    assert contents(fetch_set("Set5")) == PICTURES
    (wanted,) = server.ranges
    # The oldest client that is supported loses what its buffer held.
    assert 0 <= len(ARCHIVE) // 2 - int(wanted.removeprefix("bytes=").removesuffix("-")) < 8192


@pytest.mark.parametrize("missing", ["repository", "file"])
def test_the_second_source_replaces_a_missing_first_source(server: HubServer, missing: str) -> None:
    if missing == "repository":
        server.repo = "datasets/somebody/else"
    else:
        server.files.clear()
    assert contents(fetch_set("Set5")) == {"baby.png": PICTURES["baby.png"]}
    assert server.requests[0].startswith(f"HEAD /{FIRST}/resolve/")


def test_an_error_names_every_source_that_failed(server: HubServer) -> None:
    server.status = 503
    error = refused()
    assert error.message.startswith("Set5 cannot be fetched: ")
    assert error.code == "set-unavailable"
    assert f"answered 503 for {FILE} of eugenesiow/Set5; " in error.message
    assert f"answered 503 for {ZIP} of goodfellowliu/Set5" in error.message
    assert "--data-dir DIR" in error.hint


def test_offline_opens_no_socket_and_names_the_next_step(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    error = refused("Urban100", offline=True)
    assert "data/Urban100_HR.tar.gz of eugenesiow/Urban100 is not in the cache, and the program is off" in error.message
    assert error.hint == "run once without --offline, or give a folder with --data-dir DIR"
    assert server.requests == []


def test_without_internet_the_next_step_is_a_folder() -> None:
    error = refused("Manga109")
    assert "cannot reach http://127.0.0.1:9 for Manga109.zip of goodfellowliu/Manga109" in error.message
    assert "--data-dir DIR" in error.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "repo", "file"), [(name, *source) for name, sources in SOURCES.items() for source in sources]
)
def test_every_source_of_every_set_can_be_fetched(server: HubServer, name: str, repo: str, file: str) -> None:
    picture = png(noise())
    pack = zipped if file.endswith(".zip") else tar_gz
    server.repo, server.others = f"datasets/{repo}", {}
    server.files = {file: pack({f"{name}_HR/0801.png": picture})}
    assert contents(fetch_set(name)) == {"0801.png": picture}


def test_a_bad_archive_leaves_nothing_behind(server: HubServer) -> None:
    server.files[FILE] = tar_gz({"Set5_HR/baby.png": PICTURES["baby.png"], "../bird.png": b"x"})
    assert "leads out of" in refused().message
    assert left_behind() == []


def test_an_interrupted_unpack_leaves_nothing_and_is_repeated(server: HubServer) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_set("Set5", on_progress=interrupt)
    assert left_behind() == []
    assert contents(fetch_set("Set5")) == PICTURES


def test_folders_of_killed_processes_are_removed_and_of_running_ones_kept(server: HubServer) -> None:
    sets = cache_dir() / "datasets"
    for name in (".Set5-dead", ".Set5-alive", ".Set14-dead"):
        (sets / name).mkdir(parents=True)
    os.utime(sets / ".Set5-dead", (0, 0))
    fetch_set("Set5")
    assert sorted(path.name for path in sets.iterdir()) == [".Set14-dead", ".Set5-alive", "Set5"]


def test_a_faster_process_wins(server: HubServer) -> None:
    winner = cache_dir() / "datasets" / "Set5" / "HR"

    def win(done: int, total: int) -> None:
        winner.mkdir(parents=True, exist_ok=True)
        (winner / "theirs.png").touch()

    assert fetch_set("Set5", on_progress=win) == winner
    assert contents(winner) == {"theirs.png": b""}
    assert [path.name for path in winner.parent.parent.iterdir()] == ["Set5"]


def test_a_cache_without_write_permission_is_reported(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSCLORA_CACHE_DIR", str(tmp_path / "file"))
    error = refused()
    assert error.message.startswith(f"cannot unpack Set5 into {tmp_path / 'file' / 'datasets'}: ")
    assert "DSCLORA_CACHE_DIR" in error.hint
