"""What `gpu.py` needs on a machine with little more than PyTorch, NumPy and Pillow: pictures, weights, folders."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

MEMORY = 8 << 30
"""Bytes of free memory to report where nothing can measure the memory."""


def is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return package in sys.modules or importlib.util.find_spec(package) is not None


def make_do() -> Path:
    """Keep dsclora's own files in a new temporary folder, stand in for psutil where absent, and return the folder."""
    folder = Path(tempfile.mkdtemp(prefix="dsclora-gpu-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # With the variables set, no module asks platformdirs.
    for name in ("CONFIG", "STATE", "CACHE"):
        os.environ[f"DSCLORA_{name}_DIR"] = str(folder / name.lower())
    if not is_installed("psutil"):
        stand_in = ModuleType("psutil")
        stand_in.virtual_memory = lambda: SimpleNamespace(available=free_memory())  # type: ignore[attr-defined]
        stand_in.Process = lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(vms=0, data=0))  # type: ignore[attr-defined]
        sys.modules["psutil"] = stand_in
    return folder


def free_memory() -> int:
    """Return the free bytes that Linux reports; elsewhere a careful guess."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return MEMORY
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), MEMORY)


def readable(path: Path, folder: Path) -> Path:
    """Return a file of weights that can be read here: without safetensors, a copy in the format of PyTorch."""
    if is_installed("safetensors"):
        return path
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, not F32")
        first, last = (start + offset for offset in entry["data_offsets"])
        tensors[name] = torch.frombuffer(bytearray(data[first:last]), dtype=torch.float32).reshape(entry["shape"])
    copied = folder / f"{path.stem}.pth"
    torch.save(tensors, copied)
    return copied


def texture(height: int, width: int, seed: int = 0) -> Pixels:
    """Return a picture `(H, W, 3)` with edges and grain at many scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for weight, edge in ((0.4, 4), (0.3, 16), (0.2, 64), (0.1, 256)):
        layer = Image.fromarray(rng.integers(0, 256, (edge, edge, 3), np.uint8))
        total += weight * np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return total.astype(np.uint8)
