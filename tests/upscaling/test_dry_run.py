"""A dry run reports what a run would do, and does nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from batches import EMBEDDED, run, save_animation, save_photo
from PIL import Image

from dsclora_cli import upscale_files
from dsclora_cli.config import BatchOptions, EngineOptions, ModelOptions, SaveOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import UsageError
from dsclora_cli.paths import state_dir
from dsclora_cli.upscaling import dry_run
from dsclora_cli.upscaling.dry_run import plan_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "in"
    save_photo(top / "a.jpg")
    save_photo(top / "b.png", seed=1)
    save_animation(top / "c.gif")
    (top / "d.png").write_bytes(b"no picture")
    return top


def test_the_plan_of_every_input(folder: Path) -> None:
    run([folder / "a.jpg"])
    before = {path: path.stat().st_mtime_ns for path in [*folder.iterdir(), *state_dir().rglob("*")]}
    options = replace(EMBEDDED, engine=EngineOptions(tile=4))
    plans = {Path(plan.input).name: plan for plan in plan_files([folder], options)}
    assert {name: plan.action for name, plan in plans.items()} == {
        "a_x4.jpg": "leave-out",
        "a.jpg": "skip",
        "b.png": "upscale",
        "c.gif": "upscale",
        "d.png": "fail",
    }
    plan = plans["b.png"]
    assert plan.output == str(folder / "b_x4.png")
    assert (plan.input_size, plan.output_size, plan.passes) == ((12, 9), (48, 36), (4,))
    assert (plan.tile, plan.tiles) == (4, 9)
    assert plan.memory_bytes is not None and plan.memory_bytes > 48 * 36 * 3
    assert plan.seconds is not None
    assert plan.disk_bytes is not None and 0 < plan.disk_bytes <= 48 * 36 * 3
    assert plans["c.gif"].frames == 4
    assert "known format" in str(plans["d.png"].error)
    assert {path: path.stat().st_mtime_ns for path in [*folder.iterdir(), *state_dir().rglob("*")]} == before


def test_time_grows_with_the_pixels_of_all_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run._DryRun, "_seconds_per_pixel", 0.001)
    save_photo(folder / "large.png", (300, 200))
    (one_pass,) = plan_files([folder / "large.png"], EMBEDDED)
    (two_passes,) = plan_files([folder / "large.png"], replace(EMBEDDED, size=SizeOptions(scale=16)))
    assert two_passes.passes == (4, 4)
    assert (one_pass.seconds, two_passes.seconds) == (60, 60 * (1 + 16))


def test_existing_and_large_enough_pictures_are_not_planned_for_upscaling(folder: Path) -> None:
    run([folder / "a.jpg"])
    (kept,) = plan_files([folder / "a.jpg"], replace(EMBEDDED, save=SaveOptions(quality=7)))
    assert kept.action == "keep"
    (enough,) = plan_files([folder / "a.jpg"], replace(EMBEDDED, size=SizeOptions(long_edge=5)))
    assert (enough.action, enough.notes) == ("skip", ("already large enough at 12x9",))


def test_missing_weights_are_not_downloaded(folder: Path) -> None:
    (plan,) = plan_files([folder / "a.jpg"], UpscaleOptions(model=ModelOptions(model="dscf-x4")))
    assert plan.action == "upscale"
    assert plan.notes == ("the weights would be downloaded first",)
    assert (plan.tile, plan.seconds) == (None, None)


def test_contradicting_options_are_refused_as_in_a_real_run(folder: Path) -> None:
    with pytest.raises(UsageError):
        list(plan_files([folder], replace(EMBEDDED, batch=BatchOptions(output="-"))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "save"),
    [
        ("low.jpg", "RGB", {"quality": 20}),
        ("low.webp", "RGB", {"quality": 20}),
        ("low.avif", "RGB", {"quality": 30}),
        ("palette.png", "P", {}),
        ("bits.tif", "1", {"compression": "group4"}),
        ("small.tif", "RGB", {"compression": "jpeg"}),
    ],
)
def test_the_disk_space_suffices_for_inputs_that_are_stored_small(
    tmp_path: Path, name: str, mode: str, save: dict[str, object]
) -> None:
    photo = Image.open(Path(__file__).parents[2] / "examples" / "photo.png").convert("RGB")
    photo.convert(mode).save(tmp_path / name, **save)
    options = replace(EMBEDDED, batch=BatchOptions(output=str(tmp_path / "out")))
    (plan,) = plan_files([tmp_path / name], options)
    (result,) = upscale_files([tmp_path / name], options)
    assert plan.disk_bytes is not None and result.output is not None
    assert Path(result.output).stat().st_size <= plan.disk_bytes <= 960 * 640 * 3
