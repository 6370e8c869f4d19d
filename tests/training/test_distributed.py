"""How processes share a batch, and how all processes stop; tests/cli/test_train_processes.py compares the results."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from training import photographs

from dsclora_cli.errors import UsageError
from dsclora_cli.training.distributed import ProcessGroup, local_device

CPU = torch.device("cpu")


def test_the_shares_of_all_processes_cover_a_batch_once() -> None:
    every = [share for rank in range(2) for share in ProcessGroup(CPU, rank, 2).shares(12, 3)]

    assert [sample for share in every for sample in range(12)[share]] == list(range(12))
    assert ProcessGroup(CPU).shares(12, 1) == [slice(0, 12)]
    with pytest.raises(UsageError, match=r"a batch of 12 does not divide among 5 workers in 1 parts \(use a multiple"):
        ProcessGroup(CPU, 0, 5).shares(12, 1)


def test_every_process_on_a_machine_gets_another_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert local_device("cuda") == "cuda"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device("cuda") == "cuda:3"
    assert local_device("cpu") == "cpu"


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start an endless run of two processes in `tmp_path / "run"`, and kill all processes after the test."""
    photographs(tmp_path / "photos")
    command = (
        "-m torch.distributed.run --standalone --nproc-per-node 2 -m dsclora_cli train --data photos --out run -q "
        "--channels 4 --blocks 1 -s 2 --patch 8 --batch 4 --device cpu --compile off --steps 100000 --validate 10"
    )
    process = subprocess.Popen(
        [sys.executable, *command.split()], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    yield process
    if process.poll() is None:
        for one in (*psutil.Process(process.pid).children(recursive=True), process):
            one.kill()
        process.wait()


@pytest.mark.slow
def test_a_stop_ends_all_processes_and_writes_a_checkpoint(two_workers, tmp_path: Path) -> None:
    while not (tmp_path / "run" / "last.safetensors").exists():
        assert two_workers.poll() is None
        time.sleep(0.05)
    two_workers.send_signal(signal.SIGTERM)
    two_workers.wait(timeout=120)

    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["progress"]["step"] >= 10
