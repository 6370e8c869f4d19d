"""Devices and dtypes by name: an absent device is an error, and never replaced by another device."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dsclora_cli import host
from dsclora_cli.errors import ExitCode, UsageError
from dsclora_cli.host import host_memory
from dsclora_cli.inference import system
from dsclora_cli.inference.device import every_gpu, free_memory, resolve_device, resolve_dtype
from dsclora_cli.inference.system import may_have_gpu
from dsclora_cli.models.span import SpanConfig

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")
SPAN = SpanConfig().descriptor


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the machine has two CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the machine has no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_cpu_without_a_gpu() -> None:
    assert resolve_device("auto") == resolve_device("cpu") == CPU


@pytest.mark.usefixtures("gpus")
def test_cuda_devices_have_names_with_an_index() -> None:
    assert resolve_device("auto") == resolve_device("cuda") == resolve_device("cuda:0") == CUDA
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="no device cuda:2, only 2 GPUs"):
        resolve_device("cuda:2")


@pytest.mark.usefixtures("gpus")
def test_every_gpu_is_listed() -> None:
    assert every_gpu() == ("cuda:0", "cuda:1")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_an_absent_device_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="--device cpu") as error:
        resolve_device(name)
    assert error.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "mps:1", ""])
def test_an_unknown_name_lists_the_choices(name: str) -> None:
    with pytest.raises(UsageError, match="choose auto, cpu, cuda, cuda:N or mps"):
        resolve_device(name)


def test_auto_is_float16_on_cuda_only() -> None:
    assert resolve_dtype("auto", CPU, SPAN) is torch.float32
    assert resolve_dtype("auto", CUDA, SPAN) is torch.float16
    assert resolve_dtype("auto", MPS, SPAN) is torch.float32
    assert resolve_dtype("float16", MPS, SPAN) is torch.float16
    with pytest.raises(UsageError, match="float16 is not offered on cpu"):
        resolve_dtype("float16", CPU, SPAN)
    with pytest.raises(UsageError, match="choose auto, float32 or float16"):
        resolve_dtype("bfloat16", CUDA, SPAN)


@pytest.mark.parametrize(
    ("groups", "place", "names"),
    [
        ("0::/", "", ("max", "current", "inactive_file")),
        ("0::/slurm/job/step", "slurm/job", ("max", "current", "inactive_file")),
        ("0::/../../host/place", "", ("max", "current", "inactive_file")),
        (None, "", ("max", "current", "inactive_file")),
        ("3:cpu:/job\n2:cpuset,memory:/job", "memory/job", ("limit_in_bytes", "usage_in_bytes", "total_inactive_file")),
    ],
)
def test_host_memory_respects_the_limit_of_a_container_and_of_a_job(
    groups: str | None, place: str, names: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(host, "_OWN_GROUPS", tmp_path / "groups")
    if groups is not None:
        (tmp_path / "groups").write_text(f"{groups}\n")
    limit, used, cached = names
    folder = tmp_path / "cgroup" / place
    folder.mkdir(parents=True)
    unlimited = host_memory()
    (folder / f"memory.{used}").write_text("1000\n")
    (folder / f"memory.{limit}").write_text("max\n")
    assert host_memory() > 5000
    (folder / f"memory.{limit}").write_text("6000\n")
    assert host_memory() == free_memory(CPU) == 5000
    (folder / "memory.stat").write_text(f"anon 400\n{cached} 600\n")
    assert host_memory() == 5600
    assert unlimited > 5600


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of this kind")
@pytest.mark.parametrize(("kind", "field"), [("RLIMIT_DATA", "data"), ("RLIMIT_AS", "vms")])
def test_host_memory_respects_the_limits_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, field: str
) -> None:
    import resource

    monkeypatch.setattr(host, "_CGROUP", tmp_path)
    limits = {getattr(resource, kind): (10_000, 10_000)}
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits.get(which, (resource.RLIM_INFINITY, 0)))
    used = SimpleNamespace(**{"data": 1, "vms": 1, field: 4_000})
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(memory_info=lambda: used))
    assert host_memory() == 6_000
    used.data = used.vms = 20_000
    assert host_memory() == 0


def test_a_gpu_is_possible_only_with_a_driver_and_a_gpu_build_of_torch(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system.sys, "platform", "linux")
    monkeypatch.setattr(system, "_GPU_FILES", (tmp_path / "nvidiactl",))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu130")
    assert not may_have_gpu()
    (tmp_path / "nvidiactl").touch()
    assert may_have_gpu()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    assert not may_have_gpu()
