"""Processes that work on the same pictures share the work."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest
from batches import EMBEDDED, RepeatUpscaler, run, save_photo, states

from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import WeightsError
from dsclora_cli.upscaling.jobs import Job
from dsclora_cli.upscaling.manifest import ResultClaim
from dsclora_cli.upscaling.picture import PicturePlan
from dsclora_cli.upscaling.pipeline import BatchState, DevicePipeline

HOLD = """
import sys, time
from pathlib import Path
from dsclora_cli.upscaling.manifest import ResultClaim
claim = ResultClaim(Path(sys.argv[1]))
assert claim.taken
print("claimed", flush=True)
time.sleep(60)
"""


def test_a_result_is_claimed_once(tmp_path: Path) -> None:
    first, second = ResultClaim(tmp_path / "a.png"), ResultClaim(tmp_path / "a.png")
    assert (first.taken, second.taken, ResultClaim(tmp_path / "b.png").taken) == (True, False, True)
    second.release()
    assert not ResultClaim(tmp_path / "a.png").taken
    first.release()
    assert ResultClaim(tmp_path / "a.png").taken


def test_the_claim_of_a_killed_process_is_free(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "claimed\n"
        assert not ResultClaim(target).taken
        process.kill()
    assert ResultClaim(target).taken


def test_a_picture_that_another_process_upscales_is_passed_over_with_a_word(tmp_path: Path) -> None:
    inputs = [save_photo(tmp_path / name, seed=seed) for seed, name in enumerate(("a.png", "b.png"))]
    claim = ResultClaim(tmp_path / "a_x4.png")
    first, second = sorted(run(inputs, upscaler=RepeatUpscaler()), key=lambda result: result.input)
    assert (first.status, first.output, second.status) == ("skipped", None, "done")
    assert first.warnings == ("another process or thread is upscaling this picture; call or run again later",)
    claim.release()
    assert states(run(inputs, upscaler=RepeatUpscaler())) == {"a.png": "done", "b.png": "skipped"}


def test_a_result_that_was_finished_while_claiming_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = save_photo(tmp_path / "a.png")
    run([photo], upscaler=RepeatUpscaler())
    real, calls = DevicePipeline._report_existing, []

    def late(self: DevicePipeline, picture: object) -> bool:
        calls.append(1)
        return len(calls) > 1 and real(self, picture)

    monkeypatch.setattr(DevicePipeline, "_report_existing", late)
    upscaler = RepeatUpscaler(lambda frame: pytest.fail("the result exists"))
    assert states(run([photo], upscaler=upscaler)) == {"a.png": "skipped"}


def test_every_end_of_a_picture_frees_the_claim(tmp_path: Path) -> None:
    photo = save_photo(tmp_path / "a.png")

    def fail(frame: object) -> None:
        raise ValueError

    broken = tmp_path / "b.png"
    broken.write_bytes(photo.read_bytes()[:60])
    options = replace(EMBEDDED, batch=BatchOptions(overwrite=True))
    for upscaler in (RepeatUpscaler(fail), RepeatUpscaler()):
        run([photo, broken], options, upscaler)
        for name in ("a_x4.png", "b_x4.png"):
            claim = ResultClaim(tmp_path / name)
            assert claim.taken
            claim.release()


def test_the_end_of_a_run_frees_the_claims_on_pictures_that_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [save_photo(tmp_path / name, seed=seed) for seed, name in enumerate(("a.png", "b.png", "c.png"))]
    all_claimed, real = Barrier(2), BatchState.claim

    def claim(self: BatchState, target: Path) -> ResultClaim:
        taken = real(self, target)
        if target.name == "c_x4.png":
            all_claimed.wait(60)
        return taken

    class Absent(RepeatUpscaler):
        def plan(self, job: Job, streamed: bool) -> PicturePlan:
            all_claimed.wait(60)
            raise WeightsError("no weights")

    monkeypatch.setattr(BatchState, "claim", claim)
    with pytest.raises(WeightsError):
        run(photos, upscaler=Absent())
    monkeypatch.setattr(BatchState, "claim", real)
    assert set(states(run(photos, upscaler=RepeatUpscaler())).values()) == {"done"}


def test_without_a_place_for_locks_the_work_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSCLORA_STATE_DIR", str(tmp_path / "file"))
    assert states(run([save_photo(tmp_path / "a.png")], upscaler=RepeatUpscaler())) == {"a.png": "done"}
