"""The makefile of docs/how-to/many-files.md, run by make."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "many-files.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_makefile_makes_each_result_once_and_again_after_a_change(photo: Path, tmp_path: Path) -> None:
    (makefile,) = re.findall(r"^```make\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    Path("Makefile").write_text(makefile, encoding="utf-8")
    program = tmp_path / "bin" / "dsclora"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dsclora_cli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "DSCLORA_OFFLINE": "true"}

    def make() -> str:
        made = subprocess.run(["make"], env=environment, capture_output=True, text=True, check=True)
        return made.stdout + made.stderr

    assert make() == "dsclora upscale photo.png -s 2 -o out/photo.png.webp --overwrite -q\n"
    assert Image.open("out/photo.png.webp").size == (24, 18)
    assert "Nothing to be done" in make()
    photo.touch()
    assert "dsclora upscale" in make()
    assert "Nothing to be done" in make()
    Image.new("RGB", (10, 6), "navy").save(photo)
    assert "dsclora upscale" in make()
    assert Image.open("out/photo.png.webp").size == (20, 12)
    assert "Nothing to be done" in make()
