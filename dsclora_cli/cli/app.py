"""All commands, and the one place where an exception becomes a line and an exit code."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Annotated

import typer

from dsclora_cli import __version__
from dsclora_cli.cli import console
from dsclora_cli.errors import ExitCode, UsageError

COMMANDS = MappingProxyType(
    {
        "upscale": ("upscale", "upscale", "EXAMPLES"),
        "eval": ("evaluate", "evaluate", "EVAL_EXAMPLES"),
        "train": ("train", "train", "TRAIN_EXAMPLES"),
        "distill": ("train", "distill", "DISTILL_EXAMPLES"),
        "merge": ("train", "merge", "MERGE_EXAMPLES"),
        "models": ("models", "app", ""),
    }
)
"""For each command: its module in `cli`, the function or command group there, and the name of its examples there."""


def application(argv: Sequence[str] = ()) -> typer.Typer:
    """All commands, or the one that `argv` names and no other: each takes time to import."""
    app = typer.Typer(
        name="dsclora",
        help="Upscale photographs well, with a network of 131 thousand parameters.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog="Examples:  [bold]dsclora upscale photo.jpg[/]  ·  [bold]dsclora models list[/]")(_root)
    for name in argv[:1] if argv and argv[0] in COMMANDS else COMMANDS:
        module_name, function, examples = COMMANDS[name]
        module = importlib.import_module(f"dsclora_cli.cli.{module_name}")
        command = getattr(module, function)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, epilog=getattr(module, examples), no_args_is_help=name != "upscale")(command)
    return app


def _show_version(asked: bool) -> None:
    if asked:
        console.show(f"dsclora {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Upscale photographs well, with a network of 131 thousand parameters."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; docs/exit-codes.md explains the codes.

    A failure is one line on stderr, and with `--json` one object on stdout as well. With DSCLORA_DEBUG=1 in the
    environment the traceback stands before the line.

    Args:
        argv: Arguments without the name of the program; None takes those of this process.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    # Asked here and not in the command: options that do not parse reach no command.
    as_json = "--json" in given
    try:
        with _terminable():
            application(given)(given, prog_name="dsclora")
    except SystemExit as stop:
        return _exit_code(stop, as_json)
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - users see one line, whatever the exception is
        return console.show_error(error, as_json, traceback=os.environ.get("DSCLORA_DEBUG") == "1")
    return ExitCode.DONE


def _exit_code(stop: SystemExit, as_json: bool) -> int:
    """Return the exit code of a command that Typer has ended, after showing what `--json` still needs."""
    code = stop.code if isinstance(stop.code, int) else ExitCode.DONE
    if code == ExitCode.INTERRUPTED:  # Typer turns KeyboardInterrupt into this exit code
        return console.show_error(KeyboardInterrupt(), as_json)
    # Typer has written its own usage error to stderr and keeps the error as the context of the exit.
    refusal = getattr(stop.__context__, "format_message", None)
    if refusal and as_json:
        console.show_json_error(UsageError(refusal()).info)
    return code


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run as Ctrl-C does: cleanly."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
