"""`upscale --watch`: pictures that arrive in a folder."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.config import BatchOptions, ModelOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.upscaling import watch
from dsclora_cli.upscaling.types import FileResult, FoundInputs, UpscaleCallbacks, path_key
from dsclora_cli.upscaling.watch import watch_files

pytest.importorskip("watchfiles")
OPTIONS = UpscaleOptions(ModelOptions("dsclora-x2"), SizeOptions(scale=2.0), batch=BatchOptions(output="large/"))


@pytest.fixture
def incoming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("incoming").mkdir()
    return Path("incoming")


class Notes(UpscaleCallbacks):
    """Callbacks that keep the notes, and end a watch after two minutes."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._end = time.monotonic() + 120

    def on_note(self, note: str) -> None:
        self.notes.append(note)

    def stop_requests(self) -> int:
        return int(time.monotonic() > self._end)


class Watch:
    """Run a watch of folders without a network: pictures come out as they arrive."""

    def __init__(self, *folders: str, recursive: bool = False) -> None:
        self.callbacks = Notes()
        options = replace(OPTIONS, batch=replace(OPTIONS.batch, recursive=recursive))
        self._results = watch_files(folders, options, self.callbacks, Event())

    def after(self, change: Callable[[], object]) -> str:
        """Change something while the watch waits, and return the name of the next picture."""
        timer = Timer(0.15, change)
        timer.start()
        try:
            return next(self._results).input
        finally:
            timer.join()

    def wait_for_notes(self, number: int) -> None:
        """Wait in another thread until folders have been told of."""
        while len(self.notes) < number and not self.callbacks.stop_requests():
            time.sleep(0.02)

    @property
    def notes(self) -> list[str]:
        """Return the notes on folders that are absent."""
        return [note for note in self.callbacks.notes if note.startswith("the folder")]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a watch look often, and give the pictures back instead of upscaling them."""

    class Run:
        def __init__(self, found: FoundInputs, *_: object) -> None:
            self._found = found

        def results(self) -> Iterator[FileResult]:
            yield from (FileResult(file.name, "done") for file in self._found.inputs)

    monkeypatch.setattr(watch, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(watch, "BatchRun", Run)
    monkeypatch.setattr(watch, "PictureUpscaler", lambda _: None)


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


@pytest.mark.slow
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


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be removed")
@pytest.mark.usefixtures("quick")
@pytest.mark.slow
class TestFoldersThatGo:
    """Folders that are removed, moved or replaced while a watch waits."""

    @pytest.mark.parametrize("is_moved", [False, True])
    def test_a_folder_that_is_replaced_at_once(self, incoming: Path, is_moved: bool) -> None:
        watching = Watch("incoming")
        assert watching.after(lambda: picture(incoming / "a.png")) == "incoming/a.png"

        def replace_folder() -> None:
            # The inode of a folder that was removed is often the inode of the next folder.
            incoming.rename("old") if is_moved else shutil.rmtree(incoming)
            incoming.mkdir()

        def arrive_in_new_folder() -> None:
            replace_folder()
            time.sleep(0.3)
            picture(incoming / "b.png")

        assert watching.after(arrive_in_new_folder) == "incoming/b.png"
        # Pictures of the folder that was moved away are nobody's business any more.
        Path("old").mkdir(exist_ok=True)
        picture(Path("old/strange.png"))
        assert watching.after(lambda: picture(incoming / "c.png")) == "incoming/c.png"

    def test_a_folder_that_is_absent_is_told_of_once_each_time(self, incoming: Path) -> None:
        watching = Watch("incoming")
        gone = "the folder incoming has gone; waiting until the folder is there again"

        def go_and_return() -> None:
            shutil.rmtree(incoming)
            watching.wait_for_notes(times)
            time.sleep(0.3)
            picture(Path("b.png"))
            incoming.mkdir()
            Path("b.png").rename(incoming / "b.png")

        for times in (1, 2):
            assert watching.after(go_and_return) == "incoming/b.png"
            assert watching.notes == [gone] * times

    def test_the_other_folders_go_on(self, incoming: Path) -> None:
        Path("more").mkdir()
        watching = Watch("incoming", "more")
        assert watching.after(lambda: picture(incoming / "a.png")) == "incoming/a.png"
        incoming.rename("old")
        assert watching.after(lambda: picture(Path("more/b.png"))) == "more/b.png"
        assert watching.after(lambda: picture(Path("more/c.png"))) == "more/c.png"
        assert len(watching.notes) == 1
        assert watching.after(lambda: Path("old").rename("incoming")) == "incoming/a.png"

    def test_a_link_that_leads_elsewhere(self, incoming: Path) -> None:
        Path("link").symlink_to(incoming)
        Path("second").mkdir()
        watching = Watch("link")
        assert watching.after(lambda: picture(incoming / "a.png")) == "link/a.png"

        def lead_elsewhere() -> None:
            Path("new").symlink_to("second")
            Path("new").rename("link")
            time.sleep(0.3)
            picture(Path("second/b.png"))

        assert watching.after(lead_elsewhere) == "link/b.png"
        assert not watching.notes

    @pytest.mark.parametrize("is_moved", [False, True])
    def test_a_subfolder_that_is_replaced(self, incoming: Path, is_moved: bool) -> None:
        below = incoming / "below"
        below.mkdir()
        watching = Watch("incoming", recursive=True)
        assert watching.after(lambda: picture(below / "a.png")) == "incoming/below/a.png"

        def replace_subfolder() -> None:
            below.rename("old") if is_moved else shutil.rmtree(below)
            below.mkdir()
            time.sleep(0.3)
            picture(below / "b.png")

        assert watching.after(replace_subfolder) == "incoming/below/b.png"
        assert not watching.notes

    def test_a_file_in_place_of_the_folder_is_no_folder(self, incoming: Path) -> None:
        watching = Watch("incoming")

        def a_file_for_a_while() -> None:
            incoming.rmdir()
            picture(Path("a.png")).rename(incoming)
            watching.wait_for_notes(1)
            incoming.unlink()
            incoming.mkdir()
            picture(incoming / "b.png")

        assert watching.after(a_file_for_a_while) == "incoming/b.png"
        assert len(watching.notes) == 1

    def test_a_folder_that_cannot_be_read_for_a_while(self, incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        watching = Watch("incoming")
        assert watching.after(lambda: picture(incoming / "a.png")) == "incoming/a.png"

        def close_and_open() -> None:
            # Not chmod: the administrator reads every folder.
            with pytest.MonkeyPatch.context() as closed:
                closed.setattr(watch, "_is_readable", lambda _: False)
                watching.wait_for_notes(1)
                picture(incoming / "b.png")
                time.sleep(0.3)

        assert watching.after(close_and_open) in ("incoming/a.png", "incoming/b.png")
        assert watching.notes == ["the folder incoming cannot be read; waiting until the folder can be read"]
        monkeypatch.setattr(watch, "_is_readable", lambda _: False)
        with pytest.raises(UsageError, match="the folder incoming cannot be read"):
            next(watch_files(["incoming"], OPTIONS, UpscaleCallbacks(), Event()))

    def test_a_folder_that_goes_while_its_watch_begins(self, incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import watchfiles

        begin, tries = watchfiles.watch, []

        def begin_late(*paths: Path, **options: object) -> object:
            tries.append(paths)
            return begin(*(["absent"] if len(tries) == 1 else paths), **options)

        monkeypatch.setattr(watchfiles, "watch", begin_late)
        assert Watch("incoming").after(lambda: picture(incoming / "a.png")) == "incoming/a.png"
        assert len(tries) == 2

    def test_a_file_that_can_be_read_at_last(self, incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        is_closed = True
        monkeypatch.setattr(watch, "is_allowed", lambda path, _: path.is_dir() or not is_closed)

        def open_file() -> None:
            nonlocal is_closed
            is_closed = False
            (incoming / "a.png").chmod(0o600)  # changes neither size nor time

        watching = Watch("incoming")
        assert watching.after(lambda: picture(incoming / "a.png")) == "incoming/a.png"
        assert watching.after(open_file) == "incoming/a.png"

    def test_subfolders_beside_one_that_cannot_be_read(self, incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        closed, scandir = incoming / "closed", os.scandir

        def refuse(path: str) -> object:
            if is_closed and Path(path).name == "closed":
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return scandir(path)

        def open_folder() -> None:
            nonlocal is_closed
            is_closed = False
            closed.chmod(0o700)
            time.sleep(0.5)
            picture(closed / "c.png")

        def make_folder() -> None:
            (incoming / "new").mkdir()
            time.sleep(0.5)
            picture(incoming / "new" / "b.png")

        for folder in (closed, incoming / "beside"):
            folder.mkdir()
        is_closed = True
        # Not chmod, as above. os.walk looks the name up in its own module.
        monkeypatch.setattr(os, "scandir", refuse)
        watching = Watch("incoming", recursive=True)
        assert watching.after(lambda: None) == "incoming/closed"  # an input that fails
        assert watching.after(lambda: picture(incoming / "beside" / "a.png")) == "incoming/beside/a.png"
        assert watching.after(make_folder) == "incoming/new/b.png"
        assert watching.after(open_folder) == "incoming/closed/c.png"
        assert watching.after(lambda: picture(closed / "d.png")) == "incoming/closed/d.png"
        assert not watching.notes

    @pytest.mark.parametrize(
        "error",
        [
            OSError('OS file watch limit reached. about ["incoming/a"] (Error { kind: MaxFilesWatch })'),
            RuntimeError("OS file watch limit reached"),
        ],
    )
    def test_a_system_that_watches_no_more_folders(
        self, incoming: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def refuse(*_: Path, **__: object) -> object:
            raise error

        monkeypatch.setattr("watchfiles.watch", refuse)
        with pytest.raises(
            DscloraError, match=r"no more folders \(OS file watch limit reached\) \(name fewer folders, r"
        ):
            next(watch_files(["incoming"], OPTIONS, UpscaleCallbacks(), Event()))

    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors in /proc")
    def test_watches_that_have_ended_leave_no_descriptor(self, incoming: Path) -> None:
        watching = Watch("incoming")

        def replace_folder() -> None:
            shutil.rmtree(incoming)
            incoming.mkdir()
            picture(incoming / "a.png", level=len(counts))

        counts: list[int] = []
        for _ in range(4):
            watching.after(replace_folder)
            counts.append(len([*Path("/proc/self/fd").iterdir()]))
        assert counts[-1] <= counts[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
def test_ctrl_c_ends_the_watch_cleanly(incoming: Path) -> None:
    picture(incoming / "a.png")
    command = [sys.executable, "-m", "dsclora_cli", "upscale", "incoming", "-o", "large", "-m", "dsclora-x2", "--watch"]
    with subprocess.Popen([*command, "-s", "2"], stderr=subprocess.PIPE, text=True) as run:
        killer = Timer(120, run.kill)
        killer.start()
        lines = [run.stderr.readline() for _ in range(2)]
        assert lines[0].startswith("note: waiting for pictures")
        assert "a.png" in lines[1]
        picture(incoming / "b.png")
        assert "b.png" in run.stderr.readline()
        time.sleep(0.5)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait(60) == 0
    assert rest.startswith("2 done in ")
    assert sorted(path.name for path in Path("large").iterdir()) == ["a_x2.png", "b_x2.png"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
def test_a_picture_that_was_taken_half_written_and_is_done_later_is_no_failure(incoming: Path) -> None:
    whole = picture(incoming / "a.png").read_bytes()
    (incoming / "a.png").write_bytes(whole[: len(whole) // 2])
    os.utime(incoming / "a.png", (1, 1))
    command = [sys.executable, "-m", "dsclora_cli", "upscale", "incoming", "-o", "large", "-m", "dsclora-x2", "--watch"]
    with subprocess.Popen([*command, "-s", "2"], stderr=subprocess.PIPE, text=True) as run:
        killer = Timer(120, run.kill)
        killer.start()
        lines = [run.stderr.readline() for _ in range(2)]
        assert lines[1].startswith(f"failed: {incoming / 'a.png'}: ")
        (incoming / "a.png").write_bytes(whole)
        assert "large" in run.stderr.readline()
        time.sleep(0.5)
        run.send_signal(signal.SIGINT)
        rest = run.stderr.read()
        assert run.wait(60) == 0
        killer.cancel()
    assert rest.startswith("1 done in ")
