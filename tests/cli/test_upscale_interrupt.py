"""Ctrl-C and SIGTERM in the worst instant: every file written has its line, and every line its file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from batches import leftovers, save_photo

from dsclora_cli.cli import console
from dsclora_cli.cli.app import main
from dsclora_cli.cli.views.upscale_progress import UpscaleView
from dsclora_cli.upscaling import bounded_queue, preview
from dsclora_cli.upscaling.bounded_queue import Worker
from dsclora_cli.upscaling.pipeline import BatchState, DevicePipeline
from dsclora_cli.upscaling.types import FileResult

PICTURES = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(PICTURES):
        save_photo(tmp_path / "in" / f"{number:02}.png", (24, 16), seed=number)
    return tmp_path / "in"


def interrupt_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int, number: int) -> None:
    """Send a signal to the main thread in the instant when a function is about to return for the nth time."""
    real, counter = getattr(owner, name), count(1)

    def call(*arguments: Any) -> Any:
        returned = real(*arguments)
        if next(counter) == calls:
            os.kill(os.getpid(), number)
        return returned

    monkeypatch.setattr(owner, name, call)


def interrupt_before(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Send a signal to the main thread in the instant when a method begins for the first time."""
    real, calls = getattr(owner, name), count(1)

    def call(*arguments: Any) -> None:
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        real(*arguments)

    monkeypatch.setattr(owner, name, call)


def interrupted_run(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Iterator[dict[str, Any]]:
    command = ["upscale", str(folder), "-o", str(folder.parent / "out"), "-m", "dsclora-x2", "-s", "2", "--json"]
    assert main([*command, *options]) == 130
    return (each for each in map(json.loads, capsys.readouterr().out.splitlines()) if "status" in each)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("calls", range(1, 5))
@pytest.mark.parametrize(
    ("owner", "name"), [(BatchState, "report"), (console, "show_json")], ids=["result ready", "result shown"]
)
def test_every_result_has_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    calls: int,
    number: int,
) -> None:
    interrupt_after(monkeypatch, owner, name, calls, number)
    lines = list(interrupted_run(folder, capsys))
    assert sorted(Path(each["input"]).name for each in lines) == [f"{index:02}.png" for index in range(PICTURES)]
    done = sorted(Path(each["output"]).name for each in lines if each["status"] == "done")
    assert done == sorted(path.name for path in (folder.parent / "out").iterdir())
    assert len(done) >= calls
    assert not [thread for thread in threading.enumerate() if thread.name == "dsclora-encode"]


class InterruptedLock(threading.Condition):
    """A lock that meets a signal in the main thread: where KeyboardInterrupt came here, nobody would free the lock."""

    signals = 0
    """Signals still to be sent."""

    def __enter__(self) -> bool:
        taken = super().__enter__()
        if InterruptedLock.signals and threading.current_thread() is threading.main_thread():
            InterruptedLock.signals -= 1
            os.kill(os.getpid(), signal.SIGINT)
        return taken


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the locks of all queues meet a signal, and let a test that hangs fail."""

    def give_up(*_: object) -> None:
        raise TimeoutError("the run has not ended")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    monkeypatch.setattr(InterruptedLock, "signals", 1)
    monkeypatch.setattr(bounded_queue, "Condition", InterruptedLock)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("where", ["before the wait", "in the wait", pytest.param("lock", id="while a lock is taken")])
def test_the_second_ctrl_c_gives_up_and_the_next_run_does_the_rest(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    where: str,
) -> None:
    interrupt_after(monkeypatch, BatchState, "report", 2, signal.SIGINT)
    if where == "lock":
        request.getfixturevalue("lock")
    else:
        owner, name = {"before the wait": (DevicePipeline, "stop"), "in the wait": (Worker, "rest")}[where]
        interrupt_before(monkeypatch, owner, name)
    lines = list(interrupted_run(folder, capsys))
    assert sorted(Path(each["input"]).name for each in lines) == [f"{index:02}.png" for index in range(PICTURES)]
    out = folder.parent / "out"
    assert leftovers(out) == []
    done = sorted(Path(each["output"]).name for each in lines if each["status"] == "done")
    assert done == sorted(path.name for path in out.iterdir())
    assert main(["upscale", str(folder), "-o", str(out), "-m", "dsclora-x2", "-s", "2", "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # Another process at work would be a warning: no claim may outlive the run.
    assert [each["warnings"] for each in again] == [[]] * PICTURES
    assert {each["status"] for each in again} <= {"done", "skipped"}


def test_the_third_ctrl_c_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    view = UpscaleView(json=False, quiet=True, verbose=False)

    def results() -> Generator[FileResult, None, None]:
        assert view.stop_requests() == 0
        for number in (1, 2, 3):
            assert codes == []
            signal.raise_signal(signal.SIGINT)
            assert view.stop_requests() == number
        yield from ()

    view.show_all(results())
    assert codes == [130]


THREE_SIGNALS = """
import signal
from dsclora_cli.cli.views.upscale_progress import UpscaleView
from dsclora_cli.upscaling.types import InputFile
view = UpscaleView(json=False, quiet=False, verbose=False)
def results():
    view.stop_requests()
    view.on_start(InputFile(b"", "a.png"))
    for _ in range(3):
        signal.raise_signal(signal.SIGINT)
    yield
view.show_all(results())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_the_third_ctrl_c_shows_the_cursor_again() -> None:
    controller, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen([sys.executable, "-c", THREE_SIGNALS], stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        with suppress(OSError):  # Linux raises at the end of a pseudo-terminal
            while data := os.read(controller, 4096):
                shown += data
    os.close(controller)
    assert process.returncode == 130
    assert 0 <= shown.rfind(b"\x1b[?25l") < shown.rfind(b"\x1b[?25h")


def test_ctrl_c_before_the_run_has_begun_ends_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, UpscaleView, "on_inputs", 1, signal.SIGINT)
    assert {each["status"] for each in interrupted_run(folder, capsys)} == {"not-reached"}


@pytest.mark.parametrize("calls", [1, 2])
def test_files_that_are_left_out_keep_their_lines(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / name).touch()
    interrupt_after(monkeypatch, console, "show_json", calls, signal.SIGINT)
    statuses = [each["status"] for each in interrupted_run(folder, capsys)]
    assert statuses == ["left-out"] * 3 + ["not-reached"] * PICTURES
    assert not (folder.parent / "out").exists()


def test_ctrl_c_ends_a_preview_between_two_tiles(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, preview, "check_part", 1, signal.SIGINT)
    assert list(interrupted_run(folder, capsys, "--crop-preview", "0,0,8,8")) == []
    assert not (folder.parent / "out").exists()


def test_a_preview_that_is_written_has_its_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, preview, "save_result", 2, signal.SIGINT)
    lines = list(interrupted_run(folder, capsys, "--crop-preview", "0,0,8,8"))
    assert [each["status"] for each in lines] == ["done"] * 2
    assert sorted(each["output"] for each in lines) == sorted(map(str, (folder.parent / "out").iterdir()))
