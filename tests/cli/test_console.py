"""Numbers and lines that people read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dsclora_cli import paths
from dsclora_cli.cli import console
from dsclora_cli.cli.console import failure_line, format_bytes, format_seconds, format_sides, write_text
from dsclora_cli.errors import ErrorCode, ErrorInfo, OutputUnwritable, escape_control


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (535137, "535 kB"), (999_999, "1 MB"), (2.5e9, "2.5 GB")]
)
def test_bytes_have_three_digits_and_a_decimal_unit(size: float, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (90, "2 min"), (3725, "1 h 2 min")])
def test_seconds_become_minutes_and_hours(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_sides_are_joined_by_x() -> None:
    assert format_sides((640, 480)) == "640x480"


def test_a_failure_names_its_file_once() -> None:
    empty = ErrorInfo(ErrorCode.IMAGE_UNREADABLE, "a.png: is empty")
    assert failure_line("a.png", empty) == "a.png: is empty"
    small = ErrorInfo(ErrorCode.IMAGE_UNUSABLE, "too small", "ask for less")
    assert failure_line("a.png", small) == "a.png: too small (ask for less)"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("esc\x1b[31mred.png", r"esc\x1b[31mred.png"),
        ("new\nline\r\ttab", r"new\nline\r\ttab"),
        ("turned\u202egnp.png", r"turned\u202egnp.png"),
        ("raw\udce9", r"raw\udce9"),
        ("c1\x9b31m", r"c1\x9b31m"),
        ("line\u2028", r"line\u2028"),
        (
            "what\u00a0ever \u0447\u0442\u043e \U0001f469\u200d\U0001f680",
            "what\u00a0ever \u0447\u0442\u043e \U0001f469\u200d\U0001f680",
        ),
    ],
)
def test_control_characters_of_a_name_are_shown_escaped(name: str, shown: str) -> None:
    assert escape_control(name) == shown


NAME = "a\x1b[31m[bold]:dog:[/].png"
SHOWN = r"a\x1b[31m[bold]:dog:[/].png"


def test_lines_tables_and_messages_for_people_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_line(NAME)
    console.show_table([NAME], [[NAME]], NAME)
    console.show_columns({NAME: [NAME]})
    console.show_fields({NAME: NAME})
    console.stderr().print(NAME)
    console.print_labeled("note", NAME)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert (out.count(SHOWN), err.count(SHOWN)) == (8, 2)


@pytest.mark.parametrize("terminal", [False, True])
def test_data_for_programs_is_changed_on_a_terminal_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    write_text("-", f"{NAME}\nnext\n")
    assert capsys.readouterr().out == f"{SHOWN if terminal else NAME}\nnext\n"


def test_a_report_replaces_an_older_one_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(str(tmp_path / "report.csv"), "old\n")

    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(paths, "sync_file", fail)
    with pytest.raises(OutputUnwritable, match=r"report.csv cannot be written \(No space left .* - for stdout"):
        write_text(str(tmp_path / "report.csv"), "new\n")
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["old\n"]


@pytest.mark.skipif(os.name == "nt", reason="needs links and devices")
def test_a_report_goes_through_links_and_into_devices(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("report.csv")
    write_text(str(tmp_path / "link"), "text\n")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "report.csv").read_text(encoding="utf-8") == "text\n"
    write_text("/dev/null", "text\n")
    assert not Path("/dev/null").is_file()
