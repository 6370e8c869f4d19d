"""`main` turns every error into one line and an exit code, and help is complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import dsclora_cli
from dsclora_cli.errors import DscloraError, ImageError, UsageError, WeightsError
from dsclora_cli.weights import listing


def test_version_is_that_of_the_package(dsclora) -> None:
    assert dsclora("--version") == (0, f"dsclora {dsclora_cli.__version__}\n", "")


def test_python_m_runs_the_same_program() -> None:
    command = [sys.executable, "-m", "dsclora_cli", "--version"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(dsclora_cli.__file__).parents[1])
    assert ran.stdout == f"dsclora {dsclora_cli.__version__}\n"


def test_help_lists_commands_and_shows_examples(dsclora) -> None:
    ran = dsclora("--help")
    assert ran.code == 0
    for word in ("upscale", "models", "Examples", "--version"):
        assert word in ran.out


def test_help_of_upscale_is_grouped_with_examples(dsclora) -> None:
    ran = dsclora("upscale", "-h")
    assert ran.code == 0
    for panel in ("Input and output", "Size", "Model", "Speed and memory", "Metadata", "Reporting", "Examples"):
        assert panel in ran.out
    for line in ("dsclora upscale photo.jpg -s 2.5 -o large.png", "{stem}_x{scale}.{ext}", "[default: auto]"):
        assert line in ran.out
    assert "dsclora models list --json" in dsclora("models", "list", "--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["upscale", "", "-s", "2"], "an argument is empty, after upscale"),
        (["eval", "--hr", ""], "an argument is empty, after --hr"),
        (["train", "--data=", "--out", "run"], "--data= has no value"),
    ],
)
def test_an_empty_argument_does_not_mean_the_folder_of_the_terminal(
    dsclora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    ran = dsclora(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"error: {message} (")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale", "a.png", "-o", "LONG/"],
        ["upscale", "a.png", "-o", "LONG.png"],
        ["compare", "a.png", "-m", "bicubic", "-o", "LONG"],
        ["export", "dsclora-x4", "-o", "LONG.onnx"],
        ["eval", "--dataset", "Set5", "--data-dir", "LONG", "-m", "dsclora-x4"],
        ["train", "--data", "LONG", "--out", "run"],
        ["models", "info", "LONG"],
    ],
)
def test_a_name_that_the_system_refuses_is_one_line_and_no_bug(
    dsclora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    ran = dsclora(*(word.replace("LONG", 300 * "x") for word in arguments))
    assert ran.code in (1, 2) and ran.out == ""
    (line,) = [line for line in ran.err.splitlines() if line.startswith(("error: ", "failed: "))]
    assert 200 * "x" in line and "bug" not in line and line.endswith(")")


@pytest.mark.parametrize(
    "arguments",
    [["export", "dsclora-x4", "-o", "LONG.onnx"], ["eval", "--hr", ".", "-m", "dsclora-x4", "--csv", "LONG"]],
)
def test_an_output_that_the_system_refuses_has_its_code(
    dsclora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (48, 48)).save("a.png")
    ran = dsclora(*(word.replace("LONG", 300 * "x") for word in arguments), "--json")
    assert (ran.code, json.loads(ran.out.splitlines()[-1])["error"]["code"]) == (1, "output-unwritable")


@pytest.mark.parametrize(("error", "code"), [(ImageError, 1), (DscloraError, 1), (UsageError, 2), (WeightsError, 3)])
def test_an_error_is_one_line_and_an_exit_code(
    dsclora, monkeypatch: pytest.MonkeyPatch, error: type[DscloraError], code: int
) -> None:
    def fail() -> None:
        raise error("what went wrong [here]", "what to do next")

    monkeypatch.setattr(listing, "list_models", fail)
    assert dsclora("models", "list") == (code, "", "error: what went wrong [here] (what to do next)\n")


def test_a_bug_is_one_line_and_with_debug_a_traceback(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(listing, "list_models", fail)
    code, out, err = dsclora("models", "list")
    assert (code, out) == (1, "")
    assert err.startswith(
        "error: this is a bug in dsclora: ZeroDivisionError: first line (run again with DSCLORA_DEBUG=1"
    )
    assert err.count("\n") == 1
    monkeypatch.setenv("DSCLORA_DEBUG", "1")
    debug = dsclora("models", "list")
    assert debug.code == 1
    assert "Traceback" in debug.err
    assert debug.err.endswith("error: this is a bug in dsclora: ZeroDivisionError: first line\n")


def test_too_little_memory_for_a_command_is_no_bug(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise MemoryError

    monkeypatch.setattr(listing, "list_models", fail)
    code, out, err = dsclora("models", "list", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "out-of-memory")
    assert err.startswith("error: there is not enough memory (") and err.count("\n") == 1


@pytest.mark.usefixtures("uncollected")
def test_sigterm_is_exit_code_130_and_the_handler_is_restored(dsclora, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGTERM) if sys.platform != "win32" else signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(listing, "list_models", interrupt)
    ran = dsclora("models", "list")
    assert (ran.code, ran.err) == (130, "interrupted: the command did not finish\n")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("arguments", [["nonsense"], ["upscale"], ["upscale", "a.png", "--no-such-option"]])
def test_unknown_commands_and_options_are_exit_code_2(dsclora, arguments: list[str]) -> None:
    assert dsclora(*arguments).code == 2


def test_a_file_that_looks_like_an_option_is_told_how_to_be_written(dsclora, photo: Path) -> None:
    photo.rename("-dash.png")
    code, _, err = dsclora("upscale", "-dash.png", "--dry-run")
    assert code == 2 and err.endswith("note: write the path of -dash.png as ./-dash.png\n")
    error = json.loads(dsclora("upscale", "-dash.png", "--dry-run", "--json").out)["error"]
    assert error["hint"] == "write the path of -dash.png as ./-dash.png"
    assert dsclora("upscale", "./-dash.png", "--dry-run").code == 0
