"""Bar, lines and JSON of a training run, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dsclora_cli.cli import console
from dsclora_cli.cli.views import train_progress
from dsclora_cli.cli.views.train_progress import TrainView
from dsclora_cli.errors import ExitCode
from dsclora_cli.training.trainer import Score, TrainResult

SCORE = Score(
    step=250,
    loss=0.02804,
    terms={"pixel": 0.02804},
    facts={},
    psnr_y=31.7012,
    rate=1e-3,
    images_per_second=61.04,
    waiting=0.021,
    seconds=65.0,
)
RUN = Path("run")
TRAINED = TrainResult(
    run=RUN,
    file=RUN / "best.safetensors",
    steps=500,
    best_step=250,
    best_psnr_y=31.7012,
    floor_psnr_y=None,
    skipped=0,
    seconds=130.0,
)
ADAPTED = replace(TRAINED, file=RUN / "adapter.safetensors", floor_psnr_y=31.68)
LINE = "loss 0.02804, PSNR-Y 31.701 dB (best), 61 images/s, 2% waiting for data"


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the clock: a reading is 249 seconds after the last one, so 249 steps take a second each."""
    ticks = iter(range(0, 10**6, 249))
    monkeypatch.setattr(train_progress, "monotonic", lambda: next(ticks))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Make stderr a terminal, and return the text that the terminal receives."""
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, highlight=False, no_color=True, width=200)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    return text


def go(view: TrainView, result: TrainResult = TRAINED) -> int:
    """Call every callback as a run does."""
    with view:
        view.note_once("3 pictures are left out")
        view.note_once("3 pictures are left out")
        for step, loss in ((1, 0.5), (2, float("nan")), (250, 0.02)):
            view.on_step(step, 500, loss)
        view.on_score(SCORE, best=True)
        if view._bar:
            view._bar._progress.refresh()
    return view.end(result)


def test_without_a_terminal_each_score_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert go(TrainView(as_json=False, quiet=False)) == ExitCode.DONE
    out, err = capsys.readouterr()
    assert (out, err.splitlines()) == (
        "",
        [
            "note: 3 pictures are left out",
            f"step 250 of 500: {LINE}, 4 min to go",
            "kept: run/best.safetensors, PSNR-Y 31.701 dB on the held-out pictures (step 250 of 500, 2 min)",
        ],
    )


def test_a_terminal_shows_a_bar_too(terminal: io.StringIO) -> None:
    go(TrainView(as_json=False, quiet=False))
    shown = terminal.getvalue()
    for text in (LINE, "loss 0.49040", "PSNR-Y 31.701", "250/500", "61 images/s, 2% waiting", "kept: "):
        assert text in shown


def test_json_is_on_stdout_and_quiet_is_quiet(capsys: pytest.CaptureFixture[str], terminal: io.StringIO) -> None:
    assert go(TrainView(as_json=True, quiet=True)) == ExitCode.DONE
    score, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert score == {"version": 1, **vars(SCORE)}
    assert result == {"version": 1, **vars(TRAINED), "run": "run", "file": str(TRAINED.file)}
    assert terminal.getvalue() == ""


def test_only_the_first_worker_prints_and_returns_the_exit_code(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = replace(ADAPTED, file=None)
    monkeypatch.setenv("RANK", "1")
    assert go(TrainView(as_json=True, quiet=False), nothing) == ExitCode.DONE
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    assert go(TrainView(as_json=True, quiet=False), nothing) == ExitCode.SOME_FAILED
    assert capsys.readouterr().out.count("\n") == 2


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.splitlines()[-1]


def test_a_kept_adapter_is_reported_with_its_gain(capsys: pytest.CaptureFixture[str]) -> None:
    assert go(TrainView(as_json=False, quiet=False), ADAPTED) == ExitCode.DONE
    assert last_line(capsys) == (
        "kept: run/adapter.safetensors, PSNR-Y 31.701 dB on the held-out pictures, 0.0212 dB above the base"
        " (step 250 of 500, 2 min)"
    )


@pytest.mark.parametrize("quiet", [True, False])
def test_an_adapter_that_gains_nothing_is_not_kept(capsys: pytest.CaptureFixture[str], quiet: bool) -> None:
    nothing = replace(ADAPTED, file=None, best_step=0, best_psnr_y=31.71, floor_psnr_y=31.71, reached_psnr_y=31.7012)
    assert go(TrainView(as_json=False, quiet=quiet), nothing) == ExitCode.SOME_FAILED
    assert last_line(capsys) == (
        "not kept: no step was better than the base's 31.710 dB on the held-out pictures; the best was 0.0088 dB below"
    )


def test_a_run_whose_log_has_no_score_reports_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    view = TrainView(as_json=False, quiet=False)
    assert view.end(replace(ADAPTED, file=None, best_step=0)) == ExitCode.SOME_FAILED
    assert last_line(capsys) == "not kept: no step was better than the base's 31.680 dB on the held-out pictures"
    assert view.end(replace(TRAINED, file=None, best_step=0)) == ExitCode.SOME_FAILED
    assert last_line(capsys) == "not kept: nothing was scored"


def test_skipped_steps_are_counted_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    TrainView(as_json=False, quiet=False).end(replace(TRAINED, skipped=3))
    assert "note: 3 steps were skipped because the loss or the gradient was not finite\n" in capsys.readouterr().err


def test_a_score_line_without_a_loss_says_why() -> None:
    line = train_progress.score_line(replace(SCORE, loss=None, terms={}), best=False)
    assert line.startswith("loss unknown, as every step was skipped, PSNR-Y 31.701 dB, ")


def test_score_lines_name_several_terms_and_shares() -> None:
    score = replace(SCORE, loss=0.3, terms={"rec": 0.2, "ts": 0.1}, facts={"passed": 0.428})
    assert train_progress.score_line(score, best=False).startswith(
        "loss 0.30000 (rec 0.20000, ts 0.10000), passed 43%, PSNR-Y 31.701 dB, "
    )
