"""Weights at web addresses: with a pin they are downloaded and checked, without a pin only after `trust`."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from hub_server import QuietServer

from dsclora_cli.config import ModelOptions
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.models.edsr import EDSR, EdsrConfig
from dsclora_cli.paths import cache_dir, config_dir
from dsclora_cli.weights import download
from dsclora_cli.weights.catalog import load_catalog
from dsclora_cli.weights.listing import fetch_model, list_models
from dsclora_cli.weights.resolve import find_weights


class Quiet(SimpleHTTPRequestHandler):
    """A file server without log; downloads from `/cut/...` break, others never end."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/cut/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
        elif self.path.startswith(("/drip/", "/endless/")):
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # the client gives up
                for _ in range(20_000):
                    self.wfile.write(bytes(1 << 16 if self.path.startswith("/endless/") else 1))
                    time.sleep(0 if self.path.startswith("/endless/") else 0.05)
        elif self.path == "/gibberish":
            self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        else:
            super().do_GET()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the address of a server, and the file of an EDSR that the server offers as `edsr.pt`."""
    torch.manual_seed(0)
    (tmp_path / "site").mkdir()
    torch.save(EDSR(EdsrConfig(4, 1, 2)).state_dict(), tmp_path / "site" / "edsr.pt")
    server = QuietServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path / "site" / "edsr.pt"
    server.shutdown()
    server.server_close()


def write_catalog(url: str, more: str = "") -> None:
    config_dir().mkdir(parents=True, exist_ok=True)
    (config_dir() / "weights.toml").write_text(
        f'[weights.plain]\narch = "edsr"\nscale = 2\nchannels = 4\nurl = "{url}"\n'
        f'licence = "MIT"\nsource = "me"\n{more}'
    )


def place() -> str:
    return next(row.place for row in list_models() if row.name == "plain")


def test_a_cache_that_cannot_be_written_is_named(site: tuple[str, Path]) -> None:
    write_catalog(f"{site[0]}/edsr.pt")
    cache_dir().parent.mkdir(parents=True, exist_ok=True)
    cache_dir().write_text("a file in place of the folder")
    with pytest.raises(WeightsError, match=r"cannot write to .*weights/plain: .*, or set DSCLORA_CACHE_DIR to"):
        fetch_model("plain", trust=True)


def test_a_file_without_a_pin_is_fetched_only_with_trust(site: tuple[str, Path]) -> None:
    address, file = site
    write_catalog(f"{address}/edsr.pt")
    with pytest.raises(WeightsError, match=r"no sha256 for plain, at .*models fetch plain --trust-unpinned"):
        find_weights(ModelOptions("plain"), 2)
    assert place() == "on the web"

    heard: list[tuple[int, int | None]] = []
    fetched = fetch_model("plain", trust=True, on_bytes=lambda done, total: heard.append((done, total)))
    assert fetched.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert heard[-1] == (file.stat().st_size, file.stat().st_size)
    assert place() == "cached"
    found = find_weights(ModelOptions("plain", offline=True), 2)
    assert (found.path, found.sha256) == (fetched.path, fetched.sha256)

    fetched.path.unlink()
    assert find_weights(ModelOptions("plain"), 2).sha256 == fetched.sha256  # the same bytes again
    fetched.path.unlink()
    file.write_bytes(b"other bytes")
    with pytest.raises(WeightsError, match="not the sha256 of plain"):
        find_weights(ModelOptions("plain"), 2)
    assert not fetched.path.exists()


def test_a_pinned_file_needs_no_trust_and_must_match(site: tuple[str, Path]) -> None:
    address, file = site
    pin = hashlib.sha256(file.read_bytes()).hexdigest()
    write_catalog(f"{address}/edsr.pt", f'sha256 = "{pin}"\nsize = {file.stat().st_size}\n')
    assert find_weights(ModelOptions("plain"), 2).sha256 == pin
    write_catalog(f"{address}/edsr.pt", f'sha256 = "{"0" * 64}"\n')
    with pytest.raises(WeightsError, match=r"has the sha256 .*\(the file was refused\)"):
        find_weights(ModelOptions("plain"), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/none.pt", "404"),
        ("/cut/edsr.pt", "9 of 1000 bytes"),
        ("/drip/edsr.pt", "did not answer in time"),
        ("/gibberish", "SSH"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_no_file(
    site: tuple[str, Path], path: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_catalog(site[0] + path)
    monkeypatch.setattr("dsclora_cli.weights.download._WINDOW_SECONDS", 0.5)
    with pytest.raises(WeightsError, match=rf"plain cannot be fetched from http://.*{reason}") as caught:
        fetch_model("plain", trust=True)
    assert caught.value.hint
    assert place() == "on the web"


def test_more_bytes_than_the_catalog_says_are_refused(site: tuple[str, Path]) -> None:
    write_catalog(site[0] + "/endless/edsr.pt", "size = 1000")
    with pytest.raises(WeightsError, match="sends more bytes than plain has: refused"):
        fetch_model("plain", trust=True)
    assert not [path for path in cache_dir().rglob("*") if path.is_file()]


@pytest.mark.parametrize("path", ["/a/..", "/a/.", "/a/", "/a%2F..%2F..%2Fb", "/a\\\\..\\\\b", "/" + "a" * 300])
def test_an_address_names_no_place_outside_the_cache(path: str) -> None:
    write_catalog("https://example.com" + path)
    place = download.path_of(load_catalog().entry("plain"))
    assert place.parent == cache_dir() / "weights" / "plain"
    assert place.name not in {"", ".", ".."} and len(place.name) < 256


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0" * 63, b"x" * 64])
def test_a_damaged_note_of_a_sha256_counts_as_none(content: bytes) -> None:
    write_catalog("https://example.com/edsr.pt")
    entry = load_catalog().entry("plain")
    note = download.sha256_file(download.path_of(entry))
    note.parent.mkdir(parents=True)
    note.write_bytes(content)
    assert download.known_sha256(entry) == ""
    note.unlink()
    if hasattr(os, "mkfifo"):
        os.mkfifo(note)
        assert download.known_sha256(entry) == ""


def test_offline_makes_no_request(site: tuple[str, Path]) -> None:
    write_catalog(site[0] + "/edsr.pt")
    with pytest.raises(WeightsError, match="plain is not in the cache, and the program is offline"):
        find_weights(ModelOptions("plain", offline=True), 2)


@pytest.mark.parametrize("url", ["http://example.com/a.pt", "file:///etc/passwd", "ftp://example.com/a.pt"])
def test_unsafe_addresses_are_refused(url: str) -> None:
    write_catalog(url)
    with pytest.raises(UsageError, match="url"):
        load_catalog()
