"""`upscale --watch`: pictures that arrive in a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.config import BatchOptions, ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.upscaling import watch
from dsclora_cli.upscaling.types import UpscaleCallbacks, path_key
from dsclora_cli.upscaling.watch import watch_files

pytest.importorskip("watchfiles")
OPTIONS = UpscaleOptions(ModelOptions("dsclora-x2"), SizeOptions(scale=2.0), batch=BatchOptions(output="large/"))


@pytest.fixture
def incoming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("incoming").mkdir()
    return Path("incoming")


def picture(path: Path, level: int = 90, age: float = 60) -> Path:
    Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(path)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.mark.slow
def test_pictures_that_are_there_and_pictures_that_arrive(incoming: Path) -> None:
    picture(incoming / "a.png")
    (incoming / "notes.txt").write_text("no picture")
    stop = Event()
    results = watch_files([str(incoming)], OPTIONS, UpscaleCallbacks(), stop)
    assert {(each.status, Path(each.input).name) for each in (next(results), next(results))} == {
        ("left-out", "notes.txt"),
        ("done", "a.png"),
    }
    Timer(0.3, lambda: picture(incoming / "b.png")).start()
    arrived = next(results)
    assert (arrived.status, arrived.output) == ("done", str(Path("large/b_x2.png")))
    stop.set()
    assert list(results) == []
    again = watch_files([str(incoming)], OPTIONS, UpscaleCallbacks(), Event())
    assert sorted(next(again).status for _ in range(3)) == ["left-out", "skipped", "skipped"]
    again.close()


def test_a_file_that_is_still_written_waits(incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SETTLE_SECONDS", 0.4)
    waves = watch._Waves([str(incoming)], OPTIONS)
    picture(incoming / "a.png", age=0)
    assert not waves.take().inputs
    assert waves.unsettled
    with (incoming / "a.png").open("ab") as file:
        file.write(b"more")
    time.sleep(0.1)
    assert not waves.take().inputs
    time.sleep(0.5)
    assert [each.name for each in waves.take().inputs] == [str(incoming / "a.png")]
    assert not waves.take().inputs
    assert not waves.unsettled
    picture(incoming / "a.png", level=10)
    assert len(waves.take().inputs) == 1


def test_files_that_have_gone_are_forgotten(incoming: Path) -> None:
    waves = watch._Waves([str(incoming)], OPTIONS)
    for number in range(3):
        path = picture(incoming / f"{number}.png")
        notes = incoming / f"{number}.txt"
        notes.write_text("no picture")
        found = waves.take()
        assert [each.name for each in found.inputs] == [str(path)]
        assert [each.name for each in found.left_out] == [str(notes)]
        path.unlink()
        notes.unlink()
        # That the folder is empty is told once.
        assert [each.name for each in waves.take().left_out] == [str(incoming)][number:]
    assert not waves._seen and not waves._taken and waves._told == {str(incoming)}


def test_a_later_wave_knows_the_files_that_an_earlier_wave_has_left_out(incoming: Path) -> None:
    for name in ("a.png", "a_x2.png"):
        picture(incoming / name)
    waves = watch._Waves([str(incoming)], replace(OPTIONS, batch=BatchOptions()))
    first, second = waves.take(), waves.take()
    assert [each.name for each in first.left_out] == [str(incoming / "a_x2.png")] and not second.left_out
    assert first.by_name == second.by_name == {path_key(incoming / "a_x2.png")}


def test_only_folders_are_watched(incoming: Path) -> None:
    path = picture(incoming / "a.png")
    with pytest.raises(UsageError, match="--watch takes folders"):
        next(watch_files([str(path)], OPTIONS, UpscaleCallbacks(), Event()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
def test_ctrl_c_ends_the_watch_cleanly(incoming: Path) -> None:
    picture(incoming / "a.png")
    command = [sys.executable, "-m", "dsclora_cli", "upscale", "incoming", "-o", "large", "-m", "dsclora-x2", "--watch"]
    with subprocess.Popen([*command, "-s", "2"], stderr=subprocess.PIPE, text=True) as run:
        killer = Timer(60, run.kill)
        killer.start()
        lines = [run.stderr.readline() for _ in range(2)]
        assert lines[0].startswith("note: waiting for pictures")
        assert "a.png" in lines[1]
        picture(incoming / "b.png")
        assert "b.png" in run.stderr.readline()
        time.sleep(0.5)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait(20) == 0
    assert rest.startswith("2 done in ")
    assert sorted(path.name for path in Path("large").iterdir()) == ["a_x2.png", "b_x2.png"]
