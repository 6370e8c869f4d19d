"""No run reports to anybody: neither our own code nor a package that our code imports uses the internet unasked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from PIL import Image
from small_networks import made

from dsclora_cli.cli.app import main
from dsclora_cli.weights import hub_models
from dsclora_cli.weights.checkpoint import save_network

ENGINES = ("openvino", "torch", "auto")
PYTHON_API = """
from dataclasses import replace
from dsclora_cli import Upscaler, UpscaleOptions
given = UpscaleOptions()
engine = replace(given.engine, engine="{engine}")
options = replace(given, model=replace(given.model, offline=True), engine=engine)
Upscaler(scale=2, options=options)("a.png")
"""
IMPORT = """
import sys
from dsclora_cli.inference.openvino import import_openvino
import_openvino()
import openvino
assert openvino.convert_model
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return an empty home folder."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def run(command: list[str], home: Path) -> None:
    """Run a command with a home folder of its own, as on a machine where nobody opted out of anything."""
    quiet = ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "DO_NOT_TRACK", "CI")
    environment = {name: value for name, value in os.environ.items() if name not in quiet} | {"HOME": str(home)}
    done = subprocess.run(command, cwd=home.parent, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_openvino_is_imported_without_its_telemetry(openvino: None, home: Path) -> None:
    run([sys.executable, "-c", IMPORT], home)
    assert list(home.iterdir()) == []


class Sockets:
    """What Python code does with sockets; a hook stays as long as the interpreter, and notes only while wanted."""

    events: list[str] | None = None
    installed = False

    @classmethod
    def note(cls, event: str, arguments: tuple[object, ...]) -> None:
        if cls.events is not None and event.startswith("socket."):
            cls.events.append(f"{event} {arguments!r:.100}")


@pytest.fixture
def sockets() -> Iterator[list[str]]:
    """Yield the list of all uses of sockets, which grows during the test."""
    if not Sockets.installed:
        sys.addaudithook(Sockets.note)
        Sockets.installed = True
    Sockets.events = events = []
    yield events
    Sockets.events = None


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Return the path of a small picture."""
    Image.new("RGB", (24, 16), (90, 140, 30)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("model", ["dsclora-x2", "dsclora-x3", "dsclora-x4"])
def test_an_embedded_model_opens_no_socket(picture: Path, sockets: list[str], model: str) -> None:
    assert main(["upscale", str(picture), "-m", model, "-q"]) == 0
    assert sockets == []


def test_a_cached_model_opens_no_socket(
    picture: Path, sockets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_network(made("span without norm"), tmp_path / "own.safetensors", "")
    files = {"own.safetensors": (tmp_path / "own.safetensors").read_bytes()}
    arguments = ["upscale", str(picture), "-m", "hf://someone/photos/own.safetensors", "-s", "2", "-q"]
    hub_models._obtain.cache_clear()
    with HubServer("someone/photos", files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert main(arguments) == 0
    assert sockets != []  # the download is seen
    sockets.clear()
    hub_models._obtain.cache_clear()
    assert main([*arguments, "--overwrite"]) == 0
    assert sockets == []


@pytest.mark.slow
@pytest.mark.parametrize("api", ["command line", "embedded model, not offline", "Python"])
@pytest.mark.parametrize("engine", ENGINES)
def test_no_process_of_a_run_opens_an_internet_socket(openvino: None, home: Path, engine: str, api: str) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    Image.new("RGB", (24, 16), (90, 140, 30)).save(home.parent / "a.png")
    command = {
        "command line": ["-m", "dsclora_cli", "upscale", "a.png", "-s", "2", "--offline", "--engine", engine],
        "embedded model, not offline": [
            "-m",
            "dsclora_cli",
            "upscale",
            "a.png",
            "-s2",
            "-mdsclora-x2",
            "--engine",
            engine,
        ],
        "Python": ["-c", PYTHON_API.format(engine=engine)],
    }[api]
    log = home.parent / "log"
    # -f follows child processes; strace itself waits for children that outlive the program.
    trace = ["strace", "-f", "-qq", "-e", "trace=network,execve", "-o", str(log)]
    probe = subprocess.run([*trace, "true"], check=False, capture_output=True, text=True)
    if probe.returncode != 0:
        pytest.skip(f"strace may not trace here: {probe.stderr.strip()}")
    run([*trace, sys.executable, *command], home)
    calls = log.read_text(encoding="utf-8")
    # A look-up of a name asks the name service by a local socket first, and then a server of the internet.
    assert re.findall(r"AF_INET.*|nscd.*", calls) == []
    assert (home.parent / "a_x2.png").exists()
    assert list(home.iterdir()) == []
