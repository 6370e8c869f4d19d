"""The examples run, through the public API, and make what they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
PHOTO = EXAMPLES / "photo.png"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A corner of the photograph, to be quick."""
    path = tmp_path / "small.png"
    with Image.open(PHOTO) as photo:
        photo.crop((60, 30, 110, 80)).save(path)
    return path


def test_every_example_is_run_here() -> None:
    tested = {path.stem for path in EXAMPLES.glob("*.py") if f'example("{path.stem}")' in Path(__file__).read_text()}
    assert tested == {path.stem for path in EXAMPLES.glob("*.py")}


def test_before_after_puts_both_enlargements_side_by_side(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "both.png"
    example("before_after").main([str(small), str(target), "--box", "4,4,20,24"])
    both = Image.open(target)
    assert both.size == (2 * 64 + 8, 80)
    before, after = (np.asarray(both.crop(box), float) for box in ((0, 0, 64, 80), (72, 0, 136, 80)))
    assert np.abs(np.diff(after, axis=1)).mean() > np.abs(np.diff(before, axis=1)).mean()


def test_upscale_in_python_writes_two_pictures(small: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    example("upscale_in_python").main(small, results)
    sizes = {path.name: Image.open(path).size for path in results.iterdir()}
    assert sizes == {"photo_x4.png": (200, 200), "small_600x600.jpg": (600, 600)}


@pytest.mark.slow
def test_make_photo_renders_the_example_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["make_photo.py", str(tmp_path / "photo.png")])
    example("make_photo").main()
    shipped, made = (np.asarray(Image.open(path), int) for path in (PHOTO, tmp_path / "photo.png"))
    assert made.shape == (160, 240, 3) and np.abs(made - shipped).mean() < 0.5
    assert PHOTO.stat().st_size < 100_000
