"""Globs: the matches of Python's own glob, but without the folders behind links."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from dsclora_cli.config import BatchOptions
from dsclora_cli.globs import Glob
from dsclora_cli.upscaling.inputs import find_inputs

PATTERNS = (
    *("**", "**/", "**/*.png", "in/**", "in/**/", "in/**/a*.png", "*/**/x", "in/**/deep/**/*.png", "**/**/b.png"),
    *(
        "in/*",
        "in/[ab]*.png",
        "in/?.png",
        "**/.hidden",
        "in/**/.*",
        "absent/**/*.png",
        "in/**/[[]x[]]/*",
    ),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png", "x/a.png", "deep/deep/b.png", ".hidden/c.png", "x/.d.png", "[x]/e.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path


@pytest.mark.parametrize("is_absolute", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_matches_are_those_of_python_where_there_are_no_links(
    folder: Path, pattern: str, is_absolute: bool
) -> None:
    pattern = f"{glob.escape(str(folder))}/{pattern}" if is_absolute else pattern
    expected = {Path(match) for match in glob.glob(pattern, recursive=True)}  # noqa: PTH207
    found = Glob(pattern)
    # Python names no folder for the working folder itself.
    assert set(found.matches()) - {Path()} == expected - {Path()}
    assert not found.links and not found.unreadable


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
@pytest.mark.parametrize("pattern", ["in/**", "in/**/*.png", "in/**/x/**"])
def test_links_to_folders_are_left_out_with_a_reason(folder: Path, pattern: str) -> None:
    for name in ("again", "once-more"):  # 2^40 folders for whoever enters them
        (folder / "in" / name).symlink_to(folder / "in", target_is_directory=True)
        (folder / "in" / "x" / name).symlink_to(folder, target_is_directory=True)
    found = find_inputs([pattern], BatchOptions())
    assert {Path(file.name) for file in found.inputs} <= set(Path("in").rglob("*.png"))
    assert len(found.inputs) >= 1
    links = {each.name for each in found.left_out if each.reason == "a link to a folder"}
    assert links == {"in/again", "in/once-more", "in/x/again", "in/x/once-more"}


def test_a_folder_that_cannot_be_listed_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scan(place: Any = ".") -> Any:
        if Path(place).name == "deep":
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(os, "scandir", scan)
    found = find_inputs(["in/**/*.png"], BatchOptions())
    problems = {file.name: file.problem.message for file in found.inputs if file.problem}
    assert problems == {str(Path("in/deep")): f"{Path('in/deep')} cannot be listed: Permission denied"}
    assert len(found.inputs) == 5
