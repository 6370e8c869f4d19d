"""The files of a run folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsclora_cli.errors import DscloraError, UsageError
from dsclora_cli.recipe import Recipe
from dsclora_cli.training import run_dir
from dsclora_cli.training.run_dir import RunDir, is_new_run
from dsclora_cli.training.validation import Sample


def _line(step: int) -> dict[str, object]:
    terms = {"pixel": 0.1 / step}
    return {"step": step, "loss": 0.1 / step, "terms": terms, "facts": {"passed": 0.5}, "psnr_y": 20.0 + step}


def _begun(path: Path, lines: int = 0, step: int = 0) -> RunDir:
    folder = RunDir(path)
    folder.begin(Recipe(), step)
    for number in range(1, lines + 1):
        folder.log(_line(number))
    return folder


def test_a_run_takes_an_empty_folder_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none", tmp_path / "empty"):
        assert is_new_run(path, resume=False) and is_new_run(path, resume=True)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(UsageError, match="already exists and holds no run"):
            is_new_run(path, resume=True)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again_with_resume(tmp_path: Path) -> None:
    _begun(tmp_path)
    (tmp_path / ".dsclora-1.part").touch()
    assert is_new_run(tmp_path, resume=True)
    with pytest.raises(UsageError, match="already exists and holds no run"):
        is_new_run(tmp_path, resume=False)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="already exists and holds no run"):
        is_new_run(tmp_path, resume=True)


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    _begun(tmp_path, lines=5)

    assert [line["step"] for line in _begun(tmp_path, step=3).lines()] == [1, 2, 3]


def test_a_line_cut_short_by_a_crash_is_ignored(tmp_path: Path) -> None:
    _begun(tmp_path, lines=2)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')
    folder = _begun(tmp_path, step=2)
    folder.log(_line(3))

    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"7",
        b'{"step": "1"}',
        b'{"step": 1, "psnr_y": 30}',
        b'{"step": 1, "loss": 1, "psnr_y": null}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_line_of_the_log_is_named(tmp_path: Path, line: bytes) -> None:
    _begun(tmp_path, lines=1)
    whole = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(whole + line + b"\n")
    with pytest.raises(UsageError, match=r"line 2 of .*log\.jsonl is damaged \(remove the line, then --resume\)"):
        _begun(tmp_path, step=2)
    assert (tmp_path / "log.jsonl").read_bytes() == whole + line + b"\n"


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    _begun(tmp_path, lines=3)
    _begun(tmp_path, step=2).log(_line(3))
    events = reading.EventAccumulator(str(tmp_path / "tensorboard")).Reload()

    assert set(events.Tags()["scalars"]) == {"step", "loss", "psnr_y", "pixel", "passed"}
    assert [event.step for event in events.Scalars("psnr_y")] == [1, 2, 3]


def test_curve_and_samples_are_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = _begun(tmp_path, lines=3)
    lr, hr = np.zeros((12, 10, 3), np.uint8), np.zeros((24, 20, 3), np.uint8)
    folder.draw([Sample("a", 30.0, lr, hr, hr)])

    for name in ("curve.png", "samples.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 50


def test_a_negative_loss_can_be_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run_dir.draw_curve([_line(1), {**_line(2), "loss": -7.0}], tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").size == (960, 540)  # 8 by 4.5 inches at 120 dots per inch


def test_lines_without_a_loss_are_read_and_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = _begun(tmp_path, lines=2)
    folder.log({**_line(3), "loss": None, "terms": {}})
    for lines in (folder.lines(), folder.lines()[2:]):
        run_dir.draw_curve(lines, tmp_path / "curve.png")
        assert Image.open(tmp_path / "curve.png").size == (960, 540)


def test_without_plotting_packages_a_run_works_and_reports_the_missing_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run_dir, "find_spec", lambda name: None)
    folder = _begun(tmp_path, lines=1)
    folder.draw([Sample("a", 30.0, *(np.zeros((side, side, 3), np.uint8) for side in (8, 16, 16)))])

    assert folder.missing().startswith(
        'the run folder will have no plot and no TensorBoard log: pip install "dsclora[train]"'
    )
    assert {path.name for path in tmp_path.iterdir()} == {"recipe.toml", "log.jsonl", "samples.png"}


def test_a_folder_that_cannot_be_written_is_an_error_with_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    message = r"cannot write to .*run: Not a directory \(check the path: a part of it is a file, then --resume; or"
    with pytest.raises(DscloraError, match=message):
        _begun(tmp_path / "file" / "run")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = _begun(tmp_path / "run", lines=1)
    monkeypatch.setattr(run_dir, "save_png", full)
    with pytest.raises(DscloraError, match="No space left on device"):
        folder.draw([Sample("a", 30.0, *(np.zeros((side, side, 3), np.uint8) for side in (8, 16, 16)))])
