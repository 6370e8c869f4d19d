"""`dsclora models` and weights of other people's repositories: fetched once, then known here."""

from __future__ import annotations

import json

import pytest
import torch
from hub_server import COMMIT, HubServer

from dsclora_cli import hub
from dsclora_cli.models.span import SPAN, SpanConfig
from dsclora_cli.weights import hub_models
from dsclora_cli.weights.checkpoint import save_network

REPO, FILE = "someone/2xPhotos", "models/2xPhotos.safetensors"
REFERENCE = f"hf://{REPO}/{FILE}"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A Hub with one repository that holds one weight file."""
    torch.manual_seed(0)
    save_network(SPAN(SpanConfig(channels=4, blocks=1, scale=2)), tmp_path / "own.safetensors", "")
    hub_models._obtain.cache_clear()
    files = {FILE: (tmp_path / "own.safetensors").read_bytes()}
    with HubServer(REPO, files, card={"license": "cc-by-4.0"}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def test_a_reference_is_fetched_once_and_then_described_without_a_request(dsclora, server) -> None:
    code, out, err = dsclora("models", "info", REFERENCE)
    assert code == 3 and "was never used on this machine" in err and f"`dsclora models fetch {REFERENCE}`" in err
    code, out, err = dsclora("models", "fetch", REFERENCE)
    assert code == 0 and out.startswith(f"{REFERENCE}: ")
    assert "note: " in err and "licence cc-by-4.0" in err and "is used for the first time" in err

    hub_models._obtain.cache_clear()
    server.requests.clear()
    fetched = json.loads(dsclora("models", "fetch", REFERENCE, "--json").out)
    assert (fetched["status"], fetched["note"]) == ("here", "")
    model = json.loads(dsclora("models", "info", REFERENCE, "--json").out)
    assert (model["name"], model["place"], model["licence"], model["repo"]) == (REFERENCE, "cached", "cc-by-4.0", REPO)
    assert (model["scale"], model["network"]["channels"]) == (2, 4)
    assert dsclora("models", "path", REFERENCE).out.strip() == model["path"] == fetched["path"]
    assert server.requests == []


def test_the_list_names_references_that_were_used(dsclora, server) -> None:
    assert dsclora("models", "list").err == ""
    dsclora("models", "fetch", REFERENCE)
    err = dsclora("models", "list").err
    assert err == f"note: also used here, from the Hub: {REFERENCE} (`dsclora models info` describes each)\n"


def test_a_file_that_changed_in_the_cache_is_found_and_pruned(dsclora, server) -> None:
    dsclora("models", "fetch", REFERENCE)
    files = [json.loads(line) for line in dsclora("models", "verify", "--json").out.splitlines()]
    assert files[-1]["name"] == REFERENCE and files[-1]["state"] == "intact"

    (blob,) = (path for path in (hub.cache_folder() / "models--someone--2xPhotos" / "blobs").iterdir())
    blob.write_bytes(b"x" * blob.stat().st_size)
    code, _, err = dsclora("models", "verify", REFERENCE)
    assert code == 3 and f"error: {REFERENCE} is damaged: " in err and f"`dsclora models fetch {REFERENCE}`" in err
    code, out, _ = dsclora("models", "prune", "--yes", "--json")
    assert code == 0 and [json.loads(line)["name"] for line in out.splitlines()] == [REFERENCE]
    assert not blob.exists()
    # The trust stays: the same bytes are fetched again, without a first use.
    hub_models._obtain.cache_clear()
    code, out, err = dsclora("models", "fetch", REFERENCE, "--json")
    assert code == 0 and json.loads(out)["note"] == ""


def test_a_failed_reference_does_not_stop_the_others(dsclora, server) -> None:
    code, out, _ = dsclora("models", "fetch", "some/body", "dsclora-x2", "--json")
    nobody, known = map(json.loads, out.splitlines())
    assert code == 3 and nobody["error"]["code"] == "weights-unusable" and known["status"] == "here"


def test_a_name_with_brackets_is_found_in_the_cache(dsclora, server) -> None:
    file = "models/2x[photos].safetensors"
    reference, data = f"hf://{REPO}/{file}", server.files[FILE]
    server.files = {file: data}
    snapshot = hub.cache_folder() / f"models--{REPO.replace('/', '--')}/snapshots/{COMMIT}"
    (snapshot / file).parent.mkdir(parents=True)
    (snapshot / file).write_bytes(data)  # by another program, and in a cache without links
    assert hub.fetch_file(hub.HubFile(REPO, file), offline=True) == snapshot / file

    dsclora("models", "fetch", reference)
    hub_models._obtain.cache_clear()
    (snapshot / file).write_bytes(data[:-1] + b"!")
    found = json.loads(dsclora("models", "verify", reference, "--json").out)
    assert (found["state"], found["path"]) == ("damaged", str(snapshot / file))
