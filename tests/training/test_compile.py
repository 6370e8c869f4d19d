"""When a network is compiled, and what happens where compiling fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from training import photographs

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.training import compile as compile_module
from dsclora_cli.training.compile import can_compile, compiled

CPU = torch.device("cpu")


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the set of installed programs, empty at first; tests add to the set. CXX is unset."""
    found: set[str] = set()
    monkeypatch.setattr(compile_module.shutil, "which", lambda name: f"/usr/bin/{name}" if name in found else None)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return found


def test_compiling_on_a_cpu_needs_a_compiler(tools: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not can_compile(CPU)
    tools.add("my-c++")
    monkeypatch.setenv("CXX", "my-c++")
    assert can_compile(CPU)
    monkeypatch.delenv("CXX")
    tools.add("g++")
    assert can_compile(CPU)
    assert not can_compile(torch.device("mps"))


def test_compiling_on_cuda_needs_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    for packages in ({"triton"}, {"numpy"}):
        monkeypatch.setattr(
            compile_module, "find_spec", lambda name, packages=packages: name if name in packages else None
        )
        assert can_compile(torch.device("cuda")) is ("triton" in packages)


def test_without_a_compiler_auto_does_not_compile_and_on_is_an_error(tools: set[str]) -> None:
    module = nn.Identity()

    assert compiled(module, "auto", CPU, print) is module
    with pytest.raises(UsageError, match=r"cannot compile for cpu here \(install a C\+\+ compiler, or"):
        compiled(module, "on", CPU, print)
    tools.add("g++")
    assert compiled(module, "off", CPU, print) is module


def _failing(module: nn.Module) -> object:
    def forward(*inputs: Tensor) -> Tensor:
        raise RuntimeError("C++ compile error\n\nCommand: g++ ...")

    return forward


def test_auto_reports_once_where_compiling_fails(tools: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("g++")
    monkeypatch.setattr(torch, "compile", _failing)
    notes: list[str] = []
    forward = compiled(nn.Identity(), "auto", CPU, notes.append)

    assert [forward(torch.ones(1)).item() for _ in range(3)] == [1.0] * 3
    assert notes[0].startswith("compiling the network")
    assert notes[1:] == ["torch.compile failed, so the network is trained uncompiled: C++ compile error"]


def test_on_raises_where_compiling_fails(tools: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("g++")
    monkeypatch.setattr(torch, "compile", _failing)
    with pytest.raises(DscloraError, match=r"^torch.compile failed: C\+\+ compile error \(use --compile off\)$"):
        compiled(nn.Identity(), "on", CPU, print)(torch.ones(1))


def test_errors_of_the_network_are_raised_unchanged(tools: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    tools.add("g++")
    monkeypatch.setattr(torch, "compile", lambda module: module)
    notes: list[str] = []
    forward = compiled(nn.Linear(2, 2), "auto", CPU, notes.append)

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        forward(torch.ones(1, 3))
    assert len(notes) == 1


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(CPU), reason="needs a C++ compiler")
@pytest.mark.parametrize("broken", [False, True])
def test_a_run_compiles_and_continues_where_the_compiler_is_broken(broken: bool, tmp_path: Path) -> None:
    photographs(tmp_path / "photos")
    tiny = "--channels 4 --blocks 1 -s 2 --patch 8 --batch 4 --validate 4 --steps 4 --optimiser adam --device cpu"
    tiny += " --threads 1 --compile"
    losses = {}
    for choice in ("off", "auto"):
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
        if broken:
            environment["CXX"] = "/bin/false"
        arguments = ["train", "--data", "photos", "--out", choice, *tiny.split(), choice, "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "dsclora_cli", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        losses[choice] = [line for line in done.stdout.splitlines() if '"loss"' in line]
        assert ("torch.compile failed, so the network is trained uncompiled" in done.stderr) is (
            broken and choice == "auto"
        )

    assert [json.loads(line)["loss"] for line in losses["auto"]] == pytest.approx(
        [json.loads(line)["loss"] for line in losses["off"]], rel=1e-3
    )
