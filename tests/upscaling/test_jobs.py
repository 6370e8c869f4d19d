"""A picture is planned: size, name, format, weights, and the key of the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from batches import EMBEDDED, save_photo

from dsclora_cli.config import BatchOptions, EngineOptions, SaveOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import ImageError, WeightsError
from dsclora_cli.imaging.types import Header
from dsclora_cli.upscaling.jobs import Job, JobPlanner
from dsclora_cli.upscaling.manifest import record_result
from dsclora_cli.upscaling.sizes import AlreadyLargeEnough
from dsclora_cli.upscaling.types import FoundInputs, InputFile
from dsclora_cli.weights.resolve import FoundWeights

HEADER = Header("PNG", 12, 9, 4, np.dtype(np.uint16), notes=("the profile was odd",))


@pytest.fixture
def source(tmp_path: Path) -> InputFile:
    path = save_photo(tmp_path / "a.png")
    return InputFile(path, "a.png")


def planner(source: InputFile, options: UpscaleOptions = EMBEDDED) -> JobPlanner:
    return JobPlanner(FoundInputs((source,), many=False), options)


def job(source: InputFile, options: UpscaleOptions = EMBEDDED, header: Header = HEADER) -> Job:
    return planner(source, options).plan(source, header)


def test_a_job_holds_all_values_known_before_the_network(source: InputFile) -> None:
    made = job(source)
    assert made.target == Path(str(source.source)).with_name("a_x4.png")
    assert (made.size.width, made.size.height, made.size.passes) == (48, 36, (4,))
    assert (made.result.format, made.result.frames, made.model) == ("PNG", 1, "dsclora-x4")
    result = made.report("skipped", "said now")
    assert (result.input_size, result.output_size, result.scale) == ((12, 9), (48, 36), 4.0)
    assert result.warnings == ("the profile was odd", "said now")
    assert (result.device, result.tile, result.error) == (None, None, None)


@pytest.mark.parametrize(
    "options",
    [
        replace(EMBEDDED, size=SizeOptions(scale=3)),
        replace(EMBEDDED, save=SaveOptions(quality=80)),
        replace(EMBEDDED, save=SaveOptions(compression=9)),
        replace(EMBEDDED, save=SaveOptions(metadata="none")),
        replace(EMBEDDED, save=SaveOptions(format="tiff")),
        replace(EMBEDDED, engine=EngineOptions(ensemble=True)),
        replace(EMBEDDED, engine=EngineOptions(dtype="float16")),
    ],
)
def test_settings_that_change_the_result_change_the_key(source: InputFile, options: UpscaleOptions) -> None:
    assert job(source, options).key != job(source).key


@pytest.mark.parametrize(
    "options",
    [
        replace(EMBEDDED, size=SizeOptions(width=48)),
        replace(EMBEDDED, engine=EngineOptions(tile=64, threads=2, device="cpu")),
        replace(EMBEDDED, save=SaveOptions(strict=True)),
        replace(EMBEDDED, batch=BatchOptions(output="elsewhere/", overwrite=True, recursive=True)),
    ],
)
def test_settings_that_do_not_change_the_result_keep_the_key(source: InputFile, options: UpscaleOptions) -> None:
    assert job(source, options).key == job(source).key


def test_losses_of_the_format_are_reported_before_decoding(source: InputFile) -> None:
    lossy = job(source, replace(EMBEDDED, save=SaveOptions(format="jpg")))
    assert any("transparency" in warning for warning in lossy.warnings)
    with pytest.raises(ImageError, match="transparency"):
        job(source, replace(EMBEDDED, save=SaveOptions(format="jpg", strict=True)))
    with pytest.raises(ImageError, match="at most 16383 pixels"):
        job(source, replace(EMBEDDED, save=SaveOptions(format="webp")), replace(HEADER, width=5000))


def test_weights_are_searched_only_for_pictures_that_grow(source: InputFile) -> None:
    asked: list[int] = []

    def find(options: object, scale: int) -> FoundWeights:
        asked.append(scale)
        raise WeightsError("not here")

    options = replace(EMBEDDED, size=SizeOptions(long_edge=20))
    made = JobPlanner(FoundInputs((source,), many=False), options, find)
    with pytest.raises(AlreadyLargeEnough):
        made.plan(source, replace(HEADER, width=20))
    assert asked == []
    with pytest.raises(WeightsError):
        made.plan(source, HEADER)
    assert asked == [4]


def test_the_file_at_the_target_decides_whether_a_job_is_done(source: InputFile) -> None:
    made, plan = job(source), planner(source)
    assert plan.existing_result(made) is None
    assert made.target is not None
    made.target.write_bytes(b"somebody's")
    kept = plan.existing_result(made)
    assert kept is not None and kept.status == "kept"
    record_result(made.target, made.target, made.key)
    skipped = plan.existing_result(made)
    assert skipped is not None and skipped.status == "skipped"
    assert planner(source, replace(EMBEDDED, batch=BatchOptions(overwrite=True))).existing_result(made) is None
    assert plan.existing_result(replace(made, target=None)) is None
