"""Ctrl-C and SIGTERM in the worst instant: every file written has its line, and every line its file."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from batches import leftovers, save_photo

from dsclora_cli.cli import console
from dsclora_cli.cli.app import main
from dsclora_cli.upscaling import preview
from dsclora_cli.upscaling.bounded_queue import Worker
from dsclora_cli.upscaling.pipeline import BatchState, DevicePipeline

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


def interrupted_run(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> Iterator[dict[str, Any]]:
    command = ["upscale", str(folder), "-o", str(folder.parent / "out"), "-m", "dsclora-x2", "-s", "2", "--json"]
    assert main([*command, *options]) == 130
    return (each for each in map(json.loads, capsys.readouterr().out.splitlines()) if "status" in each)


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


@pytest.mark.parametrize(
    ("owner", "name"), [(DevicePipeline, "stop"), (Worker, "rest")], ids=["before the wait", "in the wait"]
)
def test_the_second_ctrl_c_gives_up_and_the_next_run_does_the_rest(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    interrupt_after(monkeypatch, BatchState, "report", 2, signal.SIGINT)
    real, calls = getattr(owner, name), count(1)

    def interrupt(subject: Any) -> None:
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        real(subject)

    monkeypatch.setattr(owner, name, interrupt)
    lines = list(interrupted_run(folder, capsys))
    assert sorted(Path(each["input"]).name for each in lines) == [f"{index:02}.png" for index in range(PICTURES)]
    out = folder.parent / "out"
    assert leftovers(out) == []
    assert main(["upscale", str(folder), "-o", str(out), "-m", "dsclora-x2", "-s", "2", "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # Another process at work would be a warning: no claim may outlive the run.
    assert [each["warnings"] for each in again] == [[]] * PICTURES
    assert {each["status"] for each in again} <= {"done", "skipped"}


def test_ctrl_c_before_the_run_has_begun_ends_at_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dsclora_cli.cli.views.upscale_progress import UpscaleView

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
