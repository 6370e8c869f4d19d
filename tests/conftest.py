"""Fixtures shared by the whole suite: no network, no state of the user's, one place for the reference material."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import other_programs
import pytest
from hypothesis import settings
from native_build import built, is_current
from s3_server import empty_bucket, require_s3, s3_server

from dsclora_cli.inference.native import library
from dsclora_cli.settings import SETTINGS, variable_of

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

ROOT = Path(__file__).parent.parent

# A shell lets its jobs in the background ignore Ctrl-C, and every process that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes that each took every core would wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material next to the checkout; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("DSCLORA_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference material not found at {folder} (set DSCLORA_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def no_openvino(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenVINO is installed every test would convert its network; those that mean it ask for `openvino`."""
    if "openvino" not in request.fixturenames:
        monkeypatch.setattr("dsclora_cli.inference.openvino.is_installed", lambda: False)


@pytest.fixture(autouse=True)
def no_spandrel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing spandrel takes seconds, for every file that is refused; those that mean it ask for `spandrel`."""
    if "spandrel" not in request.fixturenames:
        monkeypatch.setattr("dsclora_cli.weights.foreign.find_spec", lambda name: None)


@pytest.fixture(scope="session")
def s3_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a real S3 server."""
    require_s3()
    with s3_server(tmp_path_factory.mktemp("s3") / "log.txt") as address:
        yield address


@pytest.fixture
def s3(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a client of the S3 server, which holds an empty bucket."""
    with empty_bucket(s3_address, monkeypatch) as client:
        yield client


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection: Hypothesis has a hook there, and would swallow the KeyboardInterrupt of a signal."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def spandrel() -> Any:
    """The library spandrel; the tests that ask for this skip where the library is absent."""
    return other_programs.import_spandrel()


@pytest.fixture
def openvino() -> None:
    """The tests that ask for this run with OpenVINO, and skip where it is absent."""
    pytest.importorskip("openvino")


@pytest.fixture
def native(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests that ask for this run with the native engine, compiled where the package has no current library."""
    if not is_current(library.LIBRARY):
        folder = tmp_path_factory.getbasetemp().parent / "native"
        monkeypatch.setattr(library, "LIBRARY", built(folder))
    if reason := library.why_unavailable():
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def private_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Config, state and caches of every test lie in a folder of its own, and the Hub is a closed door."""
    home = tmp_path_factory.mktemp("home")
    for name in ("config", "state", "cache"):
        monkeypatch.setenv(f"DSCLORA_{name.upper()}_DIR", str(home / name))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.delenv(name, raising=False)
    for name in SETTINGS:  # the settings of whoever runs the tests
        monkeypatch.delenv(variable_of(name), raising=False)
    return home
