"""Folders, atomic writing, and files that must be regular."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dsclora_cli import paths
from dsclora_cli.paths import atomic_write, open_regular, state_dir

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def test_the_new_file_replaces_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with atomic_write(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path and temporary.name.startswith(".")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_after_an_error_only_the_old_file_is_left(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_name_that_is_too_long_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 256), tmp_path / ("x" * 256) / "new" / "file"):
        with pytest.raises(OSError, match="File name too long"), atomic_write(path):
            pytest.fail("work was done for a file that cannot have its name")
    with atomic_write(tmp_path / ("x" * 255)) as temporary:
        temporary.write_text("fits")


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the system's temporary folder of a user without a home."""

    def refuse(*_: object, **__: object) -> Path:
        raise RuntimeError("set an absolute HOME")

    monkeypatch.delenv("DSCLORA_STATE_DIR")
    monkeypatch.setattr("platformdirs.user_state_path", refuse)
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(paths.tempfile, "tempdir", str(tmp_path))
    paths._homeless_folder.cache_clear()
    return tmp_path


def test_a_user_without_a_home_has_a_private_folder(homeless: Path) -> None:
    folder = state_dir()
    assert folder.is_relative_to(homeless) and folder == state_dir()
    assert not os.path.lexists("~")
    if hasattr(os, "getuid"):
        assert folder.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX owners")
@pytest.mark.parametrize("trap", ["link", "writable"])
def test_a_folder_that_somebody_else_prepared_is_not_used(homeless: Path, trap: str) -> None:
    expected, other = homeless / f"dsclora-{os.getuid()}", homeless / "other"
    other.mkdir()
    if trap == "link":
        expected.symlink_to(other)
    else:
        expected.mkdir()
        expected.chmod(0o777)
    assert not state_dir().is_relative_to(expected)
    assert state_dir() == state_dir()


@posix
def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"bytes"
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"regular|directory"):
            open_regular(path)


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "file").exists()))
        real(descriptor)

    monkeypatch.setattr(paths.os, "fsync", fsync)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert synced == [(False, False), (True, True)][: 1 if os.name == "nt" else 2]


def test_temporary_files_of_killed_runs_are_swept_when_old(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".dsclora-1.part", ".dsclora-2.part", ".other.part"))
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    with atomic_write(tmp_path / "file") as temporary:
        temporary.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, other.name, "file"]


HELD = """
import sys
from pathlib import Path
from dsclora_cli.paths import atomic_write
with atomic_write(Path("file")) as temporary:
    temporary.write_text("half")
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell one start of the machine from another")
def test_the_temporary_file_of_a_killed_process_is_swept_at_once_and_of_a_living_one_kept(tmp_path: Path) -> None:
    (tmp_path / "link").touch()
    with subprocess.Popen([sys.executable, "-c", HELD], cwd=tmp_path, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        part = tmp_path / process.stdout.readline().strip()
        trap = part.with_name(part.name.replace(".part", "0.part"))
        trap.symlink_to("link")
        for alive in (True, False):
            paths.remove_abandoned_files.cache_clear()
            with atomic_write(tmp_path / "other") as temporary:
                temporary.write_text("whole")
            assert part.exists() is alive
            process.kill()
            process.wait()
    assert {path.name for path in tmp_path.iterdir()} == {"link", trap.name, "other"}


@posix
def test_a_temporary_file_that_another_process_removes_at_birth_gets_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = paths._lock, []

    def lock(descriptor: int) -> bool | None:
        seen.append(descriptor)
        if len(seen) < 3:
            next(tmp_path.glob(".dsclora-*.part")).unlink()
        return False if len(seen) == 1 else real(descriptor)

    monkeypatch.setattr(paths, "_lock", lock)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert len(seen) == 3 and [path.name for path in tmp_path.iterdir()] == ["file"]


CLOSED_STDIN = """
import os, sys
from pathlib import Path
from dsclora_cli.paths import atomic_write
os.close(0)
for name in "ab":
    with atomic_write(Path(sys.argv[1], name)) as temporary:
        os.fstat(0)  # of the temporary file
        temporary.write_text("whole")
    try:
        os.fstat(0)
    except OSError:
        print("closed")
"""


@posix
def test_a_file_that_is_descriptor_0_is_closed_as_well(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CLOSED_STDIN, tmp_path],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["closed", "closed"]


def test_without_locks_no_descriptor_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "fcntl", None)
    monkeypatch.setattr(paths, "sync_folder", lambda folder: None)
    monkeypatch.setattr(os, "close", lambda descriptor: pytest.fail(f"{descriptor} was closed"))
    monkeypatch.setattr(paths, "sync_file", lambda path: None)
    with atomic_write(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "whole"


@posix
def test_a_line_is_added_to_regular_files_only(tmp_path: Path) -> None:
    paths.append_line(tmp_path / "log", "one")
    paths.append_line(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "one\ntwo\n"
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(OSError, match=r"regular|device or address"):
            paths.append_line(place, "never waits for a reader")


@posix
def test_a_named_text_may_be_a_pipe_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"text"))
    writer.start()
    assert paths.read_named(tmp_path / "pipe") == b"text"
    writer.join()
    monkeypatch.setattr(paths, "PIPE_SECONDS", 0.05)
    monkeypatch.setattr(paths, "MOST_TEXT", 3)
    (tmp_path / "file").write_bytes(b"text")
    for place, words in (("pipe", "nothing came"), ("file", "larger than"), ("/dev/zero", "not a regular file")):
        with pytest.raises(OSError, match=words):
            paths.read_named(tmp_path / place)
