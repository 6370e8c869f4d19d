"""Exceptions: the tree in the module's docstring, exit codes, and the one-line text."""

from __future__ import annotations

import errno
import inspect
import pickle

import pytest

from dsclora_cli import errors
from dsclora_cli.errors import DscloraError, ErrorCode, ErrorInfo, ExitCode, ImageUnwritable, UsageError, WeightsError
from dsclora_cli.hub_client import HubUnavailable
from dsclora_cli.inference.engine import NotFinite
from dsclora_cli.upscaling.types import describe_error


def test_the_tree_at_the_top_names_every_exception_with_its_code() -> None:
    assert errors.__doc__ is not None
    drawn = [line.split()[-2:] for line in errors.__doc__.splitlines() if "──" in line or "DscloraError" in line]
    classes = inspect.getmembers(errors, lambda each: inspect.isclass(each) and issubclass(each, DscloraError))
    assert sorted(drawn) == sorted([name, each.code.value] for name, each in classes)


def test_every_code_has_an_exception_except_for_codes_of_interrupts_and_lost_workers() -> None:
    used = {each.code for each in (DscloraError, *DscloraError.__subclasses__(), *errors.ImageError.__subclasses__())}
    assert set(ErrorCode) - used == {ErrorCode.INTERRUPTED, ErrorCode.WORKER_LOST}


@pytest.mark.parametrize(
    ("error", "exit_code"), [(ImageUnwritable, ExitCode.SOME_FAILED), (UsageError, 2), (WeightsError, 3)]
)
def test_an_error_carries_exit_code_code_message_and_hint(error: type[DscloraError], exit_code: int) -> None:
    raised = error("a.png: no space", "free some")
    assert raised.exit_code == exit_code
    assert raised.info == ErrorInfo(error.code, "a.png: no space", "free some")
    assert str(raised) == "a.png: no space (free some)" and str(error("a.png: no space")) == "a.png: no space"


def _kinds(of: type[DscloraError]) -> list[type[DscloraError]]:
    return [of, *(deeper for each in of.__subclasses__() for deeper in _kinds(each))]


def _one_of_each_kind() -> list[DscloraError]:
    made = [HubUnavailable("offline", "no file", "go online", "give a file"), NotFinite()]
    others = [kind for kind in _kinds(DscloraError) if kind not in {HubUnavailable, NotFinite}]
    made += [kind("no file", "look") for kind in others]
    assert len(made) > 10
    return made


def test_every_error_survives_the_way_between_two_processes() -> None:
    for error in _one_of_each_kind():
        arrived = pickle.loads(pickle.dumps(error))
        assert type(arrived) is type(error) and arrived.args == error.args
        assert vars(arrived) == vars(error) and arrived.info == error.info


def test_every_error_can_be_worded_anew() -> None:
    for error in _one_of_each_kind():
        before = error.info
        named = error.reworded(f"a.png:\n{error.message}")
        assert type(named) is type(error) and named.args == (named.message,)
        assert named.info == ErrorInfo(error.code, f"a.png:\\n{error.message}", error.hint)
        assert error.reworded(hint="wait\x1b").info == ErrorInfo(error.code, error.message, "wait\\x1b")
        assert error.info == before and vars(error.reworded()) == vars(error)


def test_an_error_about_weights_worded_anew_keeps_the_reason_and_the_step() -> None:
    error = HubUnavailable("offline", "no file", "go online", "give a file")
    named = error.reworded("a.png: no file")
    assert (named.reason, named.hint) == ("offline", "go online, or give a file")
    assert named.step == ErrorInfo(error.code, "a.png: no file", "go online")
    assert error.reworded(hint="wait").step.hint == "wait"
    assert HubUnavailable("offline", "no file", "", "give a file").step.hint == ""
    assert WeightsError("no file", "go online").step.hint == "go online"


@pytest.mark.parametrize(
    ("text", "line", "with_class"),
    [
        ("no such op", "no such op", "RuntimeError: no such op"),
        ("\n\n  no such op  \nat line 3\n", "no such op", "RuntimeError: no such op"),
        ("", "RuntimeError", "RuntimeError"),
        (" \n ", "RuntimeError", "RuntimeError"),
    ],
)
def test_an_exception_of_a_library_is_one_line(text: str, line: str, with_class: str) -> None:
    error = RuntimeError(text)
    assert (errors.first_line(error), errors.class_and_line(error)) == (line, with_class)
    assert errors.bug_info(error).message == f"this is a bug in dsclora: {with_class}"


def test_only_an_error_about_a_file_has_the_step_for_files() -> None:
    refused = errors.system_info(OSError(36, "File name too long", "long.png"), ErrorCode.FAILED)
    assert str(refused) == "long.png: File name too long (choose a shorter name)"
    assert str(describe_error(OSError("3 bytes are missing"))) == "3 bytes are missing"
    assert errors.system_info(OSError("3 bytes are missing"), ErrorCode.FAILED) is None
    full = errors.system_info(OSError(28, "No space left on device"), ErrorCode.FAILED)
    assert str(full) == "No space left on device (free some space)"


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "check the permissions"),
        (errno.ENOENT, "check the path"),
        (errno.EIO, "check the path, its permissions and the free space"),
        (None, "check the path, its permissions and the free space"),
    ],
)
def test_the_next_step_fits_the_error_of_the_system(number: int | None, step: str) -> None:
    error = OSError("short") if number is None else OSError(number, "refused")
    assert errors.next_step(error) == step
    assert errors.next_step(error, "set TMPDIR") == f"{step}, or set TMPDIR"
