"""Weight files at URLs: copied once, again after a change, and found without the internet afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import fsspec
import pytest
from hub_server import QuietServer
from networks import small

from dsclora_cli.config import ModelOptions
from dsclora_cli.errors import WeightsError
from dsclora_cli.paths import sha256_of
from dsclora_cli.storage.places import parse_place
from dsclora_cli.weights.checkpoint import save_network
from dsclora_cli.weights.remote import local_weights
from dsclora_cli.weights.resolve import find_weights

URL = "memory://models/mine.safetensors"


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def test_a_file_at_a_url_is_copied_and_copied_again_after_a_change(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file(URL, b"first")
    copy = local_weights(parse_place(URL), offline=False)
    assert (copy.name, copy.read_bytes()) == ("mine.safetensors", b"first")
    assert local_weights(parse_place(URL), offline=False) == copy
    memory.pipe_file(URL, b"other bytes")
    changed = local_weights(parse_place(URL), offline=False)
    assert changed.read_bytes() == b"other bytes"
    assert not copy.exists()
    memory.rm_file(URL)
    assert local_weights(parse_place(URL), offline=True) == changed


def test_a_file_that_is_absent_or_too_large_is_named(memory: fsspec.AbstractFileSystem, monkeypatch) -> None:
    with pytest.raises(WeightsError, match=r"memory://models/mine\.safetensors does not exist"):
        local_weights(parse_place(URL), offline=False)
    with pytest.raises(WeightsError, match="not on this machine yet"):
        local_weights(parse_place(URL), offline=True)
    memory.pipe_file(URL, b"first")
    with pytest.raises(WeightsError, match="is a folder, not a weight file"):
        local_weights(parse_place("memory://models"), offline=False)
    monkeypatch.setattr("dsclora_cli.weights.remote.MOST_WEIGHT_BYTES", 3)
    with pytest.raises(WeightsError, match="5 bytes are more than 1 GiB"):
        local_weights(parse_place(URL), offline=False)


class _Files(SimpleHTTPRequestHandler):
    """Serve the current folder without ETag: with the time of change (`dated`), or with nothing but the size."""

    dated = True

    def log_message(self, *arguments: object) -> None:
        """Write no log."""

    def send_header(self, keyword: str, value: str) -> None:
        """Send a header, `Last-Modified` where `dated` only."""
        if keyword != "Last-Modified" or self.dated:
            super().send_header(keyword, value)


@pytest.fixture(params=[True, False], ids=["dated", "undated"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the address of a web server that sends no ETag; the server offers the files of the current folder."""
    monkeypatch.chdir(tmp_path)
    handler = type("Handler", (_Files,), {"dated": request.param})
    with QuietServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_weights_of_the_same_size_at_a_web_address_without_etag_are_copied_again(site: str) -> None:
    pytest.importorskip("aiohttp")
    options = ModelOptions(weights=parse_place(f"{site}/mine.safetensors"))
    path = Path("mine.safetensors")
    sizes = set()
    for seed in range(2):
        save_network(small(seed), path, "test")
        os.utime(path, (seed, seed))  # the header has whole seconds
        sizes.add(path.stat().st_size)
        found = find_weights(options, 2)
        assert found.sha256 == sha256_of(path)
        assert find_weights(options, 2).path == found.path
    assert len(sizes) == 1
    path.unlink()
    assert find_weights(ModelOptions(weights=options.weights, offline=True), 2).path == found.path


def test_a_path_is_left_alone() -> None:
    assert local_weights(parse_place("absent.pth"), offline=True) == Path("absent.pth")
