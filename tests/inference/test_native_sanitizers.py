"""The native engine under AddressSanitizer and UndefinedBehaviorSanitizer: all types and many shapes of pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from native_build import COMPILER, built

ROOT = Path(__file__).parents[2]
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")

# Runs in a process of its own, without torch: the sanitizers replace the allocator of the whole process.
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.inference.native import library, weights
from dsclora_cli.inference.native.engine import NativeEngine

library.LIBRARY = Path(sys.argv[1])
random = np.random.default_rng(0)
shapes = [(1, 1), (3, 5), (8, 64), (9, 65), (37, 83), (5, 300)]
ran = 0
for channels, blocks, scale in [(26, 2, 4), (5, 1, 1), (1, 3, 3), (15, 1, 8), (33, 1, 2)]:
    tensors = {name: random.normal(0, 0.05, shape) for name, shape in weights._shapes(channels, blocks, scale)}
    engine = NativeEngine(weights.span_weights(tensors))
    for height, width in shapes:
        for dtype, high in [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)]:
            for bands, threads in [(3, 1), (1, 3)]:
                tile = (random.random((height, width, bands)) * high).astype(dtype)
                engine._threads = threads
                assert engine.start(tile, 0.0, high)().shape == (height * scale, width * scale, bands)
                ran += 1
    tile[0, 0] = np.nan
    try:
        engine(tile)
    except DscloraError:
        ran += 1
print("ran", ran, "with", engine.cpu)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the runtimes are loaded with LD_PRELOAD")
@pytest.mark.parametrize("cpu", ["", "avx2", "portable"])
def test_no_sanitizer_reports_an_error(cpu: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    ran = run_sanitized(SCRIPT, cpu, tmp_path_factory)
    if cpu and "this CPU cannot run" in ran.stderr:
        pytest.skip(f"this machine cannot run {cpu}")
    assert ran.returncode == 0 and ran.stdout.startswith("ran 185 with"), ran.stdout + ran.stderr[-4000:]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the runtimes are loaded with LD_PRELOAD")
def test_a_planted_error_is_reported(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A result that is a row too short: the proof that the sanitizers see what the library does to memory.
    last = "engine._threads = threads"
    assert last in SCRIPT
    short = "whole = np.empty; np.empty = lambda shape, dtype: whole(shape, dtype)[1:]"
    script = SCRIPT.replace(last, f"{last}; {short}")
    ran = run_sanitized(script, "", tmp_path_factory)
    assert ran.returncode != 0 and "heap-buffer-overflow" in ran.stderr


def run_sanitized(script: str, cpu: str, factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Run a script with the path of a library that was compiled with the sanitizers; or skip."""
    library = built(factory.getbasetemp().parent / "native-sanitizers", *SANITIZERS)
    environment = os.environ | {
        "LD_PRELOAD": runtimes(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory until the end
        "DSCLORA_NATIVE_CPU": cpu,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", script, str(library)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def runtimes() -> str:
    """Return the runtimes of the sanitizers, to be loaded before Python's own libraries; or skip."""
    assert COMPILER is not None
    names = [f"-print-file-name={name}" for name in ("libasan.so", "libubsan.so")]
    found = [subprocess.run([COMPILER, name], check=True, capture_output=True, text=True).stdout for name in names]
    if not all(Path(path).is_absolute() for path in found):
        pytest.skip(f"{COMPILER} has no shared libraries of the sanitizers")
    return " ".join(found).replace("\n", "")
