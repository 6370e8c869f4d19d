"""A driver of a cluster that is killed: nothing torn, nothing lost, and the bytes of a run on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import leftovers
from clusters import PATIENCE, contents, fill_folder, local_cluster, require_ray, start, wait_for_files

pytestmark = pytest.mark.slow

COUNT = 40


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    require_ray()
    with local_cluster() as address:
        yield address


def finish(*arguments: object) -> None:
    """Run a command to its end."""
    process = start(*arguments)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error


@pytest.mark.parametrize("moment", [1, 9, 20, 33])
def test_a_killed_driver_leaves_whole_results_and_the_rest_follows(tmp_path: Path, address: str, moment: int) -> None:
    source, output, alone = fill_folder(tmp_path / "in", COUNT), tmp_path / "out", tmp_path / "alone"
    cluster = ("--executor", "ray", "--ray-address", address, "--ray-workers", "2", "--ray-cpus", "1")
    process = start(source, "-o", output, *cluster)
    wait_for_files(output, moment, process)
    process.kill()
    process.communicate(timeout=PATIENCE)
    left = contents(output)
    finish(source, "-o", output, *(cluster if moment % 2 else ()))
    finish(source, "-o", alone)
    whole = contents(alone)
    assert len(left) >= moment and left.items() <= whole.items()
    assert contents(output) == whole and leftovers(output) == []
