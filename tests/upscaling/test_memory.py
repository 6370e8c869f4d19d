"""The estimate of memory, and the limit that a process keeps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from batches import EMBEDDED, run, save_photo, states

from dsclora_cli.cli.app import main
from dsclora_cli.config import EngineOptions, ModelOptions, SaveOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import OutOfMemory
from dsclora_cli.imaging.types import Header
from dsclora_cli.inference.native.library import why_unavailable
from dsclora_cli.upscaling import picture as picture_module
from dsclora_cli.upscaling.jobs import JobPlanner
from dsclora_cli.upscaling.memory import MOST_WAITING_BYTES, pixel_budget
from dsclora_cli.upscaling.picture import PicturePlan, PictureUpscaler
from dsclora_cli.upscaling.types import InputFile

LARGE = Header("PNG", 6000, 4000, 3, np.dtype(np.uint8))


def planned(
    max_memory: int | None, streamed: bool = True, tile: int | None = None, scale: float = 4, header: Header = LARGE
) -> PicturePlan:
    options = UpscaleOptions(
        model=ModelOptions("dsclora-x4"),
        engine=EngineOptions(device="cpu", tile=tile, engine="torch"),
        size=SizeOptions(scale=scale),
        max_memory=max_memory,
    )
    job = JobPlanner.for_arrays(options).plan(InputFile(b"", "large"), header)
    return PictureUpscaler(options).plan(job, streamed)


def test_a_streamed_result_needs_less_memory_than_its_pixels() -> None:
    huge = replace(LARGE, width=12000, height=8000)
    whole = 12000 * 8000 * 16 * 3
    assert planned(None, header=huge).memory_bytes < whole < 2 * whole < planned(None, False, header=huge).memory_bytes
    for scale in (3, 16):  # what is made first, to be reduced or enlarged again, passes in bands as well
        in_bands, at_once = (
            planned(None, streamed, scale=scale, header=huge).memory_bytes for streamed in (True, False)
        )
        assert in_bands < at_once / 3


def test_a_memory_limit_makes_tiles_smaller() -> None:
    free = planned(None)
    plans = [planned(limit) for limit in (10**10, 1_200_000_000, 900_000_000, 800_000_000)]
    assert plans[0].memory_bytes == free.memory_bytes
    tiles = [plan.tile for plan in plans]
    assert tiles == sorted(tiles, reverse=True) and len(set(tiles)) == 4
    for limit, plan in zip((1_200_000_000, 900_000_000, 800_000_000), plans[1:], strict=True):
        assert 0.9 * limit < plan.memory_bytes <= limit
        assert plan.largest_tile == plan.tile


def test_a_memory_limit_below_the_smallest_tile_is_refused() -> None:
    with pytest.raises(
        OutOfMemory, match=r"needs about 0\.\d+ GB, more than --max-memory 0\.3GB \(raise --max-memory\)"
    ):
        planned(300_000_000)
    with pytest.raises(OutOfMemory, match=r"\(raise --max-memory\)$"):  # of an array, which is no file
        planned(2 * 10**9, streamed=False)


@pytest.mark.parametrize(("name", "other"), [("large.png", ")"), ("large.webp", ", or write PNG, JPEG or TIFF)")])
def test_only_a_file_written_whole_can_have_another_format(
    name: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = Path(__file__).parents[2] / "examples" / "photo.png"
    limited = ["--offline", "-s", "4", "--max-memory", "1MB", "-o", str(tmp_path / name)]
    assert main(["upscale", str(photo), *limited]) == 1
    assert f"more than --max-memory 0.001GB (raise --max-memory{other}" in capsys.readouterr().err


def test_a_tile_size_from_the_user_is_not_changed() -> None:
    assert planned(1_200_000_000, tile=64).tile == 64
    with pytest.raises(
        OutOfMemory, match=r"--tile 1024 needs more memory than --max-memory allows \(--tile \d+ fits\)"
    ):
        planned(1_200_000_000, tile=1024)


def test_a_small_picture_is_a_single_tile_under_a_limit() -> None:
    assert planned(10**9, header=Header("PNG", 200, 100, 3, np.dtype(np.uint8))).tile == 0


def test_fewer_pixels_wait_under_a_memory_limit() -> None:
    assert [pixel_budget(limit) for limit in (None, 10**11, 800)] == [MOST_WAITING_BYTES, MOST_WAITING_BYTES, 100]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
@pytest.mark.parametrize(
    ("engine", "suffix", "limit"),
    [("torch", "png", 560), ("openvino", "jpg", 300), ("openvino", "tiff", 350), ("native", "png", 220)],
)
def test_the_memory_of_a_process_stays_below_the_limit(engine: str, suffix: str, limit: int, tmp_path: Path) -> None:
    """What `getrusage` says would be no less than the memory of this very process, which starts the other."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    if engine == "native" and (reason := why_unavailable()):
        pytest.skip(reason)
    from PIL import Image

    wave = np.add.outer(np.arange(900) % 251, np.arange(1200) % 241).astype(np.uint8)
    Image.fromarray(np.dstack([wave, wave.T.reshape(wave.shape), wave])).save(tmp_path / "large.jpg")
    script = (
        "import re, sys; from dsclora_cli.cli.app import main; code = main(sys.argv[1:]);"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "upscale", "large.jpg", "-m", "dsclora-x4", "--device", "cpu", "--json"]
    command += ["--engine", engine, "-o", f"out.{suffix}", "--max-memory", f"{limit}MB", "--overwrite"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(1 + (engine == "openvino")):  # its first run converts the network, which takes torch
        ran = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert json.loads(ran.stdout)["tile"] >= 16
    assert int(ran.stderr.split()[-1]) * 1024 <= limit * 10**6


@pytest.mark.parametrize(("format", "least"), [("WEBP", 42), ("AVIF", 44), ("JXL", 56), ("PPM", 0)])
def test_the_encoder_of_a_file_that_is_written_whole_counts(format: str, least: int) -> None:
    """In bytes for a pixel of the result, beyond two copies of the pixels."""
    small = replace(LARGE, width=1500, height=1000)
    base = planned(None, streamed=False, header=small).memory_bytes
    pixels = 1500 * 1000 * 16
    assert planned(None, streamed=False, header=replace(small, format=format)).memory_bytes - base == least * pixels


def test_a_result_that_is_written_whole_and_does_not_fit_is_refused_in_one_line(tmp_path, monkeypatch) -> None:
    source = save_photo(tmp_path / "a.png", (300, 200))
    monkeypatch.setattr(picture_module, "host_memory", lambda: 10**8)
    assert states(run([source])) == {"a.png": "done"}
    (result,) = run([source], replace(EMBEDDED, save=SaveOptions(format="WEBP")))
    assert result.status == "failed" and result.error.code == "out-of-memory"
    assert "because this format is written whole" in result.error.message
    assert result.error.hint.startswith("write PNG, JPEG or TIFF")
    assert not (tmp_path / "a_x4.webp").exists()
