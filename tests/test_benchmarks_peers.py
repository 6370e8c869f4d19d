"""The comparison with other upscalers: turns, resuming, what is absent, table and plot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
CODE = """
import torch

def open_teacher():
    return torch.nn.Upsample(scale_factor=4, mode="nearest")
"""


def run(folder: Path, *more: str) -> str:
    fixed = [str(ROOT / "benchmarks" / "peers.py"), str(folder), "--json", str(folder / "peers.json")]
    ran = subprocess.run([sys.executable, *fixed, *more], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_upscalers_take_turns_and_results_are_kept(tmp_path: Path) -> None:
    (tmp_path / "Set14" / "HR").mkdir(parents=True)
    for name, left in (("castle", 20), ("meadow", 100)):
        Image.open(ROOT / "examples/photo.png").convert("RGB").crop((left, 40, left + 96, 120)).save(
            tmp_path / "Set14" / "HR" / f"{name}.png"
        )
    (tmp_path / "code.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no such weights')", encoding="utf-8")
    modules = [f"--module={name}={tmp_path / file}" for name, file in (("Near", "code.py"), ("Gone", "broken.py"))]
    names = ["Pillow bicubic", "Near, PyTorch", "Gone, PyTorch"]

    first = run(tmp_path, *modules, "--pictures", "1", "--only", *names)
    assert "castle: done" in first and "meadow" not in first
    assert "Not measured: Gone, PyTorch (RuntimeError: no such weights)." in first

    pages = ["--plot", str(tmp_path / "peers.png"), "--table", str(tmp_path / "peers.md")]
    run(tmp_path, *modules, *pages, "--only", *names)
    kept = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    assert {name: sorted(scores) for name, scores in kept.items()} == {
        "Pillow bicubic": ["castle", "meadow"],
        "Near, PyTorch": ["castle", "meadow"],
        "Gone, PyTorch": [],
    }
    rows = [line.split(" | ") for line in (tmp_path / "peers.md").read_text(encoding="utf-8").splitlines()[2:4]]
    quality = {row[0].removeprefix("| "): float(row[2]) for row in rows}
    assert quality["Pillow bicubic"] > quality["Near, PyTorch"] > 15
    assert Image.open(tmp_path / "peers.png").size == (990, 594)

    # Nothing is missing but the network that cannot be opened, so nothing else is started.
    third = run(tmp_path, *modules, "--only", *names)
    assert "Pillow bicubic: open" not in third and "Gone, PyTorch: RuntimeError" in third
