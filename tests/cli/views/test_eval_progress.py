"""Progress bar and messages of an evaluation, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dsclora_cli.cli import console
from dsclora_cli.cli.views.eval_progress import EvalProgress


def go(view: EvalProgress) -> None:
    """All that an evaluation reports."""
    view.on_unpack("Set5", 2_000_000, 4_000_000)
    view.on_unpack("Set5", 4_000_000, 4_000_000)
    view.note_once("a choice was made")
    view.on_sets(2)
    view.on_image("Set5", "baby")
    view.on_image("Set5", "bird")
    view.on_cost()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal on stderr receives."""
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    return text


def test_a_bar_on_a_terminal_names_the_current_step(terminal: io.StringIO) -> None:
    with EvalProgress(quiet=False) as view:
        go(view)
        view._bar.refresh()
    shown = terminal.getvalue()
    for text in ("unpacking Set5, MB", "4/4", "measuring time and memory", "2/2", "a choice was made"):
        assert text in shown


def test_names_of_images_are_neither_markup_nor_control_characters(terminal: io.StringIO) -> None:
    with EvalProgress(quiet=False) as view:
        view.on_sets(2)
        for name in ("[bold]a[/]", "[/oops]", "\x1b]0;title\x07"):
            view.on_image("Set5", name)
            view._bar.refresh()
    shown = terminal.getvalue()
    assert all(f"Set5 {name}" in shown for name in ("[bold]a[/]", "[/oops]", r"\x1b]0;title\x07"))


def test_without_a_terminal_each_note_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with EvalProgress(quiet=False) as view:
        go(view)
        view.note_once("a choice was made")
    assert capsys.readouterr() == ("", "note: a choice was made\n")


def interrupt(quiet: bool, images: list[str]) -> None:
    """An evaluation of five images, left while the last of these is being scored."""
    with EvalProgress(quiet) as view:
        view.on_sets(5)
        for image in images:
            view.on_image("Set5", image)
        raise KeyboardInterrupt


def test_an_interruption_during_the_cost_reports_all_images(capsys: pytest.CaptureFixture[str]) -> None:
    with EvalProgress(quiet=False) as view:
        go(view)
        view.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert "interrupted: 2 of 2 images are scored and kept" in capsys.readouterr().err


def test_quiet_prints_only_an_interruption_on_a_terminal(terminal: io.StringIO) -> None:
    with EvalProgress(quiet=True) as view:
        go(view)
    assert terminal.getvalue() == ""
    with pytest.raises(KeyboardInterrupt):
        interrupt(quiet=True, images=["baby"])
    assert "interrupted" in terminal.getvalue() and terminal.getvalue().count("\n") == 1


@pytest.mark.parametrize(("images", "done"), [([], 0), (["baby"], 0), (["baby", "bird", "head"], 2)])
def test_an_interruption_counts_finished_images(capsys, images: list[str], done: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupt(quiet=False, images=images)
    assert capsys.readouterr().err == (
        f"interrupted: {done} of 5 images are scored and kept; the same command resumes from there\n"
    )
