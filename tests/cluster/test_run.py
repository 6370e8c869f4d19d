"""Runs on a real Ray cluster of this machine: nothing lost, nothing double, no half file, whatever happens."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from batches import EMBEDDED, leftovers, run, save_photo
from clusters import (
    ENGINE,
    PATIENCE,
    contents,
    fill_folder,
    kill_worker,
    local_cluster,
    require_ray,
    results_of,
    start,
    wait_for_files,
)

from dsclora_cli.cluster import pool
from dsclora_cli.cluster.listing import FileGroup
from dsclora_cli.cluster.run import upscale_on_cluster
from dsclora_cli.cluster.schedule import MOST_ATTEMPTS, Schedule
from dsclora_cli.cluster.worker import TaskReport, UpscaleWorker, WorkerFacts
from dsclora_cli.config import BatchOptions, ClusterOptions, EngineOptions
from dsclora_cli.errors import ErrorCode, UsageError
from dsclora_cli.upscaling.jobs import Job
from dsclora_cli.upscaling.picture import PicturePlan, PictureUpscaler
from dsclora_cli.upscaling.types import FileResult

pytestmark = pytest.mark.slow

OPTIONS = replace(EMBEDDED, engine=EngineOptions(engine=ENGINE, threads=1))

TWO = ("--executor", "ray", "--ray-workers", "2", "--ray-cpus", "1")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a cluster that all tests of this file share."""
    require_ray()
    with local_cluster() as address:
        yield address


@pytest.fixture
def by_value() -> Iterator[None]:
    """Workers of this file reach the cluster, where nobody can import the file."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def on_cluster(address: str, source: Path, output: Path, workers: int = 2) -> list[FileResult]:
    options = replace(OPTIONS, batch=BatchOptions(output=str(output), recursive=True))
    return list(upscale_on_cluster([source], options, ClusterOptions(address, workers, cpus=1)))


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    """The cluster of a plain run: two workers, one killed in the middle of 200 pictures."""
    require_ray()
    source, output = fill_folder(tmp_path / "in", 200), tmp_path / "out"
    process = start(source, "-o", output, *TWO)
    wait_for_files(output, 40, process)
    kill_worker(process)
    out, err = process.communicate(timeout=PATIENCE)
    results = results_of(out)
    assert (process.returncode, len(results), len({each["input"] for each in results})) == (0, 200, 200)
    assert {each["status"] for each in results} <= {"done", "skipped"}
    assert max(each["attempts"] for each in results) == 2, "the pictures of the lost task were begun again"
    assert [line for line in err.splitlines() if not re.search(r" -> |already done|done.* in ", line)] == []
    some = sorted(source.iterdir())[::10]
    run(some, replace(OPTIONS, batch=BatchOptions(output=str(tmp_path / "here"))))
    # As after every kill, the hidden file of the picture at work may stay for an hour.
    assert len(contents(output)) == 200 and len(leftovers(output)) <= 1
    assert contents(tmp_path / "here").items() <= contents(output).items(), "equal byte for byte"


def test_an_interrupted_run_stops_cleanly_and_resumes(tmp_path: Path, address: str) -> None:
    source, output = fill_folder(tmp_path / "in", 120), tmp_path / "out"
    arguments = (source, "-o", output, *TWO, "--ray-address", address)
    process = start(*arguments)
    wait_for_files(output, 20, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    *results, error = results_of(out)
    assert (process.returncode, error["error"]["code"]) == (130, "interrupted")
    counts = Counter(each["status"] for each in results)
    assert counts.total() == len({each["input"] for each in results}) == 120
    assert counts["done"] == len(contents(output)) >= 20 and counts["not-reached"] > 0
    assert leftovers(output) == [] and "interrupted: " in err.splitlines()[-1]
    process = start(*arguments)
    out, _ = process.communicate(timeout=PATIENCE)
    again = Counter(each["status"] for each in results_of(out))
    assert (process.returncode, again) == (0, {"done": 120 - counts["done"], "skipped": counts["done"]})


def test_two_drivers_share_a_destination(tmp_path: Path, address: str) -> None:
    source, output = fill_folder(tmp_path / "in", 60), tmp_path / "out"
    drivers = [start(source, "-o", output, *TWO, "--ray-address", address) for _ in range(2)]
    results = [result for driver in drivers for result in results_of(driver.communicate(timeout=PATIENCE)[0])]
    assert [driver.returncode for driver in drivers] == [0, 0]
    done = Counter(each["input"] for each in results if each["status"] == "done")
    assert set(done.values()) == {1} and len(done) == 60, "each picture is upscaled once"
    assert Counter(each["status"] for each in results) == {"done": 60, "skipped": 60}
    assert len(contents(output)) == 60 and leftovers(output) == []


class HungryUpscaler(PictureUpscaler):
    """Engines without memory for one picture."""

    def plan(self, job: Job, streamed: bool) -> PicturePlan:
        if "hungry" in job.file.name:
            raise MemoryError
        return super().plan(job, streamed)


class ShortOfMemory(UpscaleWorker):
    """A worker that the system kills for the memory of one picture, and that has no memory for another picture."""

    def upscale(self, files: FileGroup) -> TaskReport:
        if any("greedy" in file.name for file in files):
            os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does, and Ray's own monitor
        self._upscaler = self._upscaler or HungryUpscaler(self._options)
        return super().upscale(files)


def test_workers_without_memory_cost_only_the_pictures_that_need_it(
    tmp_path: Path, address: str, by_value: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = fill_folder(tmp_path / "in", 12), tmp_path / "out"
    for name in ("greedy", "hungry"):
        save_photo(source / f"z_{name}.png")
    monkeypatch.setattr(pool, "UpscaleWorker", ShortOfMemory)
    monkeypatch.setattr("dsclora_cli.cluster.schedule._PAUSES", (0.1, 0.1))
    results = {Path(result.input).stem: result for result in on_cluster(address, source, output)}
    greedy, hungry = results.pop("z_greedy"), results.pop("z_hungry")
    assert (greedy.status, greedy.attempts, greedy.error.code) == ("failed", MOST_ATTEMPTS, ErrorCode.WORKER_LOST)
    assert greedy.error.message.startswith("every worker that began the picture was lost: the process was killed")
    assert (hungry.status, hungry.attempts, hungry.error.code) == ("failed", MOST_ATTEMPTS, ErrorCode.OUT_OF_MEMORY)
    assert Counter(result.status for result in results.values()) <= Counter(done=12, skipped=12)
    assert len(results) == len(contents(output)) == 12 and leftovers(output) == []


class HangingUpscaler(PictureUpscaler):
    """Engines that never finish a picture: the thread of the network waits for ever."""

    def plan(self, job: Job, streamed: bool) -> PicturePlan:
        if "endless" in job.file.name:
            time.sleep(1e6)
        return super().plan(job, streamed)


class Hanging(UpscaleWorker):
    """A worker that hangs in a picture, and a worker whose whole process stops in another picture."""

    _hangs = False

    def idle_seconds(self) -> float:
        # A busy machine may need a minute to open an engine, which is no hanging here.
        return super().idle_seconds() if self._hangs else 0.0

    def upscale(self, files: FileGroup) -> TaskReport:
        self._hangs = any("endless" in file.name for file in files)
        if any("frozen" in file.name for file in files):
            os.kill(os.getpid(), signal.SIGSTOP)
        self._upscaler = self._upscaler or HangingUpscaler(self._options)
        return super().upscale(files)


def test_a_worker_that_hangs_is_replaced_and_costs_only_the_picture(
    tmp_path: Path, address: str, by_value: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = fill_folder(tmp_path / "in", 8), tmp_path / "out"
    for name in ("endless", "frozen"):
        save_photo(source / f"z_{name}.png")
    monkeypatch.setattr(pool, "UpscaleWorker", Hanging)
    monkeypatch.setattr(pool, "_REPLY_SECONDS", 15.0)
    monkeypatch.setattr("dsclora_cli.cluster.schedule.MOST_ATTEMPTS", 2)
    options = replace(OPTIONS, batch=BatchOptions(output=str(output)))
    cluster = ClusterOptions(address, 2, cpus=1, timeout=5)
    results = {Path(each.input).stem: each for each in upscale_on_cluster([source], options, cluster)}
    for name in ("endless", "frozen"):
        failed = results.pop(f"z_{name}")
        assert (failed.status, failed.attempts, failed.error.code) == ("failed", 2, ErrorCode.WORKER_LOST)
        assert failed.error.message == "every worker that began the picture was lost: no progress within 5 seconds"
        assert "--ray-timeout" in failed.error.hint
    assert {result.status for result in results.values()} <= {"done", "skipped"}
    assert len(results) == len(contents(output)) == 8 and leftovers(output) == []


def test_a_destination_that_refuses_writes_for_a_while_costs_a_second_attempt(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = fill_folder(tmp_path / "in" / "sub", 10).parent, tmp_path / "out"
    output.mkdir()
    # A file in the place of the folder: for root, no permission would refuse anything.
    (output / "sub").touch()
    real = Schedule._wait

    def mended(self: Schedule, *arguments: object) -> None:
        real(self, *arguments)
        if (output / "sub").is_file():
            (output / "sub").unlink()

    monkeypatch.setattr(Schedule, "_wait", mended)
    results = on_cluster(address, source, output)
    assert Counter(result.status for result in results) == {"done": 10}
    assert {result.attempts for result in results} == {1, 2}
    assert len(contents(output)) == 10 and leftovers(output) == []


class Older(UpscaleWorker):
    """A worker with another version."""

    def describe(self) -> WorkerFacts:
        return WorkerFacts("node-7", "0.0.9")


def test_a_cluster_with_another_version_is_refused(
    tmp_path: Path, address: str, by_value: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "UpscaleWorker", Older)
    with pytest.raises(UsageError, match=r"node-7 has dsclora 0\.0\.9, and this machine .*install the same versions"):
        on_cluster(address, fill_folder(tmp_path / "in", 1), tmp_path / "out")
