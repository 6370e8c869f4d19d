"""Ctrl-C, SIGTERM and SIGHUP as an exception and as a request to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from dsclora_cli.stop_request import StopRequest, interruptible


@pytest.fixture(autouse=True)
def _signals_have_their_usual_effect() -> Iterator[None]:
    """Undo what `nohup`, or a shell that runs the tests in the background, has set."""
    numbers = [number for number in (getattr(signal, "SIGHUP", None), signal.SIGTERM) if number is not None]
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


HANG_UP = pytest.param(getattr(signal, "SIGHUP", None), marks=pytest.mark.skipif(os.name == "nt", reason="no SIGHUP"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, HANG_UP])
def test_a_signal_ends_a_command_but_cuts_no_import(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A module that takes every exception for a missing package, as some packages do.
    work = f"signal.raise_signal({int(number)}); time.sleep(0.2); whole = 1"
    text = f"import signal, time\ntry:\n    {work}\nexcept BaseException:\n    whole = 0\n"
    (tmp_path / "sent_to.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    @interruptible()
    def command() -> None:
        import_module("sent_to")
        time.sleep(10)  # cut short, when the signal comes again

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        command()
    assert sys.modules.pop("sent_to").whole == 1 and signal.getsignal(number) is before
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, HANG_UP])
@pytest.mark.parametrize("end", ["", "raise SystemExit(0)"])
def test_a_signal_in_the_last_import_of_a_command_is_not_lost(
    number: int, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "imported_last.py").write_text(f"import signal\nsignal.raise_signal({int(number)})\nwhole = 1\n{end}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("dsclora_cli.stop_request._AGAIN", 60)  # the command ends before
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        import_module("imported_last")
    sys.modules.pop("imported_last", None)
    assert signal.getsignal(number) is before
    with interruptible():
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_counted(number: int) -> None:
    before = signal.getsignal(number)
    stop = StopRequest()
    with stop:
        for count in (1, 2):
            signal.raise_signal(number)
            assert stop.count == count
    assert signal.getsignal(number) is before


def test_a_signal_that_the_process_ignores_stays_ignored() -> None:
    # As in a background job of a shell script.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop = StopRequest()
        with stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.count == 0
            signal.raise_signal(signal.SIGTERM)
            assert stop.count == 1
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_than_the_main_one_sets_no_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with StopRequest():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.skipif(os.name == "nt", reason="no SIGHUP")
def test_a_second_hang_up_is_no_second_request() -> None:
    # When a terminal is closed, the system and the shell send a signal each.
    before = signal.getsignal(signal.SIGHUP)
    stop = StopRequest()

    @interruptible()
    def command() -> None:
        with stop:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)

    command()
    assert stop.count == 1
    assert signal.getsignal(signal.SIGHUP) is before
    with stop:
        assert signal.getsignal(signal.SIGHUP) not in (before, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGHUP) is before
