"""Arguments are expanded into inputs."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from batches import EMBEDDED, run, save_photo

from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.upscaling.inputs import find_inputs

FLAT = BatchOptions()
DEEP = BatchOptions(recursive=True)


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


def test_an_empty_folder_gives_a_note_and_is_no_failure() -> None:
    Path("in").mkdir()
    found = find_inputs(["in"], FLAT)
    assert found.inputs == ()
    assert found.notes == ("in holds no pictures; -r includes subfolders",)


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
    assert found.notes == ("left out as the result of another input: in/a_x4.png",)
    assert names("in/a_x4.png") == ["in/a_x4.png"]


def test_recorded_results_in_a_folder_are_no_inputs_whatever_their_name() -> None:
    save_photo(Path("in/a.png"))
    options = BatchOptions(output="in/large.png")
    (result,) = run([Path("in/a.png")], options=replace(EMBEDDED, batch=options))
    assert result.status == "done"
    assert names("in") == ["in/a.png"]
    save_photo(Path("in/large.png"), seed=7)
    assert names("in") == ["in/a.png", "in/large.png"]
