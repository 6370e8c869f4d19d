"""The process around the command line: closed and full streams, odd encodings, Ctrl-C during imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.{number}, signal.default_int_handler if {number!r} == "SIGINT" else signal.SIG_DFL)
import dsclora_cli.__main__ as entry
class Finder:
    def find_spec(name, *_):
        if name == {name!r}:
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Finder)
sys.argv = ["dsclora", "upscale", "a.png", "--width", "4"]
entry.run()
"""

INTERRUPTED_AT_THE_END = """
import os, signal
import dsclora_cli.__main__ as entry
import dsclora_cli.cli.app as app
set_handler = signal.signal
def interrupt_first(number, handler):
    signal.signal = set_handler
    os.kill(os.getpid(), signal.SIGINT)
    return set_handler(number, handler)
def main():
    signal.signal = interrupt_first
    return 0
app.main = main
entry.run()
"""

TALKING = """
import logging, os, sys, warnings
import dsclora_cli.__main__ as entry
import dsclora_cli.cli.app as app
def main():
    warnings.warn("a remark of Python")
    logging.getLogger("torch._inductor.utils").warning("a remark of a logger")
    if os.environ.get("TORCH_CPP_LOG_LEVEL") != "ERROR":
        sys.stderr.write("a remark of C++")
    return 0
app.main = main
entry.run()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a picture, which a run with `--width 4` skips without a network."""
    Image.new("RGB", (8, 6), (90, 140, 30)).save(tmp_path / "a.png")
    return tmp_path


def shell(folder: Path, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell, in which D is the program."""
    line = line.replace("D ", f"{sys.executable} -m dsclora_cli ", 1)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **variables}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "streams",
    [">&-", "2>&-", "<&- >&- 2>&-", pytest.param("2>/dev/full", marks=FULL), "2> >(true)"],
)
def test_a_closed_stream_changes_nothing(folder: Path, streams: str) -> None:
    done = shell(folder, f"D upscale a.png --width 4 {streams}")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr in ("", "nothing to do: 1 large enough\n")


@pytest.mark.parametrize("debug", ["0", "1"])
def test_remarks_of_libraries_reach_developers_only(tmp_path: Path, debug: str) -> None:
    done = shell(tmp_path, f"exec {sys.executable} -c '{TALKING}'", DSCLORA_DEBUG=debug)
    assert done.returncode == 0
    assert done.stderr.count("a remark of") >= 3 if debug == "1" else done.stderr == ""


def test_a_closed_standard_input_is_an_empty_picture(folder: Path) -> None:
    done = shell(folder, "D upscale - -o b.png <&-")
    assert done.returncode == 1
    assert done.stderr.startswith("failed: -: <stdin>: the file is empty")
    assert len(done.stderr.splitlines()) == 2


@FULL
def test_a_report_to_a_full_disk_is_one_line_and_pictures_go_on(folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
    done = shell(folder, "D upscale a.png b.png --width 4 --json >/dev/full")
    assert done.returncode == 0
    warning, summary = done.stderr.splitlines()
    assert warning.startswith("warning: stdout cannot be written (No space left on device)")
    assert summary == "nothing to do: 2 large enough"


@pytest.mark.slow
@FULL
@pytest.mark.parametrize(
    "command", ["models list", "models list --json", "upscale a.png --width 4 --dry-run", "--help", "config"]
)
def test_data_to_a_full_disk_is_an_error_of_one_line(folder: Path, command: str) -> None:
    done = shell(folder, f"D {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: stdout cannot be written (No space left on device)")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_name_that_the_encoding_lacks_is_shown_escaped(folder: Path, encoding: str) -> None:
    for name in ("\u00e9\u4e00.png".encode(), b"raw\xe9.png"):
        (folder / "a.png").with_name(os.fsdecode(name)).write_bytes((folder / "a.png").read_bytes())
    done = shell(folder, "D upscale . --width 4 --dry-run > plan.txt", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    plan = (folder / "plan.txt").read_text(encoding=encoding)
    assert "raw\\udce9.png" in plan
    assert ("\u4e00" if encoding == "utf-8" else "\\u4e00") in plan
    reports = shell(folder, "D upscale . --width 4 --json", PYTHONIOENCODING=encoding).stdout.splitlines()
    shown = {json.loads(report)["input"] for report in reports}
    assert shown == {path.name for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dsclora_cli.cli.app", "typer", "dsclora_cli.upscaling.batch", "numpy"])
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_and_termination_during_imports_are_one_line(folder: Path, name: str, number: str) -> None:
    (folder / "script.py").write_text(INTERRUPTED.format(name=name, number=number), encoding="utf-8")
    done = shell(folder, f"{sys.executable} script.py")
    assert (done.returncode, done.stdout) == (130, "")
    # How far the command comes until the import has ended depends on the moment.
    before = name in {"dsclora_cli.cli.app", "typer"}
    assert done.stderr.startswith(f"interrupted: {'nothing was done yet' if before else ''}")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_in_the_instant_after_a_command_is_silent(folder: Path) -> None:
    (folder / "script.py").write_text(INTERRUPTED_AT_THE_END, encoding="utf-8")
    done = shell(folder, f"{sys.executable} script.py")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no terminals of this kind")
def test_a_closed_terminal_ends_a_video_and_its_whole_frames_stay(folder: Path) -> None:
    terminal, end = os.openpty()
    # The terminal of the command, and SIGHUP with its usual effect, also where `nohup` runs the tests.
    take = (
        "import fcntl, os, signal, sys, termios; fcntl.ioctl(1, termios.TIOCSCTTY, 0);"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    options = ["--size", "12x9", "-m", "dsclora-x4", "-o", "large.rgb"]
    line = [sys.executable, "-c", take, sys.executable, "-m", "dsclora_cli", "frames", *options]
    streams = {"stdin": subprocess.PIPE, "stdout": end, "stderr": end}
    command = subprocess.Popen(line, cwd=folder, start_new_session=True, **streams)
    os.close(end)
    assert command.stdin is not None
    frame = bytes(12 * 9 * 3)
    command.stdin.write(frame)
    command.stdin.flush()
    written = [0]
    # The video has another name until it is whole.
    while not any(written):
        assert command.poll() is None, os.read(terminal, 10_000)
        time.sleep(0.05)
        written = [path.stat().st_size for path in folder.iterdir() if path.name.startswith(".dsclora")]
    time.sleep(0.5)  # the command counts a frame as whole shortly after the bytes are in the file
    os.close(terminal)
    command.send_signal(signal.SIGHUP)  # as the shell sends after the system
    assert command.wait(60) == 130
    assert (folder / "large-incomplete.rgb").stat().st_size == 16 * len(frame)
    assert not [path for path in folder.iterdir() if path.name.startswith(".dsclora")]
