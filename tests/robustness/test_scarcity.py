"""Scarce resources: a run ends well or in words, never with a bug, and nothing half-written stays."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from batches import save_photo
from limited import PROGRAM, Limits, private_environment, run_limited

from dsclora_cli.errors import ErrorCode

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs the limits of Linux")]

SCARCE = {
    **{f"files of {size} bytes": Limits(file_size=size) for size in (1, 500, 3000, 20_000)},
    **{f"{count} descriptors": Limits(files=count) for count in (24, 32, 48, 96)},
    **{f"{size} MB of addresses": Limits(address_space=size << 20) for size in (300, 500, 800, 1500)},
    **{f"{size} MB of data": Limits(data=size << 20) for size in (60, 120, 250)},
}


@pytest.mark.parametrize("name", SCARCE)
def test_scarce_resources_end_a_run_in_words(name: str, tmp_path: Path) -> None:
    for seed, suffix in enumerate(("png", "jpg", "tif", "webp")):
        save_photo(tmp_path / "in" / f"{seed}.{suffix}", (120, 90), seed=seed)
    command = (*PROGRAM, "upscale", "in", "-o", "out", "--offline", "--device", "cpu", "--json", "-s", "2")
    ended = run_limited(command, tmp_path, private_environment(tmp_path / "home"), SCARCE[name])
    shown = f"{ended.code} {ended.stdout[-600:]} {ended.stderr[-600:]}"
    assert "this is a bug" not in ended.stdout + ended.stderr, shown
    results = [json.loads(line) for line in ended.stdout.splitlines() if line.endswith("}")]
    assert all(result["error"] is None or result["error"]["code"] in set(ErrorCode) for result in results), shown
    done = {result["output"] for result in results if result.get("status") == "done"}
    there = {f"out/{path.name}" for path in tmp_path.glob("out/*")} if (tmp_path / "out").exists() else set()
    assert done == there, shown
