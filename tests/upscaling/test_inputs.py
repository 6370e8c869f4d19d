"""Arguments are expanded into inputs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePath

import pytest
from batches import EMBEDDED, run, save_photo

from dsclora_cli import paths
from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.storage.places import RemotePlace
from dsclora_cli.upscaling import inputs
from dsclora_cli.upscaling.inputs import find_inputs

FLAT = BatchOptions()
DEEP = BatchOptions(recursive=True)
posix = pytest.mark.skipif(sys.platform == "win32", reason="pipes, links and limits of names differ on Windows")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(*arguments: str, batch: BatchOptions = FLAT) -> list[str]:
    return [Path(found.name).as_posix() for found in find_inputs(arguments, batch).inputs]


def test_a_folder_gives_its_pictures_in_order_and_no_other_files() -> None:
    touch("in/b.PNG", "in/a.jpg", "in/Thumbs.db", "in/.DS_Store", "in/.hidden.png", "in/notes.txt", "in/deep/c.png")
    assert names("in") == ["in/a.jpg", "in/b.PNG"]
    assert names("in", batch=DEEP) == ["in/a.jpg", "in/b.PNG", "in/deep/c.png"]


def test_recursion_keeps_the_tree_and_leaves_out_the_output_and_hidden_folders() -> None:
    touch("in/a.png", "in/x/y/b.png", "in/.git/c.png", "in/out/a_x4.png", "in/out/d.png")
    found = find_inputs(["in"], BatchOptions(recursive=True, output="in/out"))
    assert [item.folder for item in found.inputs] == [Path(), Path("x/y")]
    assert found.many


@pytest.mark.parametrize("kind", [str, Path, PurePath, os.fspath])
def test_a_single_path_is_one_input_and_not_its_letters(kind: Callable[[str], object]) -> None:
    touch("p.png", "h.png", "in/p.png")
    assert [Path(file.name).as_posix() for file in find_inputs(kind("in/p.png"), FLAT).inputs] == ["in/p.png"]
    assert [file.name for file in find_inputs(iter([kind("h.png"), kind("p.png")]), FLAT).inputs] == ["h.png", "p.png"]
    (url,) = find_inputs(RemotePlace("memory://in/p.png"), FLAT).inputs
    assert url.source == RemotePlace("memory://in/p.png")


@pytest.mark.parametrize("wrong", [None, 5, b"p.png", [b"p.png"], [None], [["p.png"]]])
def test_an_input_that_is_no_path_is_an_error_that_shows_it(wrong: object) -> None:
    with pytest.raises(UsageError, match=r"the input .+ is no path \(give texts or paths of files and folders\)"):
        find_inputs(wrong, FLAT)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_in_a_circle_are_not_followed() -> None:
    touch("in/a.png")
    Path("in/again").symlink_to(Path("in").resolve(), target_is_directory=True)
    Path("in/nowhere.png").symlink_to("absent.png")
    assert names("in", batch=DEEP) == ["in/a.png"]


def test_globs_are_expanded_and_an_existing_name_with_brackets_is_a_file() -> None:
    touch("in/a1.png", "in/a2.png", "in/b.png", "in/a3.txt", "in/deep/a4.png", "in/[a].png")
    assert names("in/a*.png") == ["in/a1.png", "in/a2.png"]
    assert names("in/**/a*.png") == ["in/a1.png", "in/a2.png", "in/deep/a4.png"]
    assert names("in/[a].png") == ["in/[a].png"]
    assert names("in/a*") == ["in/a1.png", "in/a2.png"]
    assert not find_inputs(["in/b*.png"], FLAT).many


def test_a_glob_of_folders_gives_their_pictures() -> None:
    touch("in/x/a.png", "in/y/b.png")
    assert names("in/*") == ["in/x/a.png", "in/y/b.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_names_files_folders_and_globs(encoding: str) -> None:
    touch("in/ä.png", "other/b.png", "c1.png")
    Path("list.txt").write_text("in\n\nother/b.png\n  c?.png\n", encoding=encoding)
    assert names("@list.txt") == ["in/ä.png", "other/b.png", "c1.png"]


def test_a_line_of_a_list_ends_as_lines_of_files_do_and_a_name_may_hold_any_other_character() -> None:
    touch("in/a\u2028b.png", "in/c\x85.png", "in/d.png")
    Path("list.txt").write_bytes("in/a\u2028b.png\r\nin/c\x85.png\rin/d.png".encode())
    assert names("@list.txt") == ["in/a\u2028b.png", "in/c\x85.png", "in/d.png"]


def test_a_list_that_cannot_be_read_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"the list absent.txt cannot be read"):
        find_inputs(["@absent.txt"], FLAT)
    Path("list.txt").write_bytes(b"\xff\x00\x81")
    with pytest.raises(UsageError, match=r"the list list.txt is not text"):
        find_inputs(["@list.txt"], FLAT)


def test_a_missing_file_is_an_input_with_a_problem() -> None:
    touch("a.png")
    missing, pattern, found = find_inputs(["b.png", "*.webp", "a.png"], FLAT).inputs
    assert "b.png does not exist" in str(missing.problem)
    assert "no file matches *.webp" in str(pattern.problem)
    assert found.problem is None


def test_an_empty_folder_has_an_account_and_is_no_failure() -> None:
    Path("in").mkdir()
    found = find_inputs(["in"], FLAT)
    assert found.inputs == ()
    (folder,) = found.left_out
    assert (folder.name, folder.reason) == ("in", "holds no pictures; -r includes subfolders")
    assert folder.kind == "folders without pictures"


def test_each_file_counts_once() -> None:
    touch("in/a.png")
    assert names("in/a.png", "in", "in/../in/a.png") == ["in/a.png"]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"bytes of a picture")))
    (found,) = find_inputs(["-"], FLAT).inputs
    assert (found.source, found.name, found.stem) == (b"bytes of a picture", "-", "stdin")


def test_files_named_like_results_are_no_inputs() -> None:
    touch("in/a.png", "in/a_x4.png", "in/a_x2.5.png", "in/a_x4-2.png", "in/b_x4.png", "in/a_xl.png")
    assert names("in") == ["in/a.png", "in/a_xl.png", "in/b_x4.png"]
    found = find_inputs(["in/a.png", "in/a_x4.png", "in/b_x4.png"], FLAT)
    assert [item.stem for item in found.inputs] == ["a", "b_x4"]
    assert [(each.name, each.reason.partition(";")[0]) for each in found.left_out] == [
        ("in/a_x4.png", "by its name the result of in/a.png")
    ]
    assert names("in/a_x4.png") == ["in/a_x4.png"]


def test_recorded_results_in_a_folder_are_no_inputs_whatever_their_name() -> None:
    save_photo(Path("in/a.png"))
    options = BatchOptions(output="in/large.png")
    (result,) = run([Path("in/a.png")], options=replace(EMBEDDED, batch=options))
    assert result.status == "done"
    assert names("in") == ["in/a.png"]
    save_photo(Path("in/large.png"), seed=7)
    assert names("in") == ["in/a.png", "in/large.png"]


@posix
def test_every_file_seen_is_an_input_or_left_out_with_a_reason() -> None:
    touch("in/a.png", "in/.hidden.png", "in/.DS_Store", "in/notes.txt", "in/deep/b.png", "in/.git/c.png")
    touch("in/Thumbs.db", "in/desktop.ini")
    Path("in/link.png").symlink_to("a.png")
    Path("in/loop.png").symlink_to("loop.png")
    Path("in/nowhere.png").symlink_to("absent.png")
    Path("in/folder").symlink_to("deep")
    os.mkfifo("in/pipe.png")
    found = find_inputs(["in"], FLAT)
    assert [item.name for item in found.inputs] == ["in/a.png"]
    assert {each.name: each.reason for each in found.left_out} == {
        "in/.DS_Store": "a hidden file of a system or program",
        "in/.git": "a hidden folder",
        "in/.hidden.png": "a hidden file",
        "in/Thumbs.db": "a hidden file of a system or program",
        "in/deep": "a folder; -r includes subfolders",
        "in/desktop.ini": "a hidden file of a system or program",
        "in/folder": "a link to a folder",
        "in/link.png": "the same file as in/a.png",
        "in/loop.png": "a link that leads nowhere",
        "in/notes.txt": "not named like a picture",
        "in/nowhere.png": "a link that leads nowhere",
        "in/pipe.png": "no regular file",
    }
    assert all(each.kind for each in found.left_out)
    assert {each.name for each in found.left_out if each.expected} == {"in/.DS_Store", "in/Thumbs.db", "in/desktop.ini"}


def test_a_file_that_is_seen_and_named_is_not_left_out() -> None:
    touch("in/.hidden.png", "in/a.png")
    found = find_inputs(["in", "in/../in/.hidden.png"], FLAT)
    assert (len(found.inputs), found.left_out) == (2, ())


NUMBERED = ("scan.png", "scan-1.png", "scan-2.png", "icon.png", "icon_x2.png", "icon_x3.png", "cat.png", "cat_dog.png")


@pytest.mark.parametrize("template", ["{stem}.{ext}", "{stem}_x{scale}.{ext}", "{stem}_{model}.{ext}"])
@pytest.mark.parametrize("argument", ["in", "in/*.png", "in/cat.png"])
def test_no_name_makes_a_file_a_result_where_results_lie_elsewhere(template: str, argument: str) -> None:
    touch(*(f"in/{name}" for name in NUMBERED))
    found = find_inputs([argument], BatchOptions(output="out", name=template))
    assert len(found.inputs) == (len(NUMBERED) if argument != "in/cat.png" else 1)
    assert found.left_out == ()


@pytest.mark.parametrize("output", [None, "in", "./in/"])
def test_a_guess_from_a_name_is_told(output: str | None) -> None:
    touch("in/icon.png", "in/icon_x2.png")
    batch = BatchOptions(output=output)
    (left_out,) = find_inputs(["in"], batch).left_out
    assert left_out.name == "in/icon_x2.png"
    assert left_out.reason.startswith("by its name the result of in/icon.png; ")
    reports = [result for result in run([Path("in")], replace(EMBEDDED, batch=batch)) if result.status == "left-out"]
    assert [(report.input, report.warnings) for report in reports] == [(left_out.name, (left_out.reason,))]


@posix
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 300 + ".png", "File name too long"),
        ("a\0b.png", "null"),
        ("loop.png", "symbolic links"),
        ("nowhere.png", "leads nowhere"),
        ("/dev/null", "no regular file"),
        ("pipe.png", "name the result with -o"),
        ("private/a.png", "Permission denied"),
    ],
)
def test_a_name_that_cannot_be_opened_fails_alone(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("a.png", "private/a.png")
    Path("loop.png").symlink_to("loop.png")
    Path("nowhere.png").symlink_to("absent.png")
    os.mkfifo("pipe.png")
    real = Path.stat

    def stat(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.parent.name == "private":  # the superuser may enter every folder
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", stat)
    Path("list.txt").write_text(f"{name}\na.png\n", encoding="utf-8")
    for arguments in (["@list.txt"], [name, "a.png"]):
        failed, good = find_inputs(arguments, FLAT).inputs
        assert words in str(failed.problem)
        assert (good.name, good.problem) == ("a.png", None)


@posix
def test_a_pipe_is_read_and_a_silent_or_endless_pipe_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo("pipe.png")
    batch = BatchOptions(output="b.png")
    monkeypatch.setattr(paths, "PIPE_SECONDS", 0.05)
    (silent,) = find_inputs(["pipe.png"], batch).inputs
    assert "nothing came through the pipe" in str(silent.problem)
    monkeypatch.setattr(paths, "PIPE_SECONDS", 20)
    with subprocess.Popen("exec cat /dev/zero > pipe.png", shell=True) as endless:
        monkeypatch.setattr(inputs, "_PIPE_LIMIT", 10_000)
        (long,) = find_inputs(["pipe.png"], batch).inputs
        endless.kill()
    assert "more than 0 MiB came through the pipe" in str(long.problem)
    with subprocess.Popen("sleep 0.1; echo picture > pipe.png", shell=True):
        (piped,) = find_inputs(["pipe.png"], batch).inputs
    assert (piped.source, piped.stem, piped.key) == (b"picture\n", "pipe", "pipe.png")


@posix
def test_a_list_may_be_a_pipe_and_is_no_device_and_no_silent_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("a.png")
    os.mkfifo("list")
    with subprocess.Popen("echo a.png > list", shell=True):
        assert names("@list") == ["a.png"]
    monkeypatch.setattr(paths, "PIPE_SECONDS", 0.05)
    Path("silent").symlink_to("list")
    for name, words in (("silent", "nothing came through the pipe"), ("/dev/zero", "not a regular file")):
        with pytest.raises(UsageError, match=words):
            find_inputs([f"@{name}"], FLAT)


def test_standard_input_may_be_closed_or_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    (closed,) = find_inputs(["-"], FLAT).inputs
    assert closed.source == b""
    monkeypatch.setattr(inputs, "_PIPE_LIMIT", 10)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"0" * 1000)))
    (endless,) = find_inputs(["-"], FLAT).inputs
    assert "standard input has more than" in str(endless.problem)
