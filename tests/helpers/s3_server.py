"""A real S3 server on this machine: moto's, as a process of its own, with an endpoint in the environment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ACCOUNT = {"AWS_ACCESS_KEY_ID": "AKIATESTACCOUNT", "AWS_SECRET_ACCESS_KEY": "SECRETOFTHEACCOUNT"}
_SECONDS = 60


def require_s3() -> None:
    """Skip the test where the packages are absent: s3fs (extra `s3`), and moto, flask and flask-cors (extra `dev`)."""
    for name in ("s3fs", "moto", "flask_cors"):
        if find_spec(name) is None:
            pytest.skip(f'{name} is not installed (pip install "dsclora[dev]")')


@contextmanager
def s3_server(log: Path) -> Iterator[str]:
    """Yield the address of a running server without any bucket; the server ends with the context."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, env=_environment()) as server:
        try:
            _wait(f"http://127.0.0.1:{port}/", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


@contextmanager
def empty_bucket(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a client of the server, which holds an empty bucket; the account is in the environment of the commands."""
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    account = {**ACCOUNT, "AWS_ENDPOINT_URL": address, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**account, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    with urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")):
        pass
    s3fs.S3FileSystem.clear_instance_cache()
    client = s3fs.S3FileSystem(use_listings_cache=False)
    client.mkdir("bucket")
    yield client
    s3fs.S3FileSystem.clear_instance_cache()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("moto's server does not answer")
