"""Ctrl-C and SIGTERM as a request to stop."""

from __future__ import annotations

import signal
import threading

import pytest

from dsclora_cli.stop_request import StopRequest


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
