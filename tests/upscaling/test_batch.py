"""`upscale_files`: results of a batch, with every status."""

from __future__ import annotations

import gc
import io
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from batches import EMBEDDED, RepeatUpscaler, fill, leftovers, run, save_animation, save_photo, states
from PIL import Image

from dsclora_cli.config import BatchOptions, EngineOptions, ModelOptions, SaveOptions, SizeOptions, UpscaleOptions
from dsclora_cli.errors import UsageError, WeightsError
from dsclora_cli.upscaling.batch import UpscaleCallbacks, upscale_files
from dsclora_cli.upscaling.picture import PictureUpscaler


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "in")


def test_a_broken_picture_does_not_stop_the_other_pictures(folder: Path) -> None:
    results = run([folder])
    done = dict.fromkeys(("a.jpg", "b.png", "c.webp", "d.gif"), "done")
    assert states(results) == done | {"e.png": "failed", "Thumbs.db": "left-out"}
    by_name = {Path(result.input).name: result for result in results}
    for name in ("a_x4.jpg", "b_x4.png", "c_x4.webp"):
        assert Image.open(folder / name).size == (48, 36)
    assert Image.open(folder / "d_x4.gif").n_frames == by_name["d.gif"].frames == 4
    assert by_name["e.png"].output is None
    assert str(by_name["e.png"].error).count("e.png") == 1
    done = by_name["b.png"]
    assert done.output == str(folder / "b_x4.png")
    assert (done.input_size, done.output_size, done.scale, done.model) == ((12, 9), (48, 36), 4.0, "dsclora-x4")
    assert (done.device, done.dtype, done.tile) == ("cpu", "float32", 0)
    assert done.seconds.network > 0
    assert leftovers(folder) == []


def test_a_second_run_skips_finished_pictures_and_other_settings_keep_existing_files(folder: Path) -> None:
    run([folder])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = run([folder], upscaler=RepeatUpscaler(lambda frame: pytest.fail("nothing is left to upscale")))
    assert states(again) == {
        **dict.fromkeys(["a_x4.jpg", "b_x4.png", "c_x4.webp", "d_x4.gif", "Thumbs.db"], "left-out"),
        **dict.fromkeys(["a.jpg", "b.png", "c.webp", "d.gif"], "skipped"),
        "e.png": "failed",
    }
    changed = run([folder / "a.jpg"], replace(EMBEDDED, save=SaveOptions(quality=50)))
    assert changed[0].status == "kept"
    assert "is kept: not the result of this picture with these settings" in changed[0].warnings[-1]
    save_photo(folder / "b.png", seed=9)
    assert states(run([folder / "b.png"])) == {"b.png": "kept"}
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "b.png"} == {
        path: time for path, time in before.items() if path.name != "b.png"
    }
    assert states(run([folder / "b.png"], replace(EMBEDDED, batch=BatchOptions(overwrite=True)))) == {"b.png": "done"}
    assert states(run([folder / "b.png"])) == {"b.png": "skipped"}


def test_a_run_with_nothing_to_upscale_loads_no_torch(folder: Path) -> None:
    run([folder])
    script = (
        "import sys; from dsclora_cli.config import *; from dsclora_cli.upscaling.batch import upscale_files\n"
        "options = UpscaleOptions(model=ModelOptions(model='dsclora-x4'))\n"
        f"print(sorted({{r.status for r in upscale_files([{str(folder)!r}], options)}}), 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "['failed', 'left-out', 'skipped'] False"


def test_a_large_enough_picture_is_skipped(folder: Path) -> None:
    (result,) = run([folder / "a.jpg"], replace(EMBEDDED, size=SizeOptions(width=12)))
    assert (result.status, result.output) == ("skipped", None)
    assert result.warnings == ("already large enough at 12x9",)


def test_the_folder_tree_is_kept_below_the_output(tmp_path: Path) -> None:
    save_photo(tmp_path / "in" / "a.png")
    save_photo(tmp_path / "in" / "x" / "y" / "a.png", seed=1)
    out = tmp_path / "out"
    run([tmp_path / "in"], replace(EMBEDDED, batch=BatchOptions(recursive=True, output=str(out))))
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png")) == ["a_x4.png", "x/y/a_x4.png"]


def test_format_and_name_options_decide_the_output(folder: Path) -> None:
    options = UpscaleOptions(
        model=EMBEDDED.model,
        size=SizeOptions(fit=(30, 30)),
        save=SaveOptions(format="png"),
        batch=BatchOptions(name="{stem}-{width}x{height}-{scale}.{ext}"),
    )
    (result,) = run([folder / "d.gif"], options)
    assert result.output == str(folder / "d-30x24-3.png")
    assert Image.open(result.output).n_frames == 4
    (first,) = run([folder / "d.gif"], replace(EMBEDDED, save=SaveOptions(format="jpg")))
    assert first.frames == 1
    assert "only the first of 4 frames is kept" in " ".join(first.warnings)
    (refused,) = run([folder / "d.gif"], replace(EMBEDDED, save=SaveOptions(format="bmp", strict=True)))
    assert refused.status == "failed"
    assert "--strict" in str(refused.error)


def test_standard_input_and_output(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "b.png").read_bytes())))
    monkeypatch.setattr(sys, "stdout", stdout)
    (result,) = run(["-"])
    assert (result.input, result.output, result.status) == ("-", "-", "done")
    assert Image.open(io.BytesIO(stdout.buffer.getvalue())).size == (48, 36)


def test_fail_fast_finishes_the_pictures_before_the_failure(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"no picture")
    options = replace(EMBEDDED, batch=BatchOptions(fail_fast=True))
    results = run([folder / "a.jpg", folder / "b.png", folder / "c.webp"], options, RepeatUpscaler())
    assert states(results) == {"a.jpg": "done", "b.png": "failed", "c.webp": "not-reached"}
    assert [result.input for result in results].count(str(folder / "c.webp")) == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (UpscaleOptions(model=ModelOptions(model="no-such-model")), UsageError),
        (UpscaleOptions(model=ModelOptions(weights=Path("absent.pth"))), WeightsError),
        (replace(EMBEDDED, engine=EngineOptions(device="cuda:99")), UsageError),
        (replace(EMBEDDED, size=SizeOptions(scale=99)), UsageError),
        (replace(EMBEDDED, batch=BatchOptions(name="{when}.png")), UsageError),
    ],
)
def test_an_error_of_the_whole_run_ends_the_run(folder: Path, options: UpscaleOptions, error: type[Exception]) -> None:
    results = []
    with pytest.raises(error):
        results.extend(upscale_files([folder], options))
    # An option that no input could have is refused before the files are looked at.
    assert set(states(results)) in (set(), {path.name for path in folder.iterdir()})
    assert not list(folder.glob("*_x4*"))


def test_a_fallback_is_one_note_and_a_warning_in_each_result(folder: Path) -> None:
    notes: list[str] = []
    callbacks = UpscaleCallbacks()
    callbacks.on_note = notes.append  # type: ignore[method-assign]
    options = UpscaleOptions(model=ModelOptions(offline=True))
    # Not the WebP: for lossy files auto takes a network that every installation has.
    results = list(upscale_files([folder / "b.png", folder / "d.gif"], options, callbacks))
    assert notes == ["dscf-x4 could not be fetched (offline): using the embedded dsclora-x4"]
    assert all(notes[0] in result.warnings for result in results)


@pytest.mark.slow
def test_a_run_keeps_no_engine_once_the_run_is_over(folder: Path) -> None:
    # Without the search for cycles, which may come hours later: an engine holds hundreds of megabytes.
    options = replace(EMBEDDED, model=ModelOptions(offline=True))
    save_animation(folder / "half.png", frames=4, size=(40, 30))
    whole = (folder / "half.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: whole.rindex(b"fcTL") - 4])  # without the last frame
    inputs = [folder, folder / "absent.png"]
    gc.collect()
    gc.disable()
    try:
        kept = [each for each in gc.get_objects() if type(each) is PictureUpscaler]
        for format in (None, "TIFF", "AVIF"):
            saved = replace(options, save=SaveOptions(format=format))
            status = states(run(inputs, saved))
            assert [status[name] for name in ("b.png", "e.png", "half.png", "absent.png")] == ["done", *3 * ["failed"]]
        upscale_files([folder], options).close()
        given_up = upscale_files([folder], replace(options, batch=BatchOptions(output=str(folder / "again"))))
        assert next(given_up)
        given_up.close()
        del given_up
        left = [each for each in gc.get_objects() if type(each) is PictureUpscaler]
        assert len(left) == len(kept)
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="glibc keeps freed memory")
def test_memory_that_was_freed_goes_back_to_the_system_at_the_end_of_a_run(folder: Path) -> None:
    run([folder / "b.png"])  # what every later run keeps
    blocks = [np.ones(100_000, np.uint8) for _ in range(3_000)]
    kept = blocks[::50]  # each holds the memory below it in the heap of glibc
    del blocks
    before = psutil.Process().memory_info().rss
    run([folder / "a.jpg"])
    assert before - psutil.Process().memory_info().rss > 200_000_000
    assert all(block.all() for block in kept)


def test_a_batch_and_a_single_run_give_the_same_pixels(folder: Path) -> None:
    run([folder])
    single = folder / "single.png"
    run([folder / "b.png"], replace(EMBEDDED, batch=BatchOptions(output=str(single))))
    np.testing.assert_array_equal(np.asarray(Image.open(single)), np.asarray(Image.open(folder / "b_x4.png")))
