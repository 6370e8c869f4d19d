"""The scripts of `examples/` as commands: every script explains itself, and mistakes are one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from example_scripts import EXAMPLES, PHOTO, example

SCRIPTS = [path for path in sorted(EXAMPLES.rglob("*.py")) if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_explains_every_script_and_writes_nothing(script: Path, tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr, list(tmp_path.iterdir())) == (0, "", [])
    assert ran.stdout.startswith(f"usage: {script.name}")


@pytest.mark.parametrize(
    ("name", "arguments", "problem"),
    [
        ("before_after", "missing.png out.png", "missing.png cannot be read: No such file or directory"),
        ("before_after", "notes.txt out.png", "notes.txt cannot be read: no picture"),
        ("before_after", f"{PHOTO} out.xyz", "out.xyz has the name of no picture format: name a .png"),
        ("before_after", f"{PHOTO} out.png --box 0,0,900,9", "--box reaches beyond the 240 x 160 pixels of "),
        ("make_pages", "taken 1 1", "taken cannot be written: File exists (name a folder to make)"),
        ("make_photo", "out.xyz", "out.xyz cannot be written: name a PNG in a folder that exists"),
        ("make_photo", "missing/out.png", "missing/out.png cannot be written: name a PNG in a folder that exists"),
        ("upscale_in_python", "missing.png", "missing.png does not exist (check the path)"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").mkdir()
    Path("notes.txt").write_text("no picture")
    with pytest.raises(SystemExit) as caught:
        example(name).main(arguments.split())
    assert isinstance(caught.value.code, str)  # Python prints the text, and the exit code is 1
    assert caught.value.code.startswith(problem) and "\n" not in caught.value.code
    assert {path.name for path in tmp_path.iterdir()} == {"taken", "notes.txt"}


@pytest.mark.parametrize("box", ["1,2", "a,b,c,d", "9,0,9,5", "-1,0,9,5"])
def test_a_box_that_is_none_is_explained(box: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        example("before_after").main([str(PHOTO), "out.png", f"--box={box}"])
    assert caught.value.code == 2
    assert f"error: argument --box: {box!r} " in capsys.readouterr().err


def test_a_sharpness_out_of_range_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        example("before_after").main([str(PHOTO), "out.png", "--sharp", "0.5", "2"])
    assert caught.value.code == 2
    assert "error: argument --sharp: 2 is not a sharpness from 0 to 1" in capsys.readouterr().err
