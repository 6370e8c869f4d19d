"""Where commands write: the path that is looked at is the path that is written, and nothing else is replaced."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FRAME = bytes(12 * 9 * 3)


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put a video of one frame on stdin, which is a file in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = Path("in.rgb")
    path.write_bytes(FRAME)
    with path.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield path


FRAMES = ("frames", "--size", "12x9", "-m", "dsclora-x2", "-s", "2", "-q")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reads `absent/..` as text")
@pytest.mark.parametrize("name", ["./absent/../in.rgb", "link/../in.rgb", "video/../in.rgb"])
def test_frames_never_replaces_stdin_by_another_spelling(dsclora, video: Path, name: str) -> None:
    Path("link").symlink_to("absent")
    Path("video").mkdir()
    ran = dsclora(*FRAMES, "-o", name, "--overwrite")
    assert (ran.code, video.read_bytes()) == (2 if "video" in name else 1, FRAME)
    reason = "is the video on stdin" if "video" in name else "cannot be written (No such file or directory)"
    assert ran.err.startswith(f"error: {Path(name)} {reason}") and ran.err.count("\n") == 1
    assert not Path("absent").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reads `absent/..` as text")
@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("upscale", "photo.png", "-m", "dsclora-x2", "-s", "2", "-o", "{}"), "mine.png"),
        (("upscale", "photo.png", "-m", "dsclora-x2", "-s", "2", "--name", "mine.png", "-o", "{}/"), "."),
        (("compare", "photo.png", "-m", "dsclora-x2", "-s", "2", "-o", "{}"), "mine"),
        (("export", "dsclora-x2", "-o", "{}"), "mine.onnx"),
        (("train", "--out", "{}", "--data", ".", "--steps", "1"), "."),
        (("config", "set", "scale", "2"), "."),
    ],
)
def test_a_path_through_an_absent_folder_leads_nowhere(
    dsclora, photo: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], name: str
) -> None:
    kept = {name: f"precious {name}" for name in ("mine.png", "mine.html", "mine.onnx", "recipe.toml")}
    kept["config.toml"] = "# precious\n"
    for file, text in kept.items():
        Path(file).write_text(text)
    place = f"absent/../{name}"
    if arguments[0] == "config":
        monkeypatch.setenv("DSCLORA_CONFIG_DIR", place)
    ran = dsclora(*(each.format(place) for each in arguments))
    assert ran.code in (1, 2)
    assert "No such file or directory" in ran.err and "Traceback" not in ran.err and "bug" not in ran.err
    assert {file: Path(file).read_text() for file in kept} == kept
    assert not Path("absent").exists()
    assert photo.exists()


UPSCALE = ("upscale", "photo.png", "-m", "dsclora-x2", "-s", "2", "-f", "png")
STREAM = "is a pipe or a device, and no file (name a file, or write to stdout with -o - and add a pipe or > FILE)"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("options", [(), ("--overwrite",), ("--dry-run",)])
@pytest.mark.parametrize("name", ["/dev/null", "/dev/stdout", "/dev/fd/1", "pipe", "pipe.png", "pipe/"])
def test_a_picture_to_a_pipe_or_a_device_is_refused_in_words(
    dsclora, photo: Path, name: str, options: tuple[str, ...]
) -> None:
    os.mkfifo(name.strip("/").replace("/", "-"))
    ran = dsclora(*UPSCALE, "-o", name, *options)
    assert (ran.code, ran.err) == (2, f"error: -o {Path(name)} {STREAM}\n")
    assert all(path == photo or stat.S_ISFIFO(path.lstat().st_mode) for path in Path().iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    ("arguments", "pipe", "code"),
    [
        (UPSCALE, "photo_x2.png", 1),
        ((*UPSCALE, "--overwrite"), "photo_x2.png", 1),
        ((*UPSCALE, "--overwrite", "-o", "out/"), "out/photo_x2.png", 1),
        (("compare", "photo.png", "-m", "dsclora-x2", "-s", "2", "-o", "mine", "--overwrite"), "mine.html", 1),
        (("export", "dsclora-x2", "-o", "mine.safetensors", "--overwrite"), "mine.safetensors", 1),
    ],
)
def test_a_named_pipe_is_never_replaced_by_a_file(
    dsclora, photo: Path, arguments: tuple[str, ...], pipe: str, code: int
) -> None:
    Path("out").mkdir()
    os.mkfifo(pipe)
    ran = dsclora(*arguments)
    assert (ran.code, stat.S_ISFIFO(Path(pipe).lstat().st_mode), photo.exists()) == (code, True, True)
    assert "(a pipe or a device has this name) (choose another name" in ran.err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((*FRAMES, "-o", "{}"), "new.rgb"),
        (("export", "dsclora-x2", "-o", "{}"), "new.safetensors"),
        (("merge", "dsclora-x4-photo", "adapter.safetensors", "-o", "{}"), "new.safetensors"),
        (("eval", "-m", "dsclora-x2", "--hr", ".", "-s", "2", "--csv", "{}"), "new.csv"),
        (("eval", "-m", "dsclora-x2", "--hr", ".", "-s", "2", "--markdown", "{}"), "new.md"),
    ],
)
@pytest.mark.parametrize("ending", ["/", "/.", "//"])
@pytest.mark.usefixtures("photo", "video")
def test_a_path_with_a_slash_at_the_end_is_no_file(dsclora, arguments: tuple[str, ...], name: str, ending: str) -> None:
    ran = dsclora(*(each.format(name + ending) for each in arguments))
    message = f"{name}{ending} is the path of a folder, and a file is written (remove the slash at the end)"
    assert (ran.code, ran.err, Path(name).exists()) == (2, f"error: {message}\n", False)
