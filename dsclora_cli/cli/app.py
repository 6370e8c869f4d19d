"""Register the commands; `main` runs a command line and turns every exception into one line and an exit code.

Commands are in the modules next to this file, and are imported only when they run.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsclora_cli import __version__
from dsclora_cli.cli import console
from dsclora_cli.cli.config import apply_settings, name_settings
from dsclora_cli.cli.numbers import name_numbers
from dsclora_cli.errors import ExitCode, UsageError, is_debugging
from dsclora_cli.paths import is_taken
from dsclora_cli.stop_request import interruptible

if TYPE_CHECKING:
    from dsclora_cli.settings import Setting

COMMANDS = MappingProxyType(
    {
        "upscale": ("upscale", "upscale", "UPSCALE_EXAMPLES"),
        "frames": ("frames", "frames", "FRAMES_EXAMPLES"),
        "compare": ("compare", "compare", "COMPARE_EXAMPLES"),
        "eval": ("evaluate", "evaluate", "EVAL_EXAMPLES"),
        "train": ("train", "train", "TRAIN_EXAMPLES"),
        "distill": ("train", "distill", "DISTILL_EXAMPLES"),
        "merge": ("train", "merge", "MERGE_EXAMPLES"),
        "export": ("export", "export", "EXPORT_EXAMPLES"),
        "push": ("push", "push", "PUSH_EXAMPLES"),
        "models": ("models", "models_app", ""),
        "doctor": ("doctor", "doctor", "DOCTOR_EXAMPLES"),
        "config": ("config", "config_app", ""),
    }
)
"""Command to module in `cli`, function or command group in the module, and name of the examples in the module."""

_BARE = frozenset(("upscale", "frames", "doctor"))
"""Commands that run without arguments: `upscale` names the missing INPUT, `frames` reads stdin. Others show help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; docs/exit-codes.md explains the codes.

    A failure is a line on stderr, and with `--json` an object on stdout too. With DSCLORA_DEBUG=1 in the environment
    the traceback comes first.

    Args:
        argv: Arguments without the name of the program; None takes the arguments of the process.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    # Asked here and not in the command: options that do not parse reach no command.
    as_json = "--json" in given
    settings: Sequence[Setting] = ()
    try:
        _refuse_empty(given)
        _refuse_absent_folder()
        with interruptible():
            program = typer.main.get_command(application(given or _words_to_complete()))
            name_numbers(program)
            _name_stdout(program)
            settings = apply_settings(program, given)
            program(given, prog_name="dsclora")
    except SystemExit as stop:
        return _exit_code(stop, given, as_json)
    except (KeyboardInterrupt, Exception) as error:  # noqa: BLE001 - users see one line, whatever the exception is
        name_settings(error, settings)
        return console.show_error(error, as_json, traceback=is_debugging())
    return ExitCode.DONE


def _refuse_empty(given: Sequence[str]) -> None:
    """Raise UsageError for an empty argument: as a path it would mean the folder of the terminal."""
    for before, word in pairwise(("dsclora", *given)):
        if word and not (word.startswith("--") and word.endswith("=")):
            continue
        raise UsageError(
            f"an argument is empty, after {before}" if not word else f"{word} has no value",
            "give a value, or leave the argument out; a variable of a script may be empty",
        )


def _refuse_absent_folder() -> None:
    """Raise UsageError where the folder of the terminal was removed: relative paths mean nothing, and torch fails."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder does not exist any more", "go to another folder") from error


def _name_stdout(command: Any) -> None:  # noqa: ANN401 - Typer's own class, which has no public name
    """Let errors of a full disk name stdout: Typer writes help and completions while a command parses its arguments."""
    parse = command.parse_args

    def parse_args(*given: object) -> object:
        with console.stdout_errors():
            return parse(*given)

    command.parse_args = parse_args
    for inner in getattr(command, "commands", {}).values():
        _name_stdout(inner)


def _words_to_complete() -> list[str]:
    """Return the command line that a shell asks to complete, without the name of the program; else an empty list."""
    if "_DSCLORA_COMPLETE" not in os.environ:
        return []
    # bash has a variable of its own; zsh, fish and PowerShell share another one.
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    return words.split()[1:]


def _exit_code(stop: SystemExit, given: Sequence[str], as_json: bool) -> int:
    """Return the exit code of a command ended by Typer, and write the JSON object of an error."""
    code = stop.code if isinstance(stop.code, int) else ExitCode.DONE
    if code == ExitCode.INTERRUPTED:  # Typer turns KeyboardInterrupt into this exit code
        interrupt = KeyboardInterrupt()
        interrupt.__context__ = stop  # leads to the exception that the view of the command has met
        return console.show_error(interrupt, as_json)
    # Typer has written its own usage error to stderr and keeps the error as the context of the exit.
    refusal = getattr(stop.__context__, "format_message", None)
    if refusal:
        # A file like -1.png looks like an option.
        files = (word for word in given if word.startswith("-") and is_taken(Path(word)))
        hint = next((f"write the path of {file} as ./{file}" for file in files), "")
        if as_json:
            console.show_json_error(UsageError(refusal(), hint).info)
        elif hint:
            console.print_labeled("note", hint, "cyan")
    return code


def application(argv: Sequence[str] = ()) -> typer.Typer:
    """Return the application with all commands; for a known command in `argv`, with only the named command.

    Every command takes time to import.
    """
    app = typer.Typer(
        name="dsclora",
        help="Upscale photographs well, with a network of 131 thousand parameters.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog="Examples:  [bold]dsclora upscale photo.jpg[/]  ·  [bold]dsclora models list[/]")(_root)
    # Without a known command `argv` asks for help or is wrong, and the help lists all commands.
    for name in argv[:1] if argv and argv[0] in COMMANDS else COMMANDS:
        module_name, function, examples = COMMANDS[name]
        module = importlib.import_module(f"dsclora_cli.cli.{module_name}")
        command = getattr(module, function)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, epilog=getattr(module, examples), no_args_is_help=name not in _BARE)(command)
    return app


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Upscale photographs well, with a network of 131 thousand parameters."""


def _show_version(asked: bool) -> None:
    if asked:
        console.print_line(f"dsclora {__version__}")
        raise typer.Exit
