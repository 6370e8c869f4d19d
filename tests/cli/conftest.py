"""The command line, run in this process as users run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.cli.app import main


class Ran(NamedTuple):
    """What a command left: its exit code and both streams."""

    code: int
    out: str
    err: str


@pytest.fixture
def dsclora(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a command line; lines are wide enough for whole messages."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photo.png`, 12x9, in the current folder."""
    monkeypatch.chdir(tmp_path)
    corners = np.random.default_rng(0).integers(0, 256, (2, 2, 3), np.uint8)
    Image.fromarray(corners).resize((12, 9), Image.Resampling.BILINEAR).save("photo.png")
    return Path("photo.png")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `photos` with six 40x32 pictures, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed in range(6):
        corners = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
        Image.fromarray(corners).resize((40, 32), Image.Resampling.BICUBIC).save(f"photos/{seed}.png")
    return Path("photos")
