"""Errors at random places of the pipeline: every input gets one result, no thread hangs, no file is left behind."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from batches import EMBEDDED, RepeatUpscaler, leftovers, run, save_animation, save_photo

from dsclora_cli.config import BatchOptions
from dsclora_cli.errors import ImageError, OutOfMemory
from dsclora_cli.imaging.types import StreamedFrame
from dsclora_cli.upscaling import batch as batch_module
from dsclora_cli.upscaling import picture as picture_module
from dsclora_cli.upscaling import pipeline as pipeline_module

_BUDGETS = (1, 5_000, 100_000, 1 << 28)
"""Bytes: from one band at a time to everything at once."""


class Unreliable(RepeatUpscaler):
    """A PictureUpscaler whose plans and tiles fail at random."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def plan(self, job, streamed):
        if self._rng.random() < 0.05:
            raise OutOfMemory("no tile fits")
        return super().plan(job, streamed)

    def upscale(self, frame, plan, on_progress, on_warning) -> StreamedFrame:
        whole = super().upscale(frame, plan, on_progress, on_warning)

        def bands():
            for band in whole.bands():
                if self._rng.random() < 0.03:
                    raise OutOfMemory("a tile does not fit")
                yield band
            on_warning("after the last band")

        return StreamedFrame(whole.shape, bands(), whole.duration_ms)


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Return photos, animations, a broken picture, a truncated animation and a missing file."""
    files = [save_photo(tmp_path / f"{number}.png", (40 + 10 * number, 30), seed=number) for number in range(6)]
    files += [save_animation(tmp_path / "a.gif", 6, (30, 20)), save_animation(tmp_path / "b.gif", 3, (60, 50))]
    for name, whole in (("broken.png", files[0]), ("half.gif", files[6])):
        data = whole.read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        files.append(tmp_path / name)
    return [*files, tmp_path / "absent.png"]


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", range(16))
def test_random_errors_lose_no_result(
    seed: int, inputs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    save_result = pipeline_module.save_result

    def unreliable_save(target, header, frames, options, key, source):
        if rng.random() < 0.1:
            next(next(iter(frames)).bands())
            raise ImageError("the disk is full")
        return save_result(target, header, frames, options, key, source)

    budget, devices = rng.choice(_BUDGETS), rng.choice((1, 1, 2, 3))
    monkeypatch.setattr(pipeline_module, "save_result", unreliable_save)
    monkeypatch.setattr(pipeline_module, "pixel_budget", lambda limit: budget)
    monkeypatch.setattr(picture_module, "PictureUpscaler", lambda options: Unreliable(rng))
    monkeypatch.setattr(batch_module, "list_devices", lambda options: ("cpu",) * devices)

    out = tmp_path / "out"
    results = run(inputs, replace(EMBEDDED, batch=BatchOptions(output=f"{out}/")))

    assert sorted(result.input for result in results) == sorted(map(str, inputs))
    for result in results:
        assert result.status in {"done", "failed"}
        # The warning after the last band is never lost: the encoder reads to the end.
        assert (result.status == "done") == ("after the last band" in result.warnings and result.error is None)
    assert leftovers(out) == []
    assert not any(thread.name in {"dsclora-network", "dsclora-encode"} for thread in threading.enumerate())
