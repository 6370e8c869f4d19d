"""Refusals before a cluster starts; runs on a cluster are in test_run.py."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from batches import save_photo

from dsclora_cli.cli.app import main
from dsclora_cli.cluster import pool


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a usage error, with the hint."""
    assert main(["upscale", *arguments, "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["code"] == "usage" and error["hint"] and len(err.splitlines()) == 1
    return f"{error['message']} ({error['hint']})"


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return save_photo(Path("a.png")).name


def test_without_ray_the_message_says_what_to_install(
    photo: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    message = refused(capsys, photo, "-o", "out", "--executor", "ray")
    assert message == '--executor ray needs Ray (pip install "dsclora[ray]")'


def test_a_handler_of_sigterm_that_is_not_from_python_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    shut: list[bool] = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    pool._disconnect(SimpleNamespace(shutdown=lambda: shut.append(True)))
    assert shut == [True]


def test_an_address_where_nobody_listens_is_refused_at_once(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        message = refused(capsys, photo, "-o", "out", "--executor", "ray", "--ray-address", address)
    assert message.startswith(f"no Ray cluster listens at {address}: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ray-address", "ray://head:10001", "-o", "out"), "--ray-address ray://head:10001 is no address"),
        (("--ray-address", "head", "-o", "out"), "--ray-address head is neither auto nor HOST:PORT"),
        ((), "--executor ray writes into a folder"),
        (("-o", "a.png"), "--executor ray writes into a folder"),
        (("-o", "memory://out"), "--executor ray writes into a folder"),
        (("-o", "."), "a.png lies in the folder of results"),
        (("-o", "out", "--shard", "1/2"), "--shard and --executor ray cannot be combined"),
        (("-o", "out", "--watch"), "--watch and --executor ray cannot be combined"),
        (("-o", "out", "--compare-page"), "--compare-page and --executor ray cannot be combined"),
        (("-o", "out", "--device", "all"), "a worker has one device"),
        (("-o", "out", "--name", "{width}.{ext}"), "could give two results one name"),
    ],
)
def test_options_that_a_cluster_cannot_follow(
    photo: str, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert words in refused(capsys, photo, "--executor", "ray", *options)


def test_options_of_a_cluster_need_a_cluster(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "add --executor ray" in refused(capsys, photo, "--ray-workers", "2")


def test_a_dry_run_plans_on_this_machine(photo: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [photo, "-o", "out", "-m", "dsclora-x4", "--executor", "ray", "--dry-run", "--json"]
    assert main(["upscale", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "upscale"
