"""Results are saved whole or not at all."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.config import SaveOptions
from dsclora_cli.errors import ImageError
from dsclora_cli.imaging.types import Frame, Header
from dsclora_cli.upscaling import manifest
from dsclora_cli.upscaling.manifest import ResultKey, result_state, save_result

HEADER = Header("PNG", 6, 4, 3, np.dtype(np.uint8))
FRAME = Frame(np.full((4, 6, 3), 90, np.uint8))
RECIPE = ResultKey("in", "weights", {})


def save(target: Path | None, frames: Iterator[Frame] | list[Frame]) -> tuple[str, ...]:
    return save_result(target, HEADER, frames, SaveOptions(), RECIPE)


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.png"
    seen: list[bool] = []

    def frames() -> Iterator[Frame]:
        seen.append(target.exists())
        yield FRAME

    assert save(target, frames()) == ()
    assert seen == [False]
    assert Image.open(target).size == (6, 4)
    assert list(target.parent.iterdir()) == [target]
    assert result_state(target, RECIPE) == "complete"


def test_an_error_leaves_the_old_file_and_no_other_file(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def frames() -> Iterator[Frame]:
        raise KeyboardInterrupt
        yield FRAME

    with pytest.raises(KeyboardInterrupt):
        save(target, frames())
    with pytest.raises(ImageError):
        save(target, [])
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_a_one_line_error_naming_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(target: Path, *_: object) -> None:
        target.write_bytes(b"half")
        raise ImageError(f"{target}: cannot be written (No space left on device)")

    monkeypatch.setattr(manifest, "write_picture", full)
    with pytest.raises(ImageError) as caught:
        save(tmp_path / "a.png", [FRAME])
    assert str(caught.value) == f"{tmp_path / 'a.png'}: cannot be written (No space left on device)"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"file: the folder cannot be made \(something else has this name\)"):
        save(tmp_path / "file" / "a.png", [FRAME])


def test_a_record_that_cannot_be_written_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(manifest, "record_result", fail)
    (warning,) = save(tmp_path / "a.png", [FRAME])
    assert warning.startswith("not recorded, so the next run cannot skip the picture: ")
    assert (tmp_path / "a.png").exists()


def test_standard_output_gets_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    assert save(None, [FRAME]) == ()
    assert Image.open(io.BytesIO(stdout.buffer.getvalue())).size == (6, 4)
