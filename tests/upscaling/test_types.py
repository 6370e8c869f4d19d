"""Input files, and paths that mean the same file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dsclora_cli.upscaling.types import InputFile, path_key


def test_spellings_of_a_path_are_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x").mkdir()
    assert path_key(Path("a.png")) == path_key(tmp_path / "x" / ".." / "a.png")
    assert path_key(Path("a.png")) != path_key(Path("b.png"))


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_link_and_its_target_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").symlink_to("a.png")
    assert path_key(tmp_path / "a.png") == path_key(tmp_path / "b.png")


def test_case_matters_only_where_the_system_distinguishes_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert path_key(Path("A.png")) == path_key(Path("a.PNG"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert (path_key(Path("A.png")) == path_key(Path("a.png"))) == (Path("A.png") == Path("a.png"))


def test_an_input_knows_its_stem_and_key(tmp_path: Path) -> None:
    file = InputFile(tmp_path / "a.b.png", "shown")
    assert (file.stem, file.key) == ("a.b", path_key(tmp_path / "a.b.png"))
    stdin = InputFile(b"...", "-")
    assert (stdin.stem, stdin.key) == ("stdin", "-")
