"""Training runs in other processes: killed, resumed, and shared between workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

TINY = (
    *("--channels", "4", "--blocks", "1", "--scale", "2", "--batch", "4", "--patch", "8", "--val-share", "0.3"),
    *("--compile", "off", "--device", "cpu", "--optimiser", "adam", "--learning-rate", "0.01", "--validate", "20"),
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    (tmp_path / "photos").mkdir()
    for index in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((40, 40), Image.Resampling.BICUBIC).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path / "photos"


def _command(photos: Path, run: Path, *more: str, workers: int = 1) -> list[str]:
    module = ["-m", "dsclora_cli", "train", "--data", str(photos), "--out", str(run), *TINY, *more]
    if workers == 1:
        return [sys.executable, *module]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers), *module]


def _log(run: Path) -> list[dict[str, float]]:
    file = run / "log.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _wait_for(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while not any(line["step"] >= step for line in _log(run)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_run_resumes_to_the_result_of_an_unbroken_run(photos: Path, tmp_path: Path) -> None:
    steps = ("--steps", "200", "--checkpoint-minutes", "0.001")
    subprocess.run(_command(photos, tmp_path / "through", *steps), check=True, capture_output=True)
    process = subprocess.Popen(_command(photos, tmp_path / "cut", *steps), stderr=subprocess.DEVNULL)
    _wait_for(tmp_path / "cut", 100, process)
    process.send_signal(signal.SIGSTOP)
    second = _command(photos, tmp_path / "cut", *steps, "--resume")
    other = subprocess.run(second, check=False, capture_output=True, text=True)
    assert (other.returncode, other.stderr.count("another process is training in")) == (2, 1)
    process.kill()
    process.wait()
    resumed = subprocess.run(
        _command(photos, tmp_path / "cut", *steps, "--resume"), check=True, capture_output=True, text=True
    )

    assert "resuming after" in resumed.stderr
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "through" / name).read_bytes()
    cut, through = (
        [(line["step"], line["loss"], line["psnr_y"]) for line in _log(tmp_path / run)] for run in ("cut", "through")
    )
    assert cut == through


def test_two_workers_learn_the_same_as_one(photos: Path, tmp_path: Path) -> None:
    steps = ("--steps", "12", "--validate", "4")  # rounding makes later steps drift apart
    for run, workers in (("one", 1), ("two", 2)):
        command = _command(photos, tmp_path / run, *steps, workers=workers)
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one, two = _log(tmp_path / "one"), _log(tmp_path / "two")

    assert [line["step"] for line in two] == [4, 8, 12]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    assert [line["psnr_y"] for line in two] == pytest.approx([line["psnr_y"] for line in one], abs=1e-3)


def test_a_failed_worker_ends_the_run_and_one_worker_resumes(photos: Path, tmp_path: Path) -> None:
    run, steps = tmp_path / "run", ("--steps", "4000", "--checkpoint-minutes", "0.001")
    command = _command(photos, run, *steps, workers=2)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    _wait_for(run, 40, process)
    workers = [child for child in psutil.Process(process.pid).children() if "dsclora_cli" in child.cmdline()]
    second = next(worker for worker in workers if worker.environ()["RANK"] == "1")
    second.send_signal(signal.SIGKILL)
    process.communicate(timeout=240)
    assert process.returncode != 0
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)

    reached = max(line["step"] for line in _log(run))
    alone = subprocess.Popen(_command(photos, run, *steps, "--resume"), stderr=subprocess.DEVNULL)
    _wait_for(run, int(reached) + 20, alone)
    alone.send_signal(signal.SIGTERM)
    assert alone.wait(timeout=60) == 130
