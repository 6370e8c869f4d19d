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
from dsclora_cli.errors import DscloraError, ExitCode

COMMANDS = MappingProxyType(
    {
        "upscale": ("upscale", "upscale", "EXAMPLES"),
        "eval": ("evaluate", "evaluate", "EXAMPLES"),
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
    """Run the command line on `argv`, without the program's name, and give its exit code; see docs/exit-codes.md.

    A failure is one line on stderr. With DSCLORA_DEBUG=1 in the environment its traceback comes before it.
    """
    debug = os.environ.get("DSCLORA_DEBUG") == "1"
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        with _terminable():
            application(given)(given, prog_name="dsclora")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.DONE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except DscloraError as error:
        console.show_error(error, traceback=debug)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the user sees one line
        console.show_bug(error, traceback=debug)
        return ExitCode.SOME_FAILED
    return ExitCode.DONE


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
