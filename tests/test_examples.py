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
    sys.modules[name] = module  # where dataclasses look for the names in annotations
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


@pytest.mark.slow
def test_compare_distillation_writes_a_table_of_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = Image.open(PHOTO).convert("RGB")
    for folder, corners in (("photos", range(0, 80, 20)), ("held-out", (100,))):
        (tmp_path / folder).mkdir()
        for left in corners:
            photo.crop((left, 0, left + 48, 40)).save(tmp_path / folder / f"{left}.png")
    for name in ("Set5", "Set14", "BSD100"):
        (tmp_path / "sets" / name / "HR").mkdir(parents=True)
        photo.crop((0, 60, 48, 100)).save(tmp_path / "sets" / name / "HR" / "a.png")
    tool = example("compare_distillation")
    shape = tool.NetworkOptions("edsr", 4, 4, 1)
    monkeypatch.setattr(tool, "SHAPES", {"edsr": (shape, shape)})
    places = ["--data", "photos", "--val", "held-out", "--benchmarks", "sets", "--out", "runs", "--page", "table.md"]
    quick = ["--teacher-steps", "2", "--steps", "2", "--validate", "1", "--batch", "2", "--patch", "8"]
    here = ["--threads", "1", "--device", "cpu", "--compile", "off", "--advantage", "-99"]
    monkeypatch.chdir(tmp_path)

    tool.main([*places, *quick, *here])
    rows = [line.split("|")[1].strip() for line in Path("table.md").read_text().splitlines()[2:]]
    assert rows == ["teacher", "none", "logits", "fd", "fakd", "facd"]
    assert Path("table.png").stat().st_size > 1000
    assert len(list(Path("runs").iterdir())) == 1 + 5 * 2
    before = Path("table.md").read_text()
    monkeypatch.setattr(tool, "distill", None)  # all is there
    tool.main([*places, *quick, *here])
    assert Path("table.md").read_text() == before
    with pytest.raises(SystemExit, match="raise --teacher-steps"):
        tool.main([*places, *quick, *here[:-1], "99"])
