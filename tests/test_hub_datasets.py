"""Files of data-set repositories: the same client and the same errors as for weights, without a pin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hub_server import COMMIT, HubServer

from dsclora_cli import hub
from dsclora_cli.hub import fetch_dataset_file
from dsclora_cli.hub_client import HubUnavailable

REPO, FILE = "someone/Set5", "data/Set5_HR.tar.gz"
BYTES = bytes(range(256)) * 400


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer(f"datasets/{REPO}", {FILE: BYTES, f"old/{FILE}": b"another"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def refused(**options: bool) -> HubUnavailable:
    with pytest.raises(HubUnavailable) as caught:
        fetch_dataset_file(REPO, FILE, **options)
    assert "\n" not in str(caught.value)
    assert "--weights" not in caught.value.hint
    return caught.value


def test_a_file_is_downloaded_once_then_cached_without_any_request(server: HubServer) -> None:
    path = fetch_dataset_file(REPO, FILE)
    assert path.read_bytes() == BYTES
    assert path.is_relative_to(hub.cache_folder() / "datasets--someone--Set5")
    assert [request for request in server.requests if request.startswith("GET")] == [
        f"GET /datasets/{REPO}/resolve/{COMMIT}/{FILE}"
    ]
    server.requests.clear()
    assert fetch_dataset_file(REPO, FILE) == fetch_dataset_file(REPO, FILE, offline=True) == path
    assert server.requests == []


def test_files_of_the_same_name_in_other_folders_are_not_confused(server: HubServer) -> None:
    assert fetch_dataset_file(REPO, f"old/{FILE}").read_bytes() == b"another"
    assert fetch_dataset_file(REPO, FILE).read_bytes() == BYTES


def test_model_repositories_of_the_same_name_are_ignored(server: HubServer) -> None:
    other = hub.cache_folder() / "models--someone--Set5/snapshots" / COMMIT / FILE
    other.parent.mkdir(parents=True)
    other.write_bytes(b"weights")
    assert fetch_dataset_file(REPO, FILE).read_bytes() == BYTES


def test_a_missing_file_is_reported_without_a_search(server: HubServer) -> None:
    del server.files[FILE]
    error = refused()
    assert error.reason == "the Hub answered 404"
    assert f"{FILE} of {REPO}" in error.message
    assert len(server.requests) == 1
    server.repo = "datasets/someone/else"
    assert refused().reason == "repository not found"


def test_errors_suggest_a_data_folder_instead_of_weights(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(offline=True)
    assert (error.reason, server.requests) == ("offline", [])
    assert error.hint.endswith("or give a folder with --data-dir DIR")
    server.status, server.error_code = 403, "GatedRepo"
    assert f"{server.url}/datasets/{REPO}" in refused().hint
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused().hint.endswith("or give a folder with --data-dir DIR")


def test_a_cached_revision_is_used_even_if_the_hub_has_a_newer_one(server: HubServer) -> None:
    fetch_dataset_file(REPO, FILE)
    server.files[FILE] = b"changed on the Hub"
    assert fetch_dataset_file(REPO, FILE).read_bytes() == BYTES
