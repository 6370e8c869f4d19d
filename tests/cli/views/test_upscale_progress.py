"""The output of `dsclora upscale` while it runs."""

from __future__ import annotations

import io
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dsclora_cli.cli import console
from dsclora_cli.cli.views.upscale_progress import UpscaleView
from dsclora_cli.errors import ErrorCode, ErrorInfo
from dsclora_cli.upscaling.types import FileResult, FoundInputs, InputFile, StageSeconds

SOURCE = InputFile(Path("a.png"), "a.png")
DONE = FileResult(
    input="a.png",
    status="done",
    output="a_x4.png",
    input_size=(500, 400),
    output_size=(2000, 1600),
    model="dscf-x4",
    device="cpu",
    dtype="float32",
    engine="openvino",
    tile=512,
    seconds=StageSeconds(0.5, 2, 0.25),
    warnings=("the profile was odd",),
)
HOW = "(dscf-x4 on cpu by openvino, float32, tiles of 512; decode 0.50 s, network 2.00 s, encode 0.25 s)"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 120 columns would be sent."""
    screen = io.StringIO()
    monkeypatch.setattr(console, "stderr", lambda: Console(file=screen, force_terminal=True, width=120, markup=False))
    return screen


def play(view: UpscaleView) -> None:
    with view:
        view.on_inputs(FoundInputs((SOURCE, SOURCE), many=True))
        view.note_once("the network is slow today")
        view.on_start(SOURCE)
        view.on_progress(SOURCE, 0.5)
        if view._bars:
            view._bars._progress.refresh()  # which a terminal sees ten times a second
        view.show(DONE)
        view.show(FileResult("b.png", "failed", error=ErrorInfo(ErrorCode.IMAGE_UNUSABLE, "it broke", "mend it")))


def test_a_terminal_has_bars_with_share_rate_and_total(terminal: io.StringIO) -> None:
    play(UpscaleView(json=False, quiet=False, verbose=False))
    shown = terminal.getvalue()
    for word in ("a.png", "50%", "2/2", "MP/s", "failed: ", "b.png: it broke (mend it)"):
        assert word in shown


def test_the_name_of_a_picture_on_a_bar_is_neither_markup_nor_control_characters(terminal: io.StringIO) -> None:
    with UpscaleView(json=False, quiet=False, verbose=False) as view:
        for name in ("[bold]a[/]", "[/oops]:dog:", "\x1b]0;title\x07"):
            view.on_start(InputFile(Path(name), name))
        view._bars._progress.refresh()
    shown = terminal.getvalue()
    assert all(name in shown for name in ("[bold]a[/]", "[/oops]:dog:", r"\x1b]0;title\x07"))


def test_quiet_shows_only_failures(terminal: io.StringIO) -> None:
    view = UpscaleView(json=False, quiet=True, verbose=False)
    play(view)
    assert "it broke" in terminal.getvalue()
    for word in ("note", "a_x4.png", "MP/s", "done"):
        assert word not in terminal.getvalue()
    assert view.exit_code == 1


def test_a_run_without_an_end_shows_a_failure_at_once_and_no_second_time(capsys: pytest.CaptureFixture[str]) -> None:
    with UpscaleView(json=False, quiet=True, verbose=False, endless=True) as view:
        view.show(FileResult("b.png", "failed", error=ErrorInfo(ErrorCode.IMAGE_UNUSABLE, "it broke", "mend it")))
        assert capsys.readouterr().err == "failed: b.png: it broke (mend it)\n"
    assert capsys.readouterr().err == ""


def test_in_a_run_without_an_end_a_later_result_of_a_picture_replaces_its_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = FileResult("a.png", "failed", error=ErrorInfo(ErrorCode.IMAGE_UNREADABLE, "it is cut"))
    with UpscaleView(json=False, quiet=False, verbose=False, endless=True) as view:
        for result in (broken, broken, DONE):
            view.on_inputs(FoundInputs((SOURCE,), many=True))
            view.show(result)
    assert capsys.readouterr().err.splitlines()[-1].startswith("1 done in ")
    assert view.exit_code == 0
    with UpscaleView(json=False, quiet=False, verbose=False, endless=True) as view:
        for result in (DONE, broken):
            view.on_inputs(FoundInputs((SOURCE,), many=True))
            view.show(result)
    assert capsys.readouterr().err.splitlines()[-1].startswith("1 done, 1 failed in ")
    assert view.exit_code == 1


def test_without_a_terminal_lines_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    play(UpscaleView(json=False, quiet=False, verbose=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[:4] == [
        "note: the network is slow today",
        f"a.png -> a_x4.png  500x400 -> 2000x1600  2.8 s  {HOW}",
        "warning: a.png: the profile was odd",
        "failed: b.png: it broke (mend it)",
    ]
    assert "\x1b" not in err


def test_only_verbose_shows_the_reason_for_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    photo = replace(DONE, model="dsclora-x4-photo", choice="a JPEG of quality 50, below 90")
    for verbose in (False, True):
        UpscaleView(json=False, quiet=False, verbose=verbose).show(photo)
        assert (
            "(dsclora-x4-photo (a JPEG of quality 50, below 90) on cpu by openvino, " in capsys.readouterr().err
        ) == verbose


def test_an_interrupt_has_a_summary_and_an_error_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    view = UpscaleView(json=False, quiet=False, verbose=False)
    view.show(FileResult("a.png", "interrupted"))
    with pytest.raises(KeyboardInterrupt), view:
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "interrupted: a.png\ninterrupted: 1 cut short\n"
    with pytest.raises(KeyboardInterrupt), UpscaleView(json=False, quiet=True, verbose=False):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "interrupted: nothing was done yet\n"
    with pytest.raises(ValueError, match="x"), UpscaleView(json=False, quiet=False, verbose=False):
        raise ValueError("x")
    assert capsys.readouterr().err == ""


def test_ctrl_c_while_a_result_is_shown_still_shows_finished_pictures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def results() -> Generator[FileResult, None, None]:
        try:
            yield replace(DONE, warnings=())
        except KeyboardInterrupt:
            yield FileResult("b.png", "interrupted")
            raise

    view = UpscaleView(json=False, quiet=False, verbose=False)
    show = view.show

    def interrupted_show(result: FileResult) -> None:
        show(result)
        if result.status == "done":
            raise KeyboardInterrupt

    monkeypatch.setattr(view, "show", interrupted_show)
    with pytest.raises(KeyboardInterrupt), view:
        view.show_all(results())
    assert capsys.readouterr().err.splitlines()[1:] == ["interrupted: b.png", "interrupted: 1 done, 1 cut short"]


def test_a_run_without_pictures_reports_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with UpscaleView(json=False, quiet=False, verbose=False) as view:
        pass
    assert capsys.readouterr().err == "nothing to do: no pictures\n"
    assert view.exit_code == 0
