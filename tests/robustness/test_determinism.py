"""Run the short form of the comparison of bytes; `run.py determinism` is the long form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clusters import require_ray
from determinism import (
    CLUSTER,
    DeterminismTally,
    Upscaled,
    check_cluster,
    check_ways,
    plain_results,
    repeat_encodings,
    repeat_job,
    save_pictures,
    ways,
)
from pictures import saved_still

pytestmark = pytest.mark.slow

ENGINE = "auto"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("determinism")
    save_pictures(folder / "pictures", (70, 50))
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> dict[str, Upscaled]:
    found = plain_results(folder, ENGINE)
    assert len(found) == len(list((folder / "pictures").iterdir()))
    return found


@pytest.mark.parametrize("kind", ways(("",)))
def test_what_decides_only_the_speed_changes_no_byte(kind: str, folder: Path, plain: dict[str, Upscaled]) -> None:
    tally = check_ways(kind, folder, ENGINE, plain, most=2)
    assert tally.findings == [] and tally.files >= len(plain)
    # Another tile size may change a value by one level, because the halo of a tile is shorter than the reach of
    # the network: docs/performance.md gives the numbers.
    assert tally.equal >= tally.files - tally.retiled


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG", "WEBP", "JPEG2000", "GIF"])
def test_encoders_write_the_same_bytes_whatever_is_left_in_memory(format: str) -> None:
    tally = repeat_encodings(format, 120)
    assert (tally.findings, tally.equal) == ([], 120)


def test_the_comparison_sees_another_byte_and_a_missing_file(plain: dict[str, Upscaled]) -> None:
    tally = DeterminismTally()
    changed = {name: Upscaled(result.data[:-1], result.tile) for name, result in plain.items()}
    tally.compare("changed", plain | {"x.png": Upscaled(b"", 0)}, changed)
    assert tally.findings == [
        "changed: ['x.png'] are missing",
        *(f"changed: {name} has other bytes" for name in changed),
    ]
    assert (tally.files, tally.equal) == (len(plain), 0)


def test_the_comparison_measures_deep_pictures_on_other_tiles() -> None:
    gray = np.full((4, 5, 3), 30_000, np.uint16)
    for added, levels in ((257, 1.0), (400, 1.6)):
        tally = DeterminismTally()
        plain, other = (Upscaled(saved_still(gray + more, "TIFF"), tile) for more, tile in ((0, 32), (added, 64)))
        tally.compare("tiles", {"a.tif": plain}, {"a.tif": other})
        assert tally.findings == ([f"tiles: a.tif is {levels} levels away"] if levels > 1 else [])
        assert (tally.retiled, tally.levels) == (1, levels)


def test_a_cluster_gives_the_bytes_of_a_single_machine(folder: Path, plain: dict[str, Upscaled]) -> None:
    require_ray()
    tally = check_cluster(CLUSTER, folder, ENGINE, plain, most=2)
    assert tally.findings == [] and tally.equal == tally.files >= 2 * len(plain)


@pytest.mark.parametrize("name", ["video", "training"])
def test_another_command_gives_the_same_bytes_again(name: str, tmp_path: Path) -> None:
    tally = repeat_job(name, 1, tmp_path)
    assert tally.findings == [] and tally.equal == tally.files > 0
