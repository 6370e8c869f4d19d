"""The script that counts the functions on the way of a picture."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "call_path.py"


@pytest.mark.slow
def test_the_functions_that_a_picture_passes_are_listed_in_the_order_of_first_calls(tmp_path: Path) -> None:
    Image.effect_noise((24, 16), 40).convert("RGB").save(tmp_path / "small.jpg")
    command = ["upscale", "small.jpg", "-o", "large.png", "--offline", "--device", "cpu", "--engine", "torch"]
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--list", *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *lines, last = run.stdout.splitlines()
    calls = [tuple(line.split()) for line in lines]
    places = [
        calls.index(call)
        for call in (
            ("cli/upscale.py", "upscale"),
            ("imaging/reader.py", "open_picture"),
            ("upscaling/jobs.py", "JobPlanner.plan"),
            ("upscaling/picture.py", "PictureUpscaler.upscale"),
            ("imaging/codecs/png.py", "write_png"),
            ("cli/views/upscale_progress.py", "UpscaleView.show"),
        )
    ]
    assert places == sorted(places)
    assert len(set(calls)) == len(calls), "a function is listed at its first call only"
    changes = sum(one[0] != other[0] for one, other in pairwise(calls))
    counts, hand_on = last.split("; ")
    assert counts == f"{len(calls)} functions in {len(dict(calls))} files, {changes} changes of file"
    # Some functions are ends of the way: they hand nothing on.
    assert 1 < int(hand_on.removesuffix(" hand on")) < len(calls)
    assert (tmp_path / "large.png").exists()
