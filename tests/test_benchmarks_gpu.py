"""The benchmark of GPUs runs on a CPU, with nothing installed but PyTorch, NumPy and Pillow."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dsclora_cli.weights.catalog import EMBEDDED
from dsclora_cli.weights.checkpoint import load_network

SCRIPTS = Path(__file__).parent.parent / "benchmarks"
WEIGHTS = EMBEDDED / "dsclora-x4.safetensors"

BARE = """
import runpy, sys
ABSENT = {"safetensors", "platformdirs", "psutil", "imagecodecs", "isal", "zlib_ng", "tifffile", "typer", "rich",
          "huggingface_hub", "openvino"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ABSENT else find(name, package)
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def bare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_bare", SCRIPTS / "gpu_bare.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_weights_are_copied_for_pytorch_where_safetensors_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = bare()
    assert script.readable(WEIGHTS, tmp_path) == WEIGHTS
    monkeypatch.setattr(script, "is_installed", lambda package: False)
    copied = script.readable(WEIGHTS, tmp_path)
    assert copied == tmp_path / "dsclora-x4.pth"
    expected = load_network(WEIGHTS).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_network(copied).state_dict().items())


@pytest.mark.slow
def test_every_section_that_a_cpu_can_do_runs_on_a_bare_machine(tmp_path: Path) -> None:
    sections = ["machine", "results", "logic", "network", "files", "kernels"]
    options = ["--device", "cpu", "--small", "--minutes", "5", "--out", str(tmp_path), "--sections", *sections]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DSCLORA_")}
    command = [sys.executable, "-c", BARE, (SCRIPTS / "gpu.py").as_posix(), *options]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert list(found) == sections
    assert max(value["levels"] for name, value in found["results"].items() if name.startswith("float32,")) <= 1
    assert max(found["logic"].values()) == 0
    assert all(times["eager float32"] > 0 for times in found["network"].values())
    assert all(parts["network"] > 0 for parts in found["files"].values())


@pytest.mark.slow
def test_without_a_gpu_the_script_says_that_nothing_is_measured(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, str(SCRIPTS / "gpu.py"), "--out", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "not measured" in ran.stderr
    assert "--device cpu --small" in ran.stderr and "Traceback" not in ran.stderr
