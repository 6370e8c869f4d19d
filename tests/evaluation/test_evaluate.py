"""Complete evaluations, from folders to the report."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluations import CPU, options, save_network_file, save_set
from PIL import Image

from dsclora_cli import paths
from dsclora_cli.errors import ImageError, OutOfMemory, UsageError
from dsclora_cli.evaluation.evaluate import evaluate
from dsclora_cli.evaluation.protocol import Scorer
from dsclora_cli.evaluation.report import EvalCallbacks, EvalReport
from dsclora_cli.imaging.metrics import psnr_y
from dsclora_cli.imaging.resize import downscale, matlab_bicubic
from dsclora_cli.inference.torch_cpu import TorchCpuEngine


@pytest.fixture
def hr(tmp_path: Path) -> Path:
    return save_set(tmp_path / "photos")


def means(report: EvalReport, index: int = 0) -> dict[str, dict[str, float]]:
    return {row.name: dict(row.mean) for row in report.sets[index].rows}


class Scored:
    """Counts the images that are scored, not taken from an earlier run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int = 99) -> None:
        self.names: list[str] = []
        self._current = ""
        score = Scorer.__call__

        def counted(scorer: Scorer, result: np.ndarray, truth: np.ndarray) -> dict[str, float]:
            if len(self.names) == stop_after:
                raise KeyboardInterrupt
            self.names.append(self._current)
            return score(scorer, result, truth)

        def remember(_: EvalCallbacks, benchmark: str, name: str) -> None:
            self._current = name

        monkeypatch.setattr(Scorer, "__call__", counted)
        monkeypatch.setattr(EvalCallbacks, "on_image", remember)


def test_a_report_holds_everything_needed_to_repeat_the_run(hr: Path) -> None:
    report = evaluate(options(hr))
    assert (report.scale, report.protocol.name, report.protocol.border) == (4, "paper", 4)
    assert set(report.versions) == {"dsclora", "python", "torch", "numpy", "pillow"}
    baseline, model = report.rows
    assert baseline.name == "bicubic" and len(model.weights_sha256) == 64
    assert (model.name, model.device, model.dtype, model.cost) == ("dsclora-x4", "cpu", "float32", None)
    (photos,) = report.sets
    assert (photos.name, photos.images, photos.comparisons, photos.worst) == ("photos", 3, (), ())
    assert len(photos.fingerprint) == 64
    assert [list(row.images) for row in photos.rows] == [["bird", "boat", "bush"]] * 2


def test_scores_equal_the_metrics_on_the_same_pixels(hr: Path) -> None:
    (photos,) = evaluate(options(hr)).sets
    truth = np.array(Image.open(hr / "boat.png"))
    bicubic = matlab_bicubic(downscale(truth, 4), 48, 64)
    assert photos.rows[0].images["boat"]["psnr_y"] == psnr_y(bicubic, truth, 4)
    values = [scores["psnr_y"] for scores in photos.rows[0].images.values()]
    assert photos.rows[0].mean["psnr_y"] == pytest.approx(sum(values) / 3)


def test_tiles_change_no_score(hr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[int, ...]] = []
    run = TorchCpuEngine.__call__
    monkeypatch.setattr(TorchCpuEngine, "__call__", lambda self, tile: (runs.append(tile.shape), run(self, tile))[1])
    whole = means(evaluate(options(hr, engine=replace(CPU, tile=0, engine="torch"))))
    assert len(runs) == 3
    tiled = means(evaluate(options(hr, engine=replace(CPU, tile=5, engine="torch"))))
    assert len(runs) > 20
    assert tiled["bicubic"] == whole["bicubic"]
    for metric, value in whole["dsclora-x4"].items():
        assert tiled["dsclora-x4"][metric] == pytest.approx(value, abs=1e-3)


def test_the_ntire_protocol_has_one_score(hr: Path) -> None:
    report = evaluate(options(hr, protocol="ntire"))
    assert report.metrics == ("psnr_rgb",)
    paper = means(evaluate(options(hr)))
    assert means(report)["dsclora-x4"]["psnr_rgb"] == paper["dsclora-x4"]["psnr_rgb"]


def test_an_interrupted_run_resumes(hr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        first = Scored(patch, stop_after=3)
        with pytest.raises(KeyboardInterrupt):
            evaluate(options(hr))
    with monkeypatch.context() as patch:
        second = Scored(patch)
        resumed = evaluate(options(hr))
    assert (first.names, second.names) == (["bird", "bird", "boat"], ["boat", "bush", "bush"])
    assert resumed.sets == evaluate(options(hr, fresh=True)).sets


@pytest.mark.parametrize("change", [{"protocol": "ntire"}, {"fresh": True}, {"engine": replace(CPU, tile=8)}])
def test_kept_scores_are_used_for_an_equal_run_only(hr: Path, monkeypatch: pytest.MonkeyPatch, change: dict) -> None:
    evaluate(options(hr))
    scored = Scored(monkeypatch)
    evaluate(options(hr))
    assert scored.names == []
    evaluate(options(hr, **change))
    assert len(scored.names) >= 3


def test_changed_pixels_under_an_old_name_are_scored_again(hr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(options(hr))
    Image.open(hr / "bush.png").transpose(Image.Transpose.ROTATE_180).save(hr / "bird.png")
    scored = Scored(monkeypatch)
    evaluate(options(hr))
    assert scored.names == ["bird", "bird"]


def test_jpeg_and_clean_pictures_do_not_share_scores(hr: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(options(hr))
    for quality in (60, 30):
        with monkeypatch.context() as patch:
            scored = Scored(patch)
            report = evaluate(options(hr, jpeg=quality))
        assert len(scored.names) == 6 and report.jpeg == quality
    scored = Scored(monkeypatch)
    evaluate(options(hr, jpeg=60))
    assert scored.names == []


def test_published_scores_are_compared_for_clean_lr_only(tmp_path: Path) -> None:
    hr = save_set(tmp_path / "Set5", ("bird",))
    for jpeg, claims in ((None, 2), (50, 0)):
        (benchmark,) = evaluate(options(hr, jpeg=jpeg)).sets
        assert len(benchmark.rows[1].claims) == claims


def test_a_note_reports_scores_that_cannot_be_kept(hr: Path) -> None:
    class Notes(EvalCallbacks):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def on_note(self, note: str) -> None:
            self.notes.append(note)

    paths.state_dir().mkdir(parents=True)
    (paths.state_dir() / "eval").write_text("in the way")
    notes = Notes()
    evaluate(options(hr), notes)
    (note,) = [note for note in notes.notes if note.startswith("scores are not kept")]
    place = paths.state_dir() / "eval"
    assert note.startswith(f"scores are not kept in {place} (") and "Errno" not in note
    assert note.endswith(", or set DSCLORA_STATE_DIR to a folder that can be written")


def test_saved_images_are_scored_images_and_are_made_again_if_missing(hr: Path, tmp_path: Path, monkeypatch) -> None:
    asked = options(hr, save=tmp_path / "out", worst=2)
    report = evaluate(asked)
    folder = tmp_path / "out" / "photos"
    truth = np.array(Image.open(hr / "boat.png"))
    for row in report.sets[0].rows:
        result = np.array(Image.open(folder / row.name / "boat.png"))
        assert psnr_y(result, truth, 4) == row.images["boat"]["psnr_y"]
    assert (folder / "worst-dsclora-x4.png").is_file()
    assert [(worst.row, len(worst.image)) for worst in report.sets[0].worst] == [("dsclora-x4", 4)] * 2
    (folder / "dsclora-x4" / "boat.png").unlink()
    scored = Scored(monkeypatch)
    evaluate(asked)
    assert scored.names == ["boat"]


def test_an_infinite_score_is_left_out_of_the_mean(tmp_path: Path) -> None:
    hr = save_set(tmp_path / "set", ("bird",))
    Image.new("RGB", (64, 48), (9, 99, 199)).save(hr / "flat.png")
    (rows,) = (each.rows for each in evaluate(options(hr)).sets)
    assert rows[0].images["flat"]["psnr_y"] == float("inf")
    assert rows[0].infinite == {"psnr_y": 1, "psnr_rgb": 1}
    assert rows[0].mean["psnr_y"] == rows[0].images["bird"]["psnr_y"]


def test_the_cost_of_each_model_is_measured_on_images_of_the_set(hr: Path, tmp_path: Path) -> None:
    mine = save_network_file(tmp_path / "mine.safetensors")
    rows = evaluate(options(hr, mine, engine=replace(CPU, ensemble=True), cost=True)).rows
    assert [row.cost is not None for row in rows] == [False, True, False]
    cost = rows[1].cost
    assert (cost.images, cost.size.convolutions) == (3, 7)
    assert cost.image_ms > 0 and cost.megapixel_ms > 0 and cost.peak_bytes > 10**7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hr": None}, "there is nothing to evaluate on (name a set, --dataset Set5, or a folder, --hr DIR)"),
        ({"datasets": ("Set5",)}, "both --dataset and --hr are given"),
        ({"hr": None, "datasets": ("Set5",), "lr": Path("lr")}, "--lr is given without --hr"),
        ({"data_dir": Path("sets")}, "--data-dir is given without --dataset"),
    ],
)
def test_contradicting_options_are_reported_before_anything_is_loaded(changes: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate(options(Path("absent"), Path("absent.pth"), **changes))
    assert message in str(caught.value)


def test_a_broken_image_is_named(hr: Path) -> None:
    (hr / "boat.png").write_bytes((hr / "boat.png").read_bytes()[:200])
    with pytest.raises(ImageError, match="boat"):
        evaluate(options(hr))


def test_a_picture_above_the_limit_ends_the_evaluation_by_name(hr: Path) -> None:
    with pytest.raises(ImageError, match=r"\.png: claims \d+ x \d+ pixels, .*--max-pixels allows more"):
        evaluate(replace(options(hr), max_pixels=100))


def test_a_picture_too_small_to_score_ends_the_evaluation_before_any_is_scored(
    hr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 19)).save(hr / "z.png")
    scored = Scored(monkeypatch)
    with pytest.raises(ImageError) as caught:
        evaluate(options(hr, save=tmp_path / "out"))
    problem = f"{hr / 'z.png'} has 40 x 19 pixels, too few to score at x4"
    assert str(caught.value) == f"{problem} (remove it, or give a picture of at least 20 pixels on each side)"
    assert scored.names == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [OutOfMemory("the tile is too large", "take a smaller one"), KeyError("x")], ids=type)
def test_whatever_ends_the_evaluation_names_the_picture(
    hr: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Scorer, "__call__", fail)
    first = min(hr.iterdir())
    with pytest.raises((OutOfMemory, RuntimeError), match=re.escape(str(first))) as raised:
        evaluate(options(hr))
    assert raised.value.__cause__ is error
