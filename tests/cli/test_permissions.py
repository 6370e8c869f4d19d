"""Files and folders that may not be read, entered or written: one line for each, and all other work goes on."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from permissions import ordinary_user
from PIL import Image

MODEL = ("-m", "dsclora-x2", "-s", "2", "--device", "cpu", "--offline")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the folder `in` with `a.png`, and `in/closed` and `in/open` with `b.png` each, for an ordinary user."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a", "in/closed/b", "in/open/b"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.effect_noise((72, 64), 60).convert("RGB").save(f"{name}.png")  # a flat picture is not trained on
    with ordinary_user():
        yield Path("in")
        for path in (tmp_path, *tmp_path.rglob("*")):  # pytest removes the folder later
            if path.is_dir():
                path.chmod(0o700)


def close(folder: Path, mode: int = 0) -> Path:
    """Let nobody enter a folder; make the folder where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
    return folder


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
@pytest.mark.parametrize("argument", ["in", "in/**/*.png"])
def test_a_closed_folder_costs_no_other_picture(dsclora, folder: Path, mode: int, argument: str) -> None:
    close(folder / "closed", mode)
    code, out, _ = dsclora("upscale", argument, "-r", "-o", "out", *MODEL, "--json")
    lines = {line["input"]: line for line in map(json.loads, out.splitlines())}
    assert code == 1
    (failed,) = [line for name, line in lines.items() if name.startswith("in/closed")]
    assert failed["error"]["code"] == "image-unreadable"
    assert "Permission denied" in failed["error"]["message"] and failed["error"]["hint"]
    assert [lines[name]["status"] for name in ("in/a.png", "in/open/b.png")] == ["done", "done"]


def test_an_earlier_result_that_cannot_be_read_is_kept(dsclora, folder: Path) -> None:
    assert dsclora("upscale", folder, "-o", "out", *MODEL).code == 0
    assert dsclora("upscale", folder, *MODEL).code == 0
    for result in ("out/a_x2.png", "in/a_x2.png"):
        Path(result).chmod(0)
    code, out, _ = dsclora("upscale", "in/a.png", "-o", "out/", *MODEL, "--json")
    assert (code, json.loads(out)["status"]) == (0, "kept")
    Image.new("RGB", (24, 16), "navy").save("in/new.png")
    for more in (("--dry-run",), ()):
        code, out, _ = dsclora("upscale", folder, *MODEL, *more, "--json")
        names = {line["input"] for line in map(json.loads, out.splitlines())}
        assert code == 0 and "in/new.png" in names
    assert Path("in/new_x2.png").exists()


@pytest.mark.parametrize("output", ["closed/x.png", "closed/", "closed/new/", "readable/"])
def test_an_output_that_cannot_be_written(dsclora, folder: Path, output: str) -> None:
    close(Path("closed"))
    close(Path("readable"), 0o500)
    for more in (("--dry-run",), ()):
        code, out, _ = dsclora("upscale", "in/a.png", "-o", output, *MODEL, *more, "--json")
        (line,) = map(json.loads, out.splitlines())
        assert (code, line["error"]["code"]) == (1, "image-unwritable")
        assert line["error"]["message"].startswith(output.partition("/")[0])


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (("upscale", "in/a.png", "-m", "closed/x.pth"), 3, "cannot read closed/x.pth: Permission denied (check the p"),
        (("export", "closed/x.pth", "-o", "x.safetensors"), 3, "cannot read closed/x.pth: Permission denied"),
        (("export", "dsclora-x2", "-o", "closed/x.safetensors"), 1, "closed/x.safetensors cannot be written (Permiss"),
        (("compare", "in/a.png", "-m", "closed/a.png"), 1, "closed/a.png: Permission denied (check the path and the"),
        (("eval", "--hr", "in", "-s", 2, "--save", "closed/s", *MODEL[:2]), 1, "in/a.png: closed/s/in"),
        (
            ("train", "--data", "in", "--data", "in/open", "-o", "closed/run", "-s", 2, "--patch", 8),
            1,
            "cannot write to closed/run",
        ),
    ],
)
def test_other_commands_name_the_place(
    dsclora, folder: Path, command: tuple[object, ...], code: int, error: str
) -> None:
    close(Path("closed"))
    result = dsclora(*command, "--offline")
    assert (result.code, result.err.splitlines()[-1][: len(f"error: {error}")]) == (code, f"error: {error}")


def test_training_names_the_cache_that_cannot_be_written(
    dsclora, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSCLORA_CACHE_DIR", "cache")
    close(Path("cache/training"))
    run = ("train", "--data", "in", "-o", "run", "-s", 2, "--steps", 1, "--batch", 1, "--patch", 8)
    code, _, err = dsclora(*run, "--compile", "off", "--device", "cpu")
    assert code == 1
    assert "bug" not in err and "DSCLORA_CACHE_DIR" in err.splitlines()[-1]


@pytest.mark.parametrize("command", ["doctor", "models list", "models verify", "models prune"])
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_folders_of_another_user_do_not_stop_a_look_at_the_machine(
    dsclora, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, mode: int
) -> None:
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"DSCLORA_{name}_DIR", f"{name.lower()}/dsclora")
        Path(name.lower(), "dsclora").mkdir(parents=True)
        close(Path(name.lower()), mode)
    monkeypatch.setenv("HF_HUB_CACHE", "cache/hub")
    _, out, err = dsclora(*command.split())
    assert (out or command == "models prune") and "error" not in err


def test_settings_of_another_user_count_as_absent(dsclora, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSCLORA_CONFIG_DIR", "config")
    Path("config").mkdir()
    Path("config/config.toml").write_text('scale = "wrong"\n')
    close(Path("config/config.toml").parent)
    assert dsclora("upscale", "in/a.png", *MODEL).code == 0
    monkeypatch.setenv("DSCLORA_CONFIG_DIR", "in/a.png/config")  # a file in place of a folder
    assert dsclora("upscale", "in/a.png", *MODEL, "-o", "b.png").code == 0
    monkeypatch.setenv("DSCLORA_CONFIG_DIR", "config")
    Path("config").chmod(0o700)
    Path("config/config.toml").chmod(0)  # in a folder that may be entered, the user meant it
    code, _, err = dsclora("upscale", "in/a.png", *MODEL)
    assert (code, err[:60]) == (2, "error: cannot read config/config.toml: Permission denied (ch")


@pytest.mark.parametrize(
    "command",
    [
        "upscale in/a.png -m dsclora-x2 -s 2 -o closed/a.png",
        "export dsclora-x2 -o closed/a.onnx",
        "export dsclora-x2 -o closed/a.safetensors",
        "compare in/a.png -m dsclora-x2 -s 2 -o closed/a",
        "train --arch edsr --patch 8 --data in --data in/open --out closed/run",
        "train --config unreadable.toml --data in --out run",
        "config set scale 2",
        "eval -m dsclora-x2 --hr unreadable -s 2",
    ],
)
def test_the_next_step_after_a_refusal_is_the_permissions(
    dsclora, folder: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    close(Path("closed"), 0o555)
    close(Path("config"), 0o555)
    monkeypatch.setenv("DSCLORA_CONFIG_DIR", "config")
    Path("unreadable.toml").touch(0)
    Path("unreadable").mkdir()
    Image.new("RGB", (72, 64)).save("unreadable/c.png")
    Path("unreadable/c.png").chmod(0)
    code, _, err = dsclora(*command.split())
    assert code and "permissions" in err and "space" not in err and "replace" not in err


def test_no_folder_for_temporary_files(dsclora, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(close(Path("closed").absolute())))
    code, _, err = dsclora("export", "dsclora-x2", "-o", "x.onnx")
    assert code == 1
    assert err.startswith(
        "error: there is no folder for temporary files: Permission denied (check the permissions, or set TMP"
    )


def test_the_system_has_no_more_threads_or_files(dsclora, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        code, _, err = dsclora("upscale", "in/a.png", *MODEL)
    assert (code, err) == (
        1,
        "error: the system starts no more threads (end other programs, or raise the limit on processes: ulimit -u)\n",
    )

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr("dsclora_cli.upscaling.batch.find_inputs", full)
        code, _, err = dsclora("upscale", "in/a.png", *MODEL)
    assert (code, err) == (1, "error: Too many open files (raise the limit on open files: ulimit -n)\n")


def test_standard_input_that_cannot_be_read(dsclora, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("only-written").open("wb") as file, open(file.fileno(), "rb", closefd=False) as stream:
        monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": stream, "isatty": lambda _: False})())
        code, _, err = dsclora("upscale", "-", "-o", "x.png", *MODEL)
    assert (code, "failed: -: standard input cannot be read: Bad file descriptor (send a" in err) == (1, True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no folder in use")
def test_a_current_folder_that_was_removed(dsclora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert dsclora("upscale", "a.png") == (
        2,
        "",
        "error: the current folder does not exist any more (go to another folder)\n",
    )
