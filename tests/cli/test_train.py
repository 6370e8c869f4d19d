"""`dsclora train`, as users type it: whole runs of a tiny network."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path

import pytest
from rich.console import Console

from dsclora_cli.cli import console
from dsclora_cli.cli.views.train_progress import TrainView
from dsclora_cli.recipe_toml import read_recipe
from dsclora_cli.weights.checkpoint import load_network

TINY = ("--channels", "4", "--blocks", "1", "-s", "2", "--patch", "8", "--batch", "4", "--validate", "2")
HERE = ("--device", "cpu", "--compile", "off", "--threads", "1")


def test_a_run_prints_scores_and_writes_the_run_folder(dsclora, photos: Path) -> None:
    code, out, err = dsclora("train", "--data", photos, "--out", "run", "--steps", 4, *TINY, *HERE)
    assert (code, out) == (0, "")
    first, second, kept = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert first.startswith("step 2 of 4: loss 0.") and " dB (best), " in first and first.endswith(" to go")
    assert second.startswith("step 4 of 4: loss 0.") and second.endswith("waiting for data")
    assert kept.startswith(f"kept: {Path('run', 'best.safetensors')}, PSNR-Y ") and "on the held-out pictures" in kept
    assert load_network(Path("run/best.safetensors")).config.scale == 2
    assert {"recipe.toml", "log.jsonl", "state.pt", "samples.png"} <= {path.name for path in Path("run").iterdir()}
    recipe = read_recipe(Path("run/recipe.toml"))
    assert (recipe.data.data, recipe.run.steps, recipe.network.scale) == (("photos",), 4, 2)


def test_reading_the_pictures_shows_a_bar_on_a_terminal(dsclora, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, no_color=True, width=200)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    run = ("train", "--data", photos, "--out", "run", "--steps", 2, *TINY, *HERE)

    assert dsclora(*run, "-q").code == 0 and "reading pictures" not in text.getvalue()
    assert dsclora(*run, "--resume").code == 0
    shown = text.getvalue()
    assert "reading pictures" in shown and "6/6" in shown
    assert shown.index("6/6") < shown.index("kept: ")


@pytest.mark.parametrize("steps", [1, 3])
def test_a_run_that_skipped_every_step_has_trained_nothing_and_fails(dsclora, photos: Path, steps: int) -> None:
    run = ("--data", photos, "--out", "run", "--steps", steps, *TINY, *HERE)
    code, _, err = dsclora("train", "--fft", "1e39", *run, "-q")
    count = "the only step" if steps == 1 else "all 3 steps"
    problem = f"nothing was trained: loss or gradient was not finite in {count}; in the last step fft; finite: pixel"
    assert code == 1 and err.startswith(f"error: {problem} (look at how fft is computed, or ") and err.count("\n") == 1
    assert not list(Path("run").glob("*.safetensors"))


@pytest.mark.slow
def test_json_has_every_score_and_the_best_of_them(dsclora, photos: Path) -> None:
    _, out, _ = dsclora("train", "--data", photos, "--out", "run", "--steps", 4, *TINY, *HERE, "--json", "-q")
    *scores, result = [json.loads(line) for line in out.splitlines()]
    assert [score["step"] for score in scores] == [2, 4]
    assert result["best_psnr_y"] == max(score["psnr_y"] for score in scores)


def test_a_run_resumes_by_its_own_recipe_and_no_other(dsclora, photos: Path) -> None:
    begin = ("train", "--data", photos, "--out", "run", "--steps", 2, *TINY, *HERE)
    assert dsclora(*begin).code == 0
    code, _, err = dsclora("train", "--out", "run", "--resume", "--device", "cpu", "--accumulate", 2)
    assert code == 0 and "note: resuming after 2 steps" in err and "kept: " in err
    kept = Path("run/log.jsonl").read_bytes()
    assert (
        code := dsclora("train", "--out", "run", "--resume", "--seed", 5)
    ).code == 2 and "run is a run of another recipe with other seed (give the options of recipe.toml" in code.err
    code, _, err = dsclora("train", "--out", "run", "--resume", "--steps", 4)
    hint = "train on in a new run: --init run/best.safetensors and another --out"
    assert (code, err) == (2, f"error: run is a run of another recipe with other steps ({hint})\n")
    code, _, err = dsclora("train", "--out", "run", "--resume", "--teacher-images", photos)
    assert code == 2 and "run is a run of another recipe with other method, teacher_images (give the options of" in err
    assert (
        code := dsclora(*begin)
    ).code == 2 and "error: run already holds a run (resume the run with --resume" in code.err
    assert Path("run/log.jsonl").read_bytes() == kept


def test_best_weights_that_were_removed_are_not_called_kept(dsclora, photos: Path) -> None:
    assert dsclora("train", "--data", photos, "--out", "run", "--steps", 2, *TINY, *HERE).code == 0
    again = ("train", "--out", "run", "--resume")
    Path("run/best.safetensors").unlink()
    gone = "not kept: the best weights, of step 2, are no longer in run"
    code, out, err = dsclora(*again, "--json")
    assert code == 1 and json.loads(out)["file"] is None and "\nkept: " not in err
    assert err.endswith(f"{gone} ({Path('run', 'last.safetensors')} holds the weights of the last score)\n")
    Path("run/last.safetensors").unlink()
    assert dsclora(*again, "-q").err == f"{gone} (train again with another --out)\n"


def test_a_folder_that_is_no_run_is_refused(dsclora, photos: Path) -> None:
    code, _, err = dsclora("train", "--data", photos, "--out", photos, "--steps", 2, *TINY, *HERE)
    assert code == 2 and "error: photos already exists and holds no run" in err
    assert len(list(photos.iterdir())) == 6


@pytest.mark.parametrize("out", ["astray", "astray/run"])
def test_a_link_that_leads_nowhere_is_no_place_for_a_run(dsclora, photos: Path, out: str) -> None:
    Path("astray").symlink_to("absent")
    code, _, err = dsclora("train", "--data", photos, "--out", out, "--steps", 2, *TINY, *HERE)
    message = "astray is a link that leads nowhere (make what the link names, or choose another --out)"
    assert (code, err) == (2, f"error: {message}\n")


def test_wrong_options_are_errors_of_one_line(dsclora, photos: Path) -> None:
    Path("typo.toml").write_text("[run]\nstep = 4\n")
    Path("taught.toml").write_text("[distill]\n")
    for arguments, line in (
        (("--config", "typo.toml"), "error: typo.toml: [run] step: unknown key, perhaps steps (see docs/train.md)"),
        (("--config", "taught.toml"), "error: taught.toml: [distill] is for dsclora distill"),
        (("--config", "none.toml"), "error: cannot read none.toml: No such file or directory"),
        (("--resume",), "error: run holds no run to resume (check --out, or start a run with --data DIR)"),
        (("--data", "photos", "--scale", "5"), "error: --scale: 5 is above 4"),
        (("--data", "photos", "--betas", "0.9", "1"), "error: --betas: 1.0 is above 0.999999"),
        (("--data", "photos", "--noise", "3", "1"), "error: --noise: 3.0 to 1.0 is no range"),
    ):
        code, out, err = dsclora("train", "--out", "run", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith(line)
    assert not Path("run").exists()


def test_a_run_in_progress_is_refused_to_every_other_command(
    dsclora, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = ("train", "--data", photos, "--steps", 2, *TINY, *HERE)
    refused = []

    def read(view: TrainView, done: int, total: int) -> None:
        """Start more commands from within the run: before the folder is there, and in other spellings."""
        if done == total:
            tries = (("--out", "run"), ("--out", Path.cwd() / "photos" / ".." / "run", "--resume"))
            refused.extend(dsclora(*begin, *words) for words in tries)
            assert not Path("run").exists()

    with monkeypatch.context() as patched:
        patched.setattr(TrainView, "on_picture", read)
        assert dsclora(*begin, "--out", "run").code == 0
    assert [each.code for each in refused] == [2, 2]
    assert refused[0].err == "error: another process is training in run (wait for its end, or choose another --out)\n"
    assert len(Path("run/log.jsonl").read_text().splitlines()) == 1
    assert dsclora("train", "--out", "run", "--resume").code == 0


def test_a_run_that_fails_before_the_first_step_leaves_neither_a_folder_nor_a_claim(dsclora, photos: Path) -> None:
    for number in range(2):
        code, _, err = dsclora("train", "--data", photos, "--out", "run", *TINY, *HERE, "--patch", 1000 + number)
        assert code == 2 and "another process" not in err and not Path("run").exists()


@pytest.mark.parametrize(
    "words",
    [("--channels", 10**5), ("--channels", 10**10), ("--batch", 10**12), ("--arch", "edsr", "--channels", 10**6)],
)
def test_what_does_not_fit_the_memory_is_no_bug(dsclora, photos: Path, words) -> None:
    code, out, err = dsclora("train", "--data", photos, "--out", "run", *TINY, *HERE, *words, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "out-of-memory")
    assert err.startswith("error: the training does not fit the memory of cpu (lower --batch") and err.count("\n") == 1
    assert not Path("run").exists()


@pytest.mark.usefixtures("uncollected")
def test_a_stopped_run_leaves_a_checkpoint_to_resume_from(
    dsclora, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step = TrainView.on_step

    def stop_after_three(view: TrainView, step: int, steps: int, loss: float) -> None:
        on_step(view, step, steps, loss)
        if step == 3:
            signal.raise_signal(signal.SIGTERM)

    again = ("train", "--data", photos, "--out", "run", "--steps", 6, *TINY, *HERE, "--resume")
    with monkeypatch.context() as patched:
        patched.setattr(TrainView, "on_step", stop_after_three)
        code, _, err = dsclora(*again)
    assert code == 130 and "resume with --resume" in err and "kept: " not in err
    code, _, err = dsclora(*again)
    assert code == 0 and "resuming after" in err and "kept: " in err
    assert [json.loads(line)["step"] for line in Path("run/log.jsonl").read_text().splitlines()] == [2, 4, 6]
