"""All commands, and the one place where an exception becomes a line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from dsclora_cli import __version__
from dsclora_cli.cli import distill, merge, models, train, ui, upscale
from dsclora_cli.cli import eval as evaluation
from dsclora_cli.errors import DscloraError, ExitCode

app = typer.Typer(
    name="dsclora",
    help="Upscale photographs well, with a network of 131 thousand parameters.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("upscale", epilog=upscale.EXAMPLES)(upscale.upscale)
app.command("eval", epilog=evaluation.EXAMPLES, no_args_is_help=True)(evaluation.evaluate)
app.command("train", epilog=train.EXAMPLES, no_args_is_help=True)(train.train)
app.command("distill", epilog=distill.EXAMPLES, no_args_is_help=True)(distill.distill)
app.command("merge", epilog=merge.EXAMPLES, no_args_is_help=True)(merge.merge)
app.add_typer(models.app, name="models")


def _show_version(asked: bool) -> None:
    if asked:
        ui.show(f"dsclora {__version__}")
        raise typer.Exit


@app.callback(epilog="Examples:  [bold]dsclora upscale photo.jpg[/]  ·  [bold]dsclora models list[/]")
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
    try:
        with _terminable():
            app(list(sys.argv[1:] if argv is None else argv), prog_name="dsclora")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.DONE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except DscloraError as error:
        ui.show_error(error, traceback=debug)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever it is, the user sees one line
        ui.show_bug(error, traceback=debug)
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
