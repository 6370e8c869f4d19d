"""The same input, settings and machine give the same bytes: for order, threads, tiles, memory, shards and processes."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from batches import save_animation, save_photo
from limited import PROGRAM, Limits, private_environment, run_limited
from PIL import Image

pytestmark = pytest.mark.slow

NAMES = ("a.png", "b.jpg", "c.tif", "d.webp", "moving.gif")
VARIANTS: dict[str, list[tuple[str, ...]]] = {
    "again": [()],
    "one thread": [("--threads", "1")],
    "three threads": [("--threads", "3")],
    "no tiles": [("--tile", "0")],
    "little memory": [("--max-memory", "900MB")],
    "two shards": [("--shard", "1/2"), ("--shard", "2/2")],
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed, name in enumerate(NAMES[:-1]):
        save_photo(folder / name, (90, 70), seed=seed)
    save_animation(folder / NAMES[-1])
    return folder


def results(
    pictures: Path, place: Path, runs: Sequence[Sequence[str]], names: Sequence[str] = NAMES
) -> dict[str, bytes]:
    """Run the command lines one after the other in a new place, and return the bytes of the results."""
    place.mkdir()
    inputs = [str(pictures / name) for name in names]
    for options in runs:
        command = (*PROGRAM, "upscale", *inputs, "-o", "out", "--offline", "--device", "cpu", *options)
        ended = run_limited(command, place, private_environment(place / "home"), Limits(seconds=300))
        assert ended.code == 0, ended.stderr
    return {path.name: path.read_bytes() for path in (place / "out").iterdir()}


@pytest.fixture(scope="module")
def plain(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    found = results(pictures, tmp_path_factory.mktemp("plain") / "run", [()])
    assert len(found) == len(NAMES)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_decides_only_the_speed_changes_no_byte(
    variant: str, pictures: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    found = results(pictures, tmp_path / "run", VARIANTS[variant])
    assert {name for name in plain if found.get(name) != plain[name]} == set()


def test_another_tile_size_changes_values_by_rounding_only(
    pictures: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    """The halo of a tile is shorter than the reach of the network: docs/performance.md gives the numbers."""
    found = results(pictures, tmp_path / "run", [("--tile", "32")])
    for name in ("a_x4.png", "c_x4.tif"):
        one, other = (np.asarray(Image.open(io.BytesIO(each[name])), np.int16) for each in (plain, found))
        assert np.abs(one - other).max() <= 1


def test_order_and_number_of_inputs_change_no_byte(pictures: Path, plain: dict[str, bytes], tmp_path: Path) -> None:
    assert results(pictures, tmp_path / "reversed", [()], NAMES[::-1]) == plain
    alone = results(pictures, tmp_path / "alone", [()], NAMES[1:2])
    assert alone == {"b_x4.jpg": plain["b_x4.jpg"]}


def test_two_processes_at_once_give_the_same_bytes_together(
    pictures: Path, plain: dict[str, bytes], tmp_path: Path
) -> None:
    environment = private_environment(tmp_path / "home")
    command = (*PROGRAM, "upscale", str(pictures), "-o", "out", "--offline", "--device", "cpu", "-q")
    both = [subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate(timeout=300)[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == plain
